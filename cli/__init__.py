"""The command line: how a process begins and ends. What it can be told to do is in commands.py."""

import atexit
import gc
import signal
import sys

__all__ = ["main"]

_OBJECTS = 100_000  # more than a command makes before it begins to work


def main() -> None:
    """Run the command line; an error is one line on stderr, and the exit code 2."""
    # To search what is being imported for garbage, and all that there is once more at the end,
    # would take a tenth of a short command's time, and finds none.
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)

    try:
        from flexrec.cli.commands import run

        run()
    except KeyboardInterrupt:  # while importing, too
        sys.exit(130)
    finally:
        # From here on nobody would catch what a Ctrl-C raises.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
