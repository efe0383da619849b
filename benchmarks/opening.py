"""How long the HTML file takes to open in a headless Chromium, until its plots are drawn.

    python benchmarks/opening.py

The file is what `flexrec replay --html` writes, thinned as by default or not at all; the time is
from the request to the last plot's drawing, in a browser that runs already. `busy` is the time of
the page's thread on the processor, which depends less on what else runs. Needs Chromium (make
browser).
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.html import HtmlSink

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.browser import chromium, chromium_path, quiet_page, until

ROUNDS = 5
CASES = ((1, 1_000, 0), (1, 100_000, 0), (10, 10_000, 2_000), (10, 10_000, 0))
DRAWN = "document.querySelectorAll('.scatterlayer .js-line').length >= {}"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a single round")
    rounds = 1 if parser.parse_args().quick else ROUNDS
    path = chromium_path()
    if path is None:
        sys.exit("no Chromium found: make browser installs it")
    rows = []
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser:
        for plots, points, max_points in CASES:
            file = Path(folder) / f"{plots}x{points}.html"
            write(file, plots, points, max_points)
            taken, busy = [], []
            for _ in range(rounds):
                with quiet_page(browser, height=4000) as (page, _):
                    session = page.context.new_cdp_session(page)
                    session.send("Performance.enable", {"timeDomain": "threadTicks"})
                    start = time.perf_counter()
                    page.goto(file.as_uri())
                    until(page, DRAWN.format(plots))
                    taken.append(time.perf_counter() - start)
                    found = session.send("Performance.getMetrics")["metrics"]
                    busy += [each["value"] for each in found if each["name"] == "TaskDuration"]
            drawn, size = min(points, max_points or points), file.stat().st_size / 1e6
            times = statistics.median(busy), statistics.median(taken), max(taken)
            rows.append([plots, points, drawn, size, *times])
    names = ("plots", "points each", "kept", "MB", "busy s", "median s", "worst s")
    print(tabulate(rows, names, floatfmt=".2f", intfmt=",", tablefmt="github"))


def write(file: Path, plots: int, points: int, max_points: int) -> None:
    """A file of random walks."""
    rng = np.random.default_rng(0)
    x = np.arange(points, dtype=np.float64)
    sink = HtmlSink(file, max_points=max_points, overwrite=True)
    sink.show(
        [
            Window(f"walk{i}", None, "line", (Trace("walk", rng.normal(size=points).cumsum(), x),))
            for i in range(plots)
        ]
    )
    sink.close()


if __name__ == "__main__":
    main()
