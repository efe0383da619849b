"""Take the pictures that README shows, of the demo's recording: `make screenshots`.

    python tools/screenshots.py [RECORDING]

They go to docs/screenshots/. Needs Chromium.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from flexrec.recorder import Recording  # noqa: E402
from flexrec.replay import play, preset  # noqa: E402
from flexrec.replay.server.assets import provide  # noqa: E402
from flexrec.replay.server.server import start_server  # noqa: E402
from flexrec.replay.sinks.visdom import VisdomSink  # noqa: E402
from support.browser import chromium, chromium_path, quiet_page, until  # noqa: E402 - beside the tests

PRESET = "loss+acc+confusion+grads"
FOLDER = ROOT / "docs" / "screenshots"
DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= {}"
MAX_BYTES = 150_000


def main(recording: Path) -> int:
    """Show the recording in visdom and in a file, and keep a picture of each."""
    path = chromium_path()
    if path is None:
        print("there is no Chromium: make browser installs it")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Recording(recording) as run:
        windows = play(run, preset(PRESET, phases=("train", "test")))
    with tempfile.TemporaryDirectory() as folder, chromium(path) as browser:
        file = Path(folder) / "run.html"
        subprocess.run(  # noqa: S603 - our own command
            [Path(sys.executable).with_name("flexrec"), "replay", recording, "-p", PRESET,
             "--html", file],
            check=True,
        )  # fmt: skip
        with start_server(env_path=folder, files=provide().files) as server:
            sink = VisdomSink(server=server.url, env="demo")
            sink.show(windows)
            sink.close()
            places = {"visdom": f"{server.url}/env/demo", "html": file.as_uri()}
            for name, address in places.items():
                with quiet_page(browser, width=1300, height=760) as (page, complaints):
                    page.goto(address)
                    until(page, DRAWN.format(4))
                    page.wait_for_timeout(1000)
                    picture = FOLDER / f"{name}.png"
                    page.screenshot(path=picture)
                    size = picture.stat().st_size
                    print(f"{picture.relative_to(ROOT)}: {size / 1000:.0f} kB", *complaints)
                    if size > MAX_BYTES or complaints:
                        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/run.h5")))
