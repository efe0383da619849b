"""The main job, end to end: record a training run, replay it into visdom, read it back.

`make demo` runs this. It leaves demo/run.h5 and visdom's environment file to look at.
"""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from flexrec.replay.server import start_server
from flexrec.replay.visdom_sink import VisdomSink

FOLDER = Path("demo")
FLEXREC = Path(sys.executable).with_name("flexrec")


def main() -> None:
    """Train, serve, replay, and print what the server shows."""
    FOLDER.mkdir(exist_ok=True)
    recording = FOLDER / "run.h5"
    run(sys.executable, "examples/digits.py", "--out", str(recording), "--overwrite")
    with start_server(env_path=FOLDER / "visdom") as server:
        run(
            *(str(FLEXREC), "replay", str(recording), "--preset", "loss+MSE+acc+confusion"),
            *("--port", str(server.port), "--env", "demo"),
        )
        sink = VisdomSink(port=server.port, env="demo")
        windows = sink.windows("demo")
        sink.save("demo")
        print(tabulate([row(window) for window in windows.values()], HEADERS, floatfmt=".4g"))
        print(f"\nvisdom showed this at {server.url}/env/demo")
    print(f"the recording: {recording}; the environment file: {FOLDER / 'visdom' / 'demo.json'}")
    if not windows:
        sys.exit("the server shows no windows")


HEADERS = ("window", "traces", "points", "last value")


def row(window: dict[str, Any]) -> list[object]:
    """What a window of visdom's shows."""
    traces = window["content"]["data"]
    points = sum(len(trace.get("y") or trace.get("z") or ()) for trace in traces)
    names = ", ".join(str(trace.get("name") or trace["type"]) for trace in traces)
    values = [trace["y"][-1] for trace in traces if trace["type"] == "scatter"]
    last = ", ".join(f"{math.nan if v is None else v:.4g}" for v in values)
    return [window["title"], names, points, last]


def run(*command: str) -> None:
    """Run a command as a user would, showing it."""
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)  # noqa: S603 - our own commands


if __name__ == "__main__":
    main()
