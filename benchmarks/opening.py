"""How long the HTML file takes to open in a headless Chromium, until its plots are drawn.

    python benchmarks/opening.py

The file is what `flexrec replay --html` writes, unthinned; the time is from the request to the last
plot's drawing, in a browser that runs already. Chromium must be installed (make browser-test).
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
        for plots, points in ((1, 1_000), (1, 100_000), (10, 10_000)):
            file = Path(folder) / f"{plots}x{points}.html"
            write(file, plots, points)
            taken = []
            for _ in range(rounds):
                with quiet_page(browser, height=4000) as (page, _):
                    start = time.perf_counter()
                    page.goto(file.as_uri())
                    until(page, DRAWN.format(plots))
                    taken.append(time.perf_counter() - start)
            rows.append([plots, points, statistics.median(taken), max(taken)])
    print(tabulate(rows, ("plots", "points each", "median s", "worst s"), floatfmt=".2f"))


def write(file: Path, plots: int, points: int) -> None:
    """A file of random walks."""
    rng = np.random.default_rng(0)
    x = np.arange(points, dtype=np.float64)
    sink = HtmlSink(file, max_points=0, overwrite=True)
    sink.show(
        [
            Window(f"walk{i}", None, "line", (Trace("walk", rng.normal(size=points).cumsum(), x),))
            for i in range(plots)
        ]
    )
    sink.close()


if __name__ == "__main__":
    main()
