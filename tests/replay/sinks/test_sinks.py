"""Environment files: what visdom would have written, the same bytes every time."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.plots.pictures import decoded
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks.base import ChangesSink, ListSink, Sink
from flexrec.replay.sinks.env_file import EnvFileSink, dump, env_document
from flexrec.replay.sinks.visdom import VisdomSink, _import_visdom
from support.window_cases import TEST, TRAIN, WINDOWS, window

GOLDEN = Path(__file__).parents[2] / "data" / "windows.json"


def without_chance(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Windows of a server, without what differs from run to run or from version to version."""
    for kept in found.values():
        for field in ("contentID", "version", "comment"):
            kept.pop(field, None)
        if kept["type"] == "plot":
            kept["content"].pop("caption", None)
    return found


def on_server(url: str, env: str) -> dict[str, dict[str, Any]]:
    sink = VisdomSink(server=url, env=env)
    try:
        return without_chance(sink.windows())
    finally:
        sink.close()


def rounded(text: str) -> str:
    """Round long numbers: the last bit of numpy's logarithms depends on the processor."""
    return re.sub(r"-?\d+\.\d{12,}", lambda found: f"{float(found[0]):.12g}", text)


def test_the_list_keeps_the_latest_and_the_history() -> None:
    sink: Sink = ListSink()
    first, second = window("line", TRAIN), window("line", TEST)
    other = Window("line", "env", "line", (TEST,))
    sink.show([first, other])
    sink.show([second])
    sink.close()
    assert isinstance(sink, ListSink)
    assert sink.windows == {(None, "line"): second, ("env", "line"): other}
    assert sink.history == [first, other, second]


def test_changes_are_passed_on_in_the_order_of_the_windows() -> None:
    """Colours go by the order of windows, so a live logger's file must have replay's order."""
    a, b, c = (Window(win, None, "line", (TEST,)) for win in "abc")
    held = ListSink()
    sink = ChangesSink(held)
    for shown in ([a, c], [a, c], [a, b, c], [b, c], [c, b], [a, c]):
        sink.show(shown)
        assert list(held.windows.values()) == shown
    assert held.history == [a, c, b, c, c, b, a, c]


@pytest.mark.parametrize("is_removed", [False, True])
def test_after_an_interrupt_the_windows_are_in_order(is_removed: bool) -> None:
    class Interrupted(ListSink):
        is_due = True

        def remove(self, window: Window) -> None:
            if is_removed or not self.is_due:
                super().remove(window)
            if self.is_due:
                self.is_due = False
                raise KeyboardInterrupt

    a, b, c, d = (Window(win, None, "line", (TEST,)) for win in "abcd")
    for later in ([a, b, c, d], [a, c, d], [b, d, c], [d]):
        held = Interrupted()
        sink = ChangesSink(held)
        sink.show([a, c, d])
        with pytest.raises(KeyboardInterrupt):
            sink.show([a, b, c, d])
        sink.show(later)
        assert list(held.windows.values()) == later


def test_the_document_is_what_a_server_keeps(visdom_server: Server) -> None:
    sink = VisdomSink(server=visdom_server.url, env="document", max_points=0)
    sink.show(WINDOWS)
    sink.save()
    sink.close()
    document = env_document(WINDOWS)
    assert document["reload"] == {}
    assert all(kept["contentID"] == kept["id"] for kept in document["jsons"].values())
    assert without_chance(document["jsons"]) == on_server(visdom_server.url, "document")
    saved = json.loads((visdom_server.env_path / "document.json").read_text())
    assert without_chance(saved["jsons"]) == on_server(visdom_server.url, "document")


def test_visdom_shows_a_file_that_lies_in_its_folder(tmp_path: Path) -> None:
    sink = EnvFileSink(tmp_path / "my env.json", max_points=0)
    sink.show(WINDOWS)
    sink.show([Window("w", "other", "line", (TEST,))])
    sink.close()
    envs = tmp_path / "envs"
    envs.mkdir()
    for path in sink.paths:
        shutil.copy(path, envs)
    with start_server(env_path=envs) as server:
        shown = on_server(server.url, "my env")
        assert shown == without_chance(env_document(WINDOWS)["jsons"])
        assert list(on_server(server.url, "my env-other")) == ["w"]
        # A shown window is a window like any other: it can be replaced.
        live = VisdomSink(server=server.url, env="my env")
        live.show([window("line", TEST)])
        live.save()
        live.close()
        assert on_server(server.url, "my env")["line"]["i"] == 0


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
def test_visdom_takes_an_upload(visdom_server: Server) -> None:
    document = json.loads(dump(env_document(WINDOWS)))
    client = _import_visdom().Visdom(
        server="http://127.0.0.1", port=visdom_server.port, use_incoming_socket=False
    )
    client.set_window_data(json.dumps(document["jsons"]), win=None, env="upload")
    client.session.close()
    assert on_server(visdom_server.url, "upload") == without_chance(document["jsons"])


def test_the_bytes_are_the_same_with_every_visdom() -> None:
    """The golden was written with one version of visdom; the tests run with several."""
    document = env_document(WINDOWS)
    for kept in document["jsons"].values():
        if kept["type"] == "image":  # how a PNG is packed is not visdom's doing
            shown = decoded(kept["content"]["src"])
            digest = hashlib.sha256(shown.tobytes()).hexdigest()
            kept["content"]["src"] = f"{shown.shape} {digest}"
    assert rounded(dump(document)) == rounded(GOLDEN.read_text(encoding="ascii"))


def test_the_same_windows_give_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        sink = EnvFileSink(tmp_path / f"{name}.json")
        sink.show(WINDOWS[:1])
        sink.show(WINDOWS)
        sink.close()
        sink.close()
        assert sink.paths == [tmp_path / f"{name}.json"]
        texts.append(sink.paths[0].read_bytes())
    assert texts[0] == texts[1] == dump(env_document(WINDOWS)).encode()


def test_files_are_thinned(tmp_path: Path) -> None:
    long = window("line", Trace("long", np.arange(5000.0), np.arange(5000.0)))
    for max_points, expected in ((100, 100), (0, 5000)):
        sink = EnvFileSink(tmp_path / "e.json", max_points=max_points, overwrite=True)
        sink.show([long])
        sink.close()
        kept = json.loads((tmp_path / "e.json").read_text())["jsons"]["line"]
        assert len(kept["content"]["data"][0]["y"]) == expected


def test_other_environments_have_files_of_their_own(tmp_path: Path) -> None:
    sink = EnvFileSink(tmp_path / "run.json", env="main")
    named = [Window("w", env, "line", (TEST,)) for env in (None, "main", "a/b", "ünï")]
    sink.show(named)
    sink.close()
    assert [path.name for path in sink.paths] == ["run.json", "run-a_b.json", "run-ünï.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in sink.paths)


@pytest.mark.parametrize("other", ["a_b", "A_b", "a:b"])
def test_no_two_environments_share_a_file_on_any_system(tmp_path: Path, other: str) -> None:
    clash = EnvFileSink(tmp_path / "clash.json")
    clash.show([Window("w", env, "line", (TEST,)) for env in ("a/b", other)])
    with pytest.raises(DefinitionError, match=f"'a/b', '{other}' differ only"):
        clash.close()
    assert not list(tmp_path.iterdir())


def test_nothing_shown_is_an_empty_environment(tmp_path: Path) -> None:
    sink = EnvFileSink(tmp_path / "e.json")
    sink.close()
    assert json.loads((tmp_path / "e.json").read_text()) == {"jsons": {}, "reload": {}}


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.json"
    EnvFileSink(path).close()
    old = path.read_text()

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    sink = EnvFileSink(path, overwrite=True)
    sink.show(WINDOWS)
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", fail)
        with pytest.raises(OSError, match="No space"):
            sink.close()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("e.json", old)]
    sink.close()
    assert list(json.loads(path.read_text())["jsons"]) == sorted(w.win for w in WINDOWS)


def test_an_undrawable_window_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    EnvFileSink(path).close()
    old = path.read_text()
    sink = EnvFileSink(path, overwrite=True)
    sink.show([window("line", TEST), window("bar")])
    with pytest.raises(DefinitionError, match="0 traces"):
        sink.close()
    assert path.read_text() == old


def test_two_windows_of_one_id_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two windows 'line'"):
        env_document([window("line", TEST), window("line", TRAIN)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=50)
@given(document=st.dictionaries(st.text(), JSON))
def test_dump_is_json_in_order(document: dict[str, Any]) -> None:
    text = dump(document)
    assert json.loads(text) == document
    assert text.isascii()
    assert text == dump(dict(reversed(document.items())))


def test_dump_gives_a_line_to_each_array_of_numbers() -> None:
    lines = dump(env_document([window("line", TRAIN, TEST)])).splitlines()
    assert '      "y": [1.0, 0.5, null, 0.25]' in lines
    assert max(map(len, lines)) < 140


def test_dump_refuses_what_json_has_not() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump({"a": [float("nan")]})


def test_sinks_import_no_visdom() -> None:
    code = (
        "import sys, flexrec.replay.sinks.env_file\n"
        "assert not {'visdom', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plane_joins_the_dots_of_one_mark_of_each_run() -> None:
    """NaN is a gap in the path, as it is a dot that is not drawn; runs are not joined."""

    def drawn(*traces: Trace, **opts: str) -> list[dict[str, Any]]:
        document = env_document([window("plane", *traces, **opts)])
        return list(document["jsons"]["plane"]["content"]["data"])

    one = Trace("a fc1", y=[1.0, 2.0], x=[5.0, 6.0], marks=[0.0, 9.0], run="a")
    two = Trace("a fc2", y=[3.0, np.nan], x=[7.0, 8.0], marks=[9.0, 0.0], run="a")
    other = Trace("b fc1", y=[4.0], x=[9.0], marks=[9.0], run="b")
    assert [trace["mode"] for trace in drawn(one, two, other)] == ["markers"] * 3
    paths, *dots = drawn(one, two, other, mode="lines+markers")
    assert [trace["mode"] for trace in dots] == ["markers"] * 3
    assert paths["x"] == [5.0, 8.0, None, 6.0, 7.0, None, 9.0, None]
    assert paths["y"] == [1.0, None, None, 2.0, 3.0, None, 4.0, None]


def test_zeros_on_a_logarithmic_axis_are_marked_below() -> None:
    lines = Trace("a", [0.0, 3.0, 0.0], [0, 1, 2]), Trace("b", [np.nan, 6.0, np.inf], [0, 1, 2])
    dead = Trace("c", [0.0], [1])
    for ytype, expected in (("linear", []), ("log", ["exactly 0"])):
        document = env_document([window("line", *lines, dead, ytype=ytype)])
        data = document["jsons"]["line"]["content"]["data"]
        assert [trace["name"] for trace in data] == ["a", "b", "c", *expected]
    assert (data[-1]["x"], data[-1]["y"]) == ([0.0, 2.0, 1.0], [1.0] * 3)
    assert data[-1]["text"] == ["a", "a", "c"]
    (only,) = env_document([window("line", dead, ytype="log")])["jsons"].values()
    assert only["content"]["data"][-1]["y"] == [1.0]


@pytest.mark.parametrize("marks", [[0.0, 9.0, 250.0], [-1.0, 9.0, 250.0]])
def test_colours_of_a_plane_may_follow_the_logarithm(marks: list[float]) -> None:
    trace = Trace("fc", y=[1.0, 2.0, 3.0], x=[5.0, 6.0, 7.0], marks=marks)
    document = env_document([window("plane", trace, ztype="log", zlabel="epoch")])
    marker = document["jsons"]["plane"]["content"]["data"][0]["marker"]
    assert marker["colorbar"]["title"] == {"text": "epoch"}
    if marks[0] < 0:  # there is no logarithm of these
        assert marker["color"] == marks
        return
    assert marker["color"] == pytest.approx(np.log1p(marks))
    assert marker["colorbar"]["ticktext"] == ["0", "1", "10", "100", "250"]
    assert marker["colorbar"]["tickvals"] == pytest.approx(np.log1p([0, 1, 10, 100, 250]))
