"""What visdom is sent: its own client's messages, whole windows, and nothing twice."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flexrec.recorder.errors import DefinitionError, ServerError
from flexrec.replay.plots.pictures import decoded
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.server.server import Server
from flexrec.replay.sinks import visdom
from flexrec.replay.sinks.visdom import VisdomSink, payload
from support.fake_http import answering, scripted
from support.window_cases import INF, NAN, TEST, TRAIN, WINDOWS, window

X = np.array([0.0, 1.0, 2.0])
A, B = np.array([1.0, 0.5, 0.25]), np.array([2.0, 1.0, 3.0])
MATRIX = np.arange(6.0).reshape(2, 3)
TWO = (Trace("a", A, X), Trace("b", B, X))
NAMES = ["a", "b"]


@contextmanager
def opened(**options: Any) -> Iterator[VisdomSink]:
    sink = VisdomSink(**options)
    try:
        yield sink
    finally:
        sink.close()


# The window, and the same plot asked of visdom's client: its method and arguments.
OWN: dict[str, tuple[Window, str, dict[str, Any]]] = {
    "line": (
        window("line", *TWO, xlabel="epoch", title="t"),
        "line",
        {"Y": np.stack([A, B], 1), "X": X, "opts": {"xlabel": "epoch", "legend": NAMES}},
    ),
    "line with markers": (
        window("line", Trace("a", A, X), markers=True, title="t"),
        "line",
        {"Y": A, "X": X, "opts": {"markers": True, "legend": ["a"]}},
    ),
    "scatter": (
        window("scatter", *TWO, title="t"),
        "scatter",
        {
            "X": np.stack([np.tile(X, 2), np.concatenate([A, B])], 1),
            "Y": np.repeat([1, 2], 3),
            "opts": {"legend": NAMES},
        },
    ),
    "stem": (
        window("stem", *TWO, title="t"),
        "stem",
        {"X": np.stack([A, B], 1), "Y": X, "opts": {"legend": NAMES}},
    ),
    "bar": (
        window("bar", Trace("a", A), Trace("b", B), stacked=True, rownames=list("xyz"), title="t"),
        "bar",
        {
            "X": np.stack([A, B], 1),
            "opts": {"legend": NAMES, "stacked": True, "rownames": list("xyz")},
        },
    ),
    "boxplot": (
        window("boxplot", Trace("a", A), Trace("b", B), title="t"),
        "boxplot",
        {"X": np.stack([A, B], 1), "opts": {"legend": NAMES}},
    ),
    "pie": (
        window("pie", Trace("share", A), legend=list("xyz"), title="t"),
        "pie",
        {"X": A, "opts": {"legend": list("xyz")}},
    ),
    "heatmap": (
        window("heatmap", Trace("m", MATRIX), rownames=["r", "s"], columnnames=list("xyz"),
               title="t"),
        "heatmap",
        {"X": MATRIX, "opts": {"rownames": ["r", "s"], "columnnames": list("xyz")}},
    ),
    "contour": (window("contour", Trace("m", MATRIX), title="t"), "contour", {"X": MATRIX}),
    "surf": (
        window("surf", Trace("m", MATRIX), zlabel="z", title="t"),
        "surf",
        {"X": MATRIX, "opts": {"zlabel": "z"}},
    ),
    "image": (
        window("image", Trace("i", MATRIX.reshape(1, 2, 3)), caption="c", title="t"),
        "image",
        {"img": np.tile(MATRIX.astype(np.uint8), (3, 1, 1)), "opts": {"caption": "c"}},
    ),
    "text": (window("text", Trace("t", "plain"), title="t"), "text", {"text": "plain"}),
}  # fmt: skip


OURS = {
    "line": (("layout", "xaxis"),),
    "line with markers": (("layout", "xaxis"),),
    "heatmap": (("layout", "xaxis"), ("layout", "yaxis")),
    "image": (("opts", "width"), ("opts", "height")),
    "scatter": (("layout", "xaxis"),),
    "stem": (("layout", "xaxis"), ("opts", "mode")),
    "boxplot": (("layout", "showlegend"),),
    "surf": (
        ("layout", "margin"),
        ("layout", "scene"),
        *(("opts", f"margin{side}") for side in ("top", "left", "bottom")),
    ),
}
LOOKS = {"stem": ("mode", "marker", "line"), "pie": ("sort",), "surf": ("colorbar",)}
"""What each trace has in another way than visdom's."""


@pytest.mark.parametrize("name", OWN)
def test_the_message_is_the_clients_own(name: str) -> None:
    drawn, method, arguments = OWN[name]
    client = visdom._client()
    opts = {"title": "t", **arguments.pop("opts", {})}
    expected, endpoint = getattr(client, method)(**arguments, opts=opts, win=drawn.win)
    assert endpoint == "events"
    message = payload(drawn)
    for path in (*OURS.get(name, ()), ("layout", "colorway")):  # settled around the client
        for drawn_by in (message, expected):
            drawn_by.get(path[0], {}).pop(path[1], None)
    for trace in (*message["data"], *expected["data"]):
        for field in LOOKS.get(name, ()):
            trace.pop(field, None)
    # 0.3.0 makes NaN null only when it sends.
    assert message == json.loads(json.dumps(expected), parse_constant=lambda _: None)


@pytest.mark.parametrize("drawn", WINDOWS, ids=lambda drawn: drawn.win)
def test_every_message_is_json_and_leaves_the_window_alone(drawn: Window) -> None:
    before = copy.deepcopy(drawn)
    message = payload(drawn)
    assert json.loads(json.dumps(message, allow_nan=False)) == message
    assert (message["win"], message["eid"]) == (drawn.win, "main")
    assert repr(drawn) == repr(before)


def test_names_and_titles_from_a_recording_are_shown_as_they_are() -> None:
    link = '<a href="https://example.org">&amp;</a>'
    shown = '&lt;a href="https://example.org">&amp;amp;&lt;/a>'
    drawn = payload(window("line", Trace(link, A, X), Trace("b > a", B, X), title=link, width=800))
    message = visdom.literal(drawn)
    assert [trace["name"] for trace in message["data"]] == [shown, "b > a"]
    assert message["layout"]["title"] == shown
    assert message["opts"]["title"] == link, "the window's bar is plain text"
    assert drawn["data"][0]["name"] == link
    slices = visdom.literal(payload(window("pie", Trace("p", A), legend=["<b>", "x", "y"])))
    assert slices["data"][0]["labels"] == ["&lt;b>", "x", "y"]
    text = visdom.literal(payload(window("text", Trace("t", link))))
    assert "<a" not in text["data"][0]["content"]


def test_a_long_title_is_broken_into_lines() -> None:
    long = window("line", Trace("a", A, X), title="many words " * 12)
    shown = visdom.literal(payload(long))
    lines = shown["layout"]["title"].split("<br>")
    assert len(lines) > 2
    assert max(map(len, lines)) < 48
    assert shown["layout"]["margin"]["t"] == 60 + 20 * (len(lines) - 1)
    assert (
        visdom.literal(payload(window("line", *long.traces, width=2000, title="many words " * 12)))[
            "layout"
        ]["title"].count("<br>")
        == 0
    )
    formula = "$" + "x + " * 30 + "y$"
    assert (
        "<br>" not in visdom.literal({"data": [], "layout": {"title": formula}})["layout"]["title"]
    )


def test_two_axes_have_the_colours_of_their_lines() -> None:
    message = payload(window("dual_axis_lines", TRAIN, TEST, xlabel="epoch"))
    colours = [line["line"]["color"] for line in message["data"]]
    axes = [message["layout"][axis] for axis in ("yaxis", "yaxis2")]
    assert [axis["titlefont"]["color"] for axis in axes] == colours
    assert [axis["tickfont"]["color"] for axis in axes] == colours
    assert [axis["title"] for axis in axes] == ["train", "test"]
    assert message["layout"]["xaxis"] == {"title": "epoch", "dtick": 1}


def test_stems_at_one_place_are_all_seen() -> None:
    wide, narrow = payload(window("stem", *TWO))["data"]
    assert wide["line"]["width"] > narrow["line"]["width"]
    assert narrow["marker"]["size"] == [0, 6, 0] * 3


def test_slices_stay_in_their_order() -> None:
    assert payload(window("pie", Trace("p", A)))["data"][0]["sort"] is False


def test_numbers_side_by_side_have_no_position() -> None:
    lone, vector = (payload(window("bar", Trace("a", y)))["layout"] for y in (0.5, [0.5]))
    assert lone["xaxis"]["showticklabels"] is False
    assert "showticklabels" not in vector.get("xaxis", {})


def test_bits_are_written_in_few_digits() -> None:
    layout = payload(window("plane", Trace("fc", [0.9999999999999996], [1.0], marks=[0.0])))[
        "layout"
    ]
    assert layout["xaxis"]["tickformat"] == layout["yaxis"]["tickformat"] == ".3~g"


def test_a_batch_is_large_enough_to_recognise() -> None:
    batch = payload(window("images", Trace("i", np.zeros((8, 8, 8)))))
    assert 500 < batch["opts"]["width"] <= 720
    sheet = decoded(batch["data"][0]["content"]["src"])
    assert (sheet[40] == 255).all(axis=-1).mean() < 0.1  # only narrow padding is white


def test_a_constant_line_is_not_shown_between_minus_1_and_1() -> None:
    same, other = (payload(window("line", Trace("a", y)))["layout"] for y in ([5e-2] * 2, [1, 2]))
    assert same["yaxis"]["rangemode"] == "tozero"
    assert "rangemode" not in other.get("yaxis", {})


def test_a_window_may_be_read_only_and_of_another_environment() -> None:
    from types import MappingProxyType

    opts = MappingProxyType({"width": np.int16(7), "title": np.str_("t")})
    message = payload(Window("w", "elsewhere", "line", (TRAIN,), opts))
    assert (message["eid"], message["opts"]["width"], message["opts"]["title"]) == (
        "elsewhere", 7, "t",
    )  # fmt: skip


def test_traces_differ_in_length_and_gaps_are_null() -> None:
    first, second = payload(window("line", TRAIN, TEST))["data"]
    assert (first["name"], first["x"], first["y"]) == (
        "train", [0, 1, 2, 3], [1, 0.5, None, 0.25],
    )  # fmt: skip
    assert (second["name"], second["x"], second["y"]) == ("test", [1, 3], [2, None])


def test_a_line_without_x_counts() -> None:
    assert payload(window("line", Trace("a", [5.0, 6.0])))["data"][0]["x"] == [0, 1]


@pytest.mark.parametrize(
    ("y", "marked"),
    [
        ([1.0], True),
        ([1.0, NAN, 2.0, 3.0], True),
        ([1.0, 2.0, INF, 3.0, NAN, 4.0, 5.0], True),
        ([1.0, 2.0, NAN, 3.0], True),
        ([1.0, 2.0, NAN, 3.0, 4.0], False),
        ([NAN, NAN], False),
        ([], False),
    ],
)
def test_a_point_that_no_line_reaches_is_marked(y: list[float], marked: bool) -> None:
    trace, other = Trace("a", y), Trace("b", [1.0, 2.0])
    drawn, unchanged = payload(window("line", trace, other))["data"]
    assert drawn["mode"] == ("lines+markers" if marked else "lines")
    assert drawn["marker"]["size"] == (6 if marked else 10)
    assert unchanged == payload(window("line", other))["data"][0]
    assert unchanged["mode"] == "lines"
    sized = payload(window("line", trace, markersize=3))["data"][0]
    assert (sized["mode"], sized["marker"]["size"]) == (drawn["mode"], 3)
    for markers, mode in ((True, "lines+markers"), (False, "lines")):
        asked = payload(window("line", trace, markers=markers))["data"][0]
        assert (asked["mode"], asked["marker"]["size"]) == (mode, 10)


def test_bars_of_unequal_length_stay_apart() -> None:
    message = payload(window("bar", Trace("a", [1.0, 2.0]), Trace("b", 3.0)))
    assert [(d["name"], d["x"], d["y"]) for d in message["data"]] == [
        ("a", [1, 2], [1, 2]),
        ("b", [1], [3]),
    ]


def test_a_histogram_counts() -> None:
    traces = Trace("a", [0.0, 0.1, 4.0, NAN]), Trace("b", np.array([[2.0], [3.9]]))
    message = payload(window("histogram", *traces, numbins=2))
    assert [(d["name"], d["x"], d["y"]) for d in message["data"]] == [
        ("a", [1.0, 3.0], [2, 1]),
        ("b", [1.0, 3.0], [0, 2]),
    ]


def test_a_matrix_stands_at_its_traces_x() -> None:
    message = payload(window("heatmap", Trace("m", MATRIX, x=[10, 20, 30])))
    assert message["data"][0]["x"] == [10, 20, 30]
    named = window("heatmap", Trace("m", MATRIX, x=[1, 2, 3]), columnnames=list("abc"))
    assert payload(named)["data"][0]["x"] == ["a", "b", "c"]
    assert payload(window("surf", Trace("m", MATRIX, x=[1, 2, 4])))["data"][0]["x"] == [1, 2, 4]


def test_half_a_dual_axis_plot_is_drawn_while_the_other_half_is_silent() -> None:
    message = payload(window("dual_axis_lines", TEST))
    assert [(d["name"], d["x"], d["y"]) for d in message["data"]] == [("test", [1, 3], [2, None])]


def test_text_is_shown_and_not_obeyed() -> None:
    message = payload(window("text", Trace("t", '<script>x</script> & "y"\nnext\r\nlast')))
    assert message["data"][0]["content"] == (
        "&lt;script&gt;x&lt;/script&gt; &amp; &quot;y&quot;<br>next<br>last"
    )


def test_pictures_arrive_as_they_were_given() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    for given in (picture, picture / 255, (picture / 255).astype(np.float32), picture * 1.0):
        content = payload(window("image", Trace("i", given)))["data"][0]["content"]
        np.testing.assert_array_equal(decoded(content["src"]), picture.transpose(1, 2, 0))


REFUSED: dict[str, tuple[Window, str]] = {
    "no traces": (window("line"), "holds 0 traces"),
    "two matrices": (window("heatmap", Trace("a", MATRIX), Trace("b", MATRIX)), "draws 1 to 1"),
    "three axes": (window("dual_axis_lines", *TWO, TEST), "holds 3 traces"),
    "a wrong type": (window("lin", *TWO), "did you mean 'line'"),
    "a wrong opt": (window("line", *TWO, titel="t"), "did you mean 'title'"),
    "a text in a line": (window("line", Trace("a", "text")), "a text cannot be drawn"),
    "a vector in a heatmap": (window("heatmap", Trace("a", A)), "a vector cannot be drawn"),
    "a lone row as a surface": (window("surf", Trace("a", MATRIX[:1])), "at least 2 by 2"),
    "a legend too short": (window("line", *TWO, legend=["a"]), "list of 2 names"),
    "a legend that is a word": (window("bar", Trace("a", A), legend="a"), "list of 1 names"),
    "slices without names": (window("pie", Trace("a", A), legend=["a"]), "list of 3 names"),
    "a negative slice": (window("pie", Trace("a", -A)), "negative"),
    "rows without names": (window("bar", Trace("a", A), rownames=["a"]), "rownames"),
    "columns without names": (window("heatmap", Trace("a", MATRIX), columnnames=["a"]), "column"),
    "columns without places": (window("heatmap", Trace("a", MATRIX, x=[1])), "positions"),
    "x of another length": (window("line", Trace("a", A, X[:2])), "positions"),
    "an odd picture": (window("image", Trace("a", np.zeros((5, 4, 3)))), "channels"),
    "odd pictures": (window("images", Trace("a", np.zeros((2, 5, 4, 3)))), "channels"),
    "no pictures": (window("images", Trace("a", np.zeros((0, 4, 3)))), "images are"),
    "a row of none": (window("images", Trace("a", np.zeros((2, 4, 3))), nrow=0), "nrow"),
    "a colour too many": (window("line", *TWO, linecolor=[[0, 0, 0]] * 3), "line"),
    "an opt that is no JSON": (window("line", *TWO, layoutopts={"a": object()}), "JSON has no"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_told(name: str) -> None:
    drawn, message = REFUSED[name]
    with pytest.raises(DefinitionError, match=message):
        payload(drawn)


def test_visdom_is_imported_late_alone_and_without_torch(tmp_path: Path) -> None:
    for heavy in ("torch", "openTSNE"):
        (tmp_path / f"{heavy}.py").write_text("raise RuntimeError('should not be imported')")
    code = (
        "import sys, flexrec.replay.sinks.visdom as vs, flexrec.replay.plots.window as w\n"
        "assert not any(name.split('.')[0] == 'visdom' for name in sys.modules)\n"
        "vs.payload(w.Window('w', None, 'line', (w.Trace('a', [1.0]),)))\n"
        "assert not {'torch', 'openTSNE', 'visdom'} & set(sys.modules)\n"
        "import visdom\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
    # Only the user's own import at the end, which is a fresh one, looks for torch.
    assert done.stderr.splitlines()[-1] == "RuntimeError: should not be imported"
    assert "line 5, in <module>" in done.stderr


def drawn_points(found: Mapping[str, Any], win: str) -> list[int]:
    return [len(trace["x"]) for trace in found[win]["content"]["data"]]


def test_windows_reach_the_server_whole(visdom_server: Server) -> None:
    long = Trace("long", np.arange(5000.0), np.arange(5000.0))
    with opened(server=visdom_server.url, env="sink whole/ünï", max_points=100) as sink:
        assert sink.windows() == {}
        sink.show([window("line", long, TEST), window("text", Trace("t", "a\nb"))])
        found = sink.windows()
        assert list(found) == ["line", "text"]
        assert drawn_points(found, "line") == [100, 2]
        assert found["text"]["content"] == "a<br>b"
        assert "sink whole_ünï" in sink.environments()
    with opened(server=visdom_server.url, env="sink whole/ünï", max_points=0) as sink:
        sink.show([window("line", long, TEST)])
        assert drawn_points(sink.windows(), "line") == [5000, 2]


def test_showing_again_changes_nothing_but_what_changed(visdom_server: Server) -> None:
    with opened(server=visdom_server.url, env="sink-again") as sink:
        sink.show(WINDOWS)
        first = sink.windows()
        sink.show(WINDOWS)
        second = sink.windows()
        for found in (first, second):
            for kept in found.values():
                del kept["contentID"]
                kept.pop("version", None)  # 0.3.0: the sink's clock, by which its page redraws
        assert first == second
        assert len(first) == len(WINDOWS)
        sink.show([window("line", TEST)])
        assert drawn_points(sink.windows(), "line") == [2]


def test_environments_are_kept_apart_and_saved(visdom_server: Server) -> None:
    with opened(server=visdom_server.url, env="sink-own") as sink:
        sink.show([window("line", TEST), Window("w", "sink-other", "line", (TEST,))])
        assert list(sink.windows()) == ["line"]
        assert list(sink.windows("sink-other")) == ["w"]
        sink.save()
        sink.save("sink-other")
        with pytest.raises(ServerError, match="no environment 'sink-none'"):
            sink.save("sink-none")
    saved = json.loads((visdom_server.env_path / "sink-own.json").read_text())
    assert list(saved["jsons"]) == ["line"]
    assert (visdom_server.env_path / "sink-other.json").exists()


def test_an_undrawable_window_is_told_and_the_rest_stays(visdom_server: Server) -> None:
    with opened(server=visdom_server.url, env="sink-bad") as sink:
        with pytest.raises(DefinitionError, match="0 traces"):
            sink.show([window("line", TEST), window("bar")])
        assert list(sink.windows()) == ["line"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the sink would have slept; other threads sleep as they do."""
    slept: list[float] = []
    its_time = SimpleNamespace(sleep=slept.append, time_ns=time.time_ns)
    monkeypatch.setattr("flexrec.replay.sinks.visdom.time", its_time)
    return slept


THREE = [window("line", TEST, win=name) for name in ("a", "b", "c")]


def test_a_passing_failure_is_tried_again(waits: list[float]) -> None:
    script = ((0, ""), (503, ""), None, (500, ""))
    with scripted(*script) as (port, sent), opened(server="127.0.0.1", port=port) as sink:
        sink.show(THREE)
    assert [message["win"] for message in sent] == ["a", "b", "b", "b", "b", "c"]
    assert waits == [0.25, 0.5, 1.0]


def test_a_lasting_failure_names_what_was_sent(waits: list[float]) -> None:
    with (
        scripted((0, ""), (0, ""), *[(502, "")] * 9) as (port, sent),
        opened(server="127.0.0.1", port=port, retries=2) as sink,
        pytest.raises(ServerError, match=r"502.*'c' was not drawn.*2 of 3: 'a', 'b'\)"),
    ):
        sink.show(THREE)
    assert [message["win"] for message in sent] == ["a", "b", "c", "c", "c"]
    assert waits == [0.25, 0.5]


@pytest.mark.parametrize("answer", [(200, "False"), (404, ""), (200, "")])
def test_an_answer_that_is_not_visdoms_is_not_taken(
    answer: tuple[int, str], waits: list[float]
) -> None:
    with (
        scripted(answer) as (port, sent),
        opened(server="127.0.0.1", port=port) as sink,
        pytest.raises(ServerError, match=r"'a' was not drawn .* 0 of 3: none"),
    ):
        sink.show(THREE)
    assert len(sent) == 1
    assert waits == []


def test_nothing_is_sent_to_what_is_not_visdom(waits: list[float]) -> None:
    asked = []

    def answer(path: str, message: dict[str, Any]) -> tuple[int, str]:
        asked.append(path)
        return 200, "hello"

    with (
        answering(answer) as port,
        opened(server="127.0.0.1", port=port) as sink,
        pytest.raises(ServerError, match="not visdom"),
    ):
        sink.show(THREE)
    assert asked == ["/win_exists"]
    assert waits == []


def test_infinite_opts_are_dropped() -> None:
    message = payload(window("heatmap", Trace("m", MATRIX), xmin=-INF, xmax=NAN))
    assert (message["data"][0]["zmin"], message["data"][0]["zmax"]) == (None, None)


def test_a_matrix_is_read_from_the_top() -> None:
    drawn = window("heatmap", Trace("m", MATRIX))
    assert payload(drawn)["layout"]["yaxis"] == {"autorange": "reversed", "dtick": 1}
    upwards = window("heatmap", Trace("m", MATRIX, x=np.arange(3.0)))
    assert "yaxis" not in payload(upwards)["layout"]
    limited = window("heatmap", Trace("m", MATRIX), ytickmin=0, ytickmax=5, ytickstep=2)
    assert "autorange" not in payload(limited)["layout"]["yaxis"]


@pytest.mark.parametrize(
    ("shape", "opts", "size"),
    [
        ((28, 28), {}, (252, 262)),
        ((8, 64), {}, (256, 42)),
        ((600, 900), {}, (900, 610)),
        ((20, 40), {"width": 400}, (400, 210)),
        ((20, 40), {"height": 210}, (400, 210)),
        ((20, 40), {"width": 100, "height": 90}, (100, 90)),
        ((200, 2), {}, (120, 210)),
        ((28, 28), {"caption": "c"}, (252, 274)),
    ],
)
def test_a_picture_keeps_its_proportions(
    shape: tuple[int, int], opts: dict[str, Any], size: tuple[int, int]
) -> None:
    made = payload(window("image", Trace("i", np.zeros(shape)), **opts))["opts"]
    assert (made["width"], made["height"]) == size


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("costs 5$ or 6$ a day", "costs 5&#36; or 6&#36; a day"),
        ("$5 and $6", "&#36;5 and &#36;6"),
        ("loss in $", "loss in &#36;"),
        (r"$\alpha$ in US$", r"&#36;\alpha&#36; in US&#36;"),
        (r"50% of $x_1$ or $$y$$", r"$\text{50% of }x_1\text{ or }y$"),
        ("$x$ $y$", r"$x\text{ }y$"),
        (r"$\mathbb{E}[x] \geq 1$", r"$\mathbb{E}[x] \geq 1$"),
        ("$$x$$", "$$x$$"),
    ],
)
def test_a_dollar_that_is_no_formula_is_shown(text: str, shown: str) -> None:
    drawn = window("line", Trace(text, A, X), title=text, xlabel=text)
    message = visdom.literal(payload(drawn))
    assert message["data"][0]["name"] == shown
    assert message["layout"]["title"] == shown
    assert message["layout"]["xaxis"]["title"] == shown


@pytest.mark.parametrize("char", "\"#&'+<>?\\")
def test_an_environment_that_the_page_cannot_show_is_warned_of(char: str) -> None:
    with (
        pytest.warns(RuntimeWarning, match=f"cannot show .* which has {re.escape(char)} in it"),
        opened(env=f"a{char}b"),
    ):
        pass
