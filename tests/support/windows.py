"""Run flexrec's commands as on Windows, as far as Linux can act it.

    python windows.py windows < commands.json    (linux: the same, without acting)

In: a list of command lines, each a list of words. Out: for each its exit code and output.

What Windows lacks is taken away after other packages have been imported. Text files have \\r\\n
and cp1252 unless told otherwise; files that are open are neither renamed nor removed; os.open must
be told that a file is binary; locks are msvcrt's; loops have no signal handlers; a process that is
terminated cannot react. Processes that are started with `-c` act it too.
"""

import asyncio
import builtins
import errno
import fcntl
import importlib
import io
import json
import multiprocessing.util
import os
import signal
import stat
import subprocess
import sys
import sysconfig
import traceback
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

READING = "numpy h5py multiprocessing.connection zoneinfo"
SERVING = "tornado.httpserver visdom.server.app"
COMMANDS = f"{READING} typer rich.console tabulate uniplot requests visdom pyarrow.parquet"
MODULES = "fcntl grp posix_spawn pwd resource termios tty"
OS = (
    "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown fchmod fchown fork geteuid getuid getgid "
    "getxattr killpg lchown listxattr memfd_create mkfifo posix_fadvise pread preadv pwrite "
    "pwritev register_at_fork removexattr sched_getaffinity setsid setxattr"
)
SIGNALS = "SIGALRM SIGBUS SIGCHLD SIGHUP SIGKILL SIGPIPE SIGUSR1 SIGUSR2 alarm setitimer sigwait"
BINARY = 0x8000  # Windows' own number; Linux ignores it


def begin(packages: str) -> None:
    """Act Windows from now on; these packages are imported before."""
    sysconfig.get_config_vars()  # kept: there are none for Windows here
    modules: Any = sys.modules
    with suppress(ImportError):  # visdom imports it; with it comes scipy, which looks for torch
        importlib.import_module("openTSNE")
    modules["torch"] = None  # visdom would import it
    for name in packages.split():
        with suppress(ImportError):
            importlib.import_module(name)
    del modules["torch"]
    _act_files()
    _act_processes()
    for name in MODULES.split():
        modules[name] = None
    for module, names in ((os, OS), (signal, SIGNALS)):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "win32"


def _act_files() -> None:
    lock, exclusively = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB

    def locking(descriptor: int, _mode: int, _size: int) -> None:
        try:
            lock(descriptor, exclusively)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    msvcrt: Any = types.ModuleType("msvcrt")
    msvcrt.locking, msvcrt.LK_NBLCK = locking, 2
    sys.modules["msvcrt"] = msvcrt

    real_open, real_fsync, flags_of = os.open, os.fsync, fcntl.fcntl

    def os_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("flexrec.") and path != os.devnull:
            assert flags & BINARY, f"{caller} opens {path} as text"
            if os.path.isdir(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, flags, *args, **options)

    def fsync(descriptor: int) -> None:
        if flags_of(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(descriptor)

    def open_text(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "b" not in mode:
            names = ("buffering", "encoding", "errors", "newline")
            options |= dict(zip(names, args, strict=False))
            args = ()
            if options.get("encoding") in (None, "locale"):
                options["encoding"] = "cp1252"
            if options.get("newline") is None and set(mode) & set("wax+"):
                options["newline"] = "\r\n"
        return real_text_open(file, mode, *args, **options)

    real_text_open = builtins.open
    system: Any = os
    system.O_BINARY, system.O_TEMPORARY = BINARY, 0
    system.open, system.fsync = os_open, fsync
    texts: Any = builtins
    texts.open = io.open = open_text
    for name in ("rename", "replace", "remove", "unlink"):
        setattr(os, name, _unless_open(getattr(os, name)))


def _unless_open(real: Callable[..., None]) -> Callable[..., None]:
    """The function, which fails for paths that this process has open."""

    def acted(*args: Any, **options: Any) -> None:
        for path in args:
            with suppress(FileNotFoundError):
                status = os.stat(path, follow_symlinks=False, dir_fd=options.get("dir_fd"))
                if stat.S_ISREG(status.st_mode) and _is_open(status):
                    raise PermissionError(errno.EACCES, "The file is used by a process", str(path))
        real(*args, **options)

    return acted


def _is_open(wanted: os.stat_result) -> bool:
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(number)), wanted):
                return True
    return False


def _act_processes() -> None:
    real_init, kill, term = subprocess.Popen.__init__, os.kill, signal.SIGKILL
    # What the standard library itself needs of what is taken away.
    multiprocessing.util.register_after_fork = lambda *_: None

    def init(self: Any, args: Any, *more: Any, **options: Any) -> None:
        options.pop("creationflags", None)
        if not isinstance(args, str) and "-c" in args:
            at = list(args).index("-c") + 1
            needed = SERVING if "runpy" in args[at] else READING
            args = [*args[:at], beginning(needed) + args[at], *args[at + 1 :]]
        real_init(self, args, *more, **options)

    def add_signal_handler(*_: Any) -> None:
        raise NotImplementedError

    process: Any = subprocess.Popen
    process.__init__ = init
    process.terminate = process.kill = lambda self: kill(self.pid, term)
    loop: Any = asyncio.SelectorEventLoop
    loop.add_signal_handler = add_signal_handler


def run(words: Sequence[str], *, newline: str) -> tuple[int, str]:
    """Run a command; return its exit code, and what it printed."""
    from flexrec.cli.commands import run as run_command

    before, made = (sys.argv, sys.stdout, sys.stderr), io.BytesIO()
    sys.argv = ["flexrec", *words]
    sys.stdout = sys.stderr = text = io.TextIOWrapper(made, "cp1252", newline=newline)
    code: Any = 0
    try:
        run_command()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001
        code = traceback.format_exc()
    finally:
        text.flush()
        sys.argv, sys.stdout, sys.stderr = before
    return code, made.getvalue().decode("cp1252")


def main() -> None:
    """Run the commands on stdin."""
    commands = json.load(sys.stdin)
    newline = "\n"
    if sys.argv[1] == "windows":
        begin(COMMANDS)
        newline = "\r\n"
    print(json.dumps([run(words, newline=newline) for words in commands]))


def beginning(packages: str) -> str:
    """Code that begins to act."""
    return f"import runpy; runpy.run_path({__file__!r})['begin']({packages!r})\n"


def acting(what: str, commands: Sequence[Sequence[object]], cwd: Path) -> list[tuple[Any, str]]:
    """Run commands in a process that acts "windows", or in one that acts nothing."""
    done = subprocess.run(
        [sys.executable, __file__, what],
        input=json.dumps([[str(word) for word in words] for words in commands]),
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout.splitlines()[-1])]


if __name__ == "__main__":
    main()
