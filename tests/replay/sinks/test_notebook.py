"""What a notebook shows, of a real kernel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.notebook import bundle, table

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

CELLS = (
    "import numpy as np\n"
    "from flexrec.recorder import Recorder, Recording\n"
    "from flexrec.replay import FlexLogger, play, preset\n"
    "from flexrec.replay.sinks import ListSink\n"
    "with Recorder('run.h5') as rec:\n"
    "    for i in range(3):\n"
    "        rec.add({'train_loss': 1 / (i + 1), '<b>': 1})\n"
    "        rec.add({'train_mse': (np.ones(2), np.full(2, i))})\n"
    "        rec.log(i)\n"
    "run = Recording('run.h5')\n",
    "run",
    "windows = play(run, preset('loss+MSE'))\nwindows[0]",
    "windows",
    "windows[1:]",
    "logger = FlexLogger(preset('loss'), sink=ListSink())\n"
    "logger.add({'train_loss': 1.0})\nlogger.log(0)\nlogger",
    "[run.path.name]",
    "run.close()\nrun",
)
FIGURE = "application/vnd.plotly.v1+json"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """The outputs of each cell: what it displays, by MIME type."""
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
    ).execute()
    errors = [o for cell in notebook.cells for o in cell.outputs if o.output_type == "stream"]
    assert not errors
    return [[output.data for output in cell.outputs] for cell in notebook.cells]


def test_a_recording_is_a_table(shown: list[list[Any]]) -> None:
    (output,) = shown[1]
    assert "<td>train_loss" in output["text/html"].replace(" ", "")
    assert "&lt;b&gt;" in output["text/html"]
    assert "<b>" not in output["text/html"]
    assert "closed here" in shown[7][0]["text/plain"]
    assert "text/html" not in shown[7][0]


def test_a_window_is_a_figure(shown: list[list[Any]]) -> None:
    (output,) = shown[2]
    assert [trace["name"] for trace in output[FIGURE]["data"]] == ["train"]
    assert output[FIGURE]["layout"]["title"]["text"] == "Loss"


def test_of_a_list_and_of_a_logger_every_window_is_shown(shown: list[list[Any]]) -> None:
    assert [len(shown[i]) for i in (3, 4, 5)] == [2, 1, 1]
    for output in (output for i in (3, 4, 5) for output in shown[i]):
        assert output[FIGURE]["data"]
    assert shown[6] == [{"text/plain": "['run.h5']"}], "other lists are as they were"


def test_texts_and_pictures_are_no_markup() -> None:
    text = Window("w", None, "text", (Trace("t", "<script>"),), {"title": "<b>"})
    assert bundle(text) == {"text/html": "<p><b>&lt;b&gt;</b></p><pre>&lt;script&gt;</pre>"}
    opts = {"title": "Photo", "caption": "<i>"}
    image = Window("w", None, "image", (Trace("t", np.zeros((3, 8, 8))),), opts)
    shown = bundle(image)["text/html"]
    assert shown.startswith('<p><b>Photo</b></p><img src="data:image/png;base64,')
    assert "width: 256px; " in shown, "large enough to recognise"
    assert shown.endswith("<p>&lt;i&gt;</p>")
    odd = Window("w", None, "line", (Trace("t", [1.0], [0.0]),), {"no such opt": 1})
    assert bundle(odd) == {}, "it cannot be drawn"


def test_a_long_table_says_what_is_missing(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add({f"k{i}": 1.0 for i in range(102)})
    with Recording(tmp_path / "run.h5") as run:
        assert "and 2 more keys" in str(table(run))
