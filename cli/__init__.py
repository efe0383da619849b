"""The entry point of the command line: start-up and exit. The commands are in commands.py.

A Ctrl-C before `main` has begun prints a traceback, so nothing is imported up here but sys.
"""

import sys

__all__ = ["main"]

_OBJECTS = 100_000  # more than a command makes before it begins to work


def main() -> None:
    """Run the command line; an error prints one line to stderr and exits with code 2.

    Ctrl-C exits with code 130.
    """
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        import signal

        # From here on a KeyboardInterrupt would not be caught.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run() -> None:
    import atexit
    import gc

    # Garbage collection during imports and at exit would take a tenth of a short command's time
    # and finds nothing.
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)

    from flexrec.cli.commands import run

    run()
