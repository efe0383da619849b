"""The main job, end to end: record a training run, replay it into visdom, read it back.

`make demo` runs this. It leaves demo/run.h5, visdom's environment file and an HTML page to look at,
which needs no server. Everything is served from this machine.
"""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from tabulate import tabulate

from flexrec.recorder.errors import ServerError
from flexrec.replay.server.assets import provide
from flexrec.replay.server.server import start_server
from flexrec.replay.sinks.visdom import VisdomSink

FOLDER = Path("demo")
PRESET = "loss+MSE+acc+confusion"
FLEXREC = Path(sys.executable).with_name("flexrec")


def main() -> None:
    """Train, serve, replay, and print what the server shows."""
    FOLDER.mkdir(exist_ok=True)
    recording = FOLDER / "run.h5"
    run(sys.executable, "examples/digits.py", "--out", str(recording), "--overwrite")
    files = page_files()
    with start_server(env_path=FOLDER / "visdom", files=files or {}) as server:
        run(
            *(str(FLEXREC), "replay", str(recording), "--preset", PRESET),
            *("--port", str(server.port), "--env", "demo"),
        )
        sink = VisdomSink(port=server.port, env="demo")
        windows = sink.windows("demo")
        sink.save("demo")
        print(tabulate([row(window) for window in windows.values()], HEADERS, floatfmt=".4g"))
        if files is not None:
            print(f"visdom served its page from here, all of its {count_served(server.url)} files")
    html = FOLDER / "run.html"
    run(str(FLEXREC), "replay", str(recording), "--preset", PRESET, "--html", str(html), "--force")
    if not windows:
        sys.exit("the server shows no windows")
    print(f"\nthe recording is {recording}")
    if files is not None:
        print(f"to see it in visdom: {FLEXREC} serve --env-path {FOLDER / 'visdom'}")
    print(f"to see it now, open {html.resolve().as_uri()}")


def page_files() -> dict[str, str] | None:
    """What visdom's page needs; None if it cannot be had here, without internet."""
    try:
        return provide().files
    except ServerError:
        return None


def count_served(url: str) -> int:
    """How many files the page names; each must come from this machine."""
    page = requests.get(f"{url}/env/demo", timeout=30)
    page.raise_for_status()
    named = re.findall(r"(?:src|href)=[\"']?(/static/[^\s\"'>]+)", page.text)
    for name in named:
        requests.get(url + name, timeout=30).raise_for_status()
    return len(named)


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
