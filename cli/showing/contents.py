"""`flexrec show`: a recording's contents as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from flexrec.recorder.errors import counted, one_line
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.resumes import audited_in_a_line
from flexrec.replay.export.keys import chosen_keys
from flexrec.replay.export.summary import naming_the_damaged, summaries, summary_rows, summary_table
from flexrec.replay.runs.text_table import text_table

_ROWS = 1000  # keys that are listed, unless patterns choose them
_Statistics: TypeAlias = dict[str, dict[str, dict[str, float]]]


def recording_text(path: Path, patterns: Sequence[str] = ()) -> str:
    """The facts of the run, and a row for each key, or for each that a pattern matches.

    Without patterns, of more than a thousand keys those with the fewest slashes are listed.

    Raises:
        RecordingError: a key's values are damaged: names the key.
        UnknownKeyError: a name or pattern matches no key.
    """
    with Recording(path) as run:
        chosen = chosen_keys(run, patterns)
        lines = [f"{path}: {run.state}"]
        repeated = audited_in_a_line(run)
        if repeated:
            lines.append(repeated)
        facts = run.facts or {}
        for name in ("started", "host", "git_commit", "argv"):
            if facts.get(name):
                value = facts[name]
                text = " ".join(map(str, value)) if isinstance(value, list) else value
                lines.append(one_line(f"{name}: {text}"))
        if run.config is not None:
            lines.append(one_line(f"config: {run.config}"))
        logs = int(run.marks.is_log.sum())
        keys, events = counted(len(run), "key"), counted(run.event_count, "event")
        lines.append(f"{keys}, {events}, {counted(logs, 'log')}")
        listed = chosen if patterns else _first(chosen)
        rows = naming_the_damaged(lambda keys: summary_rows(run, keys), listed)
    headers = ("key", "kind", "values", "steps", "last", "min", "max", "mean", "bytes")
    rows = [[one_line(cell) for cell in row] for row in rows]
    lines.append(text_table(headers, rows))
    if len(listed) < len(chosen):
        more = counted(len(chosen) - len(listed), "more key")
        lines.append(f"and {more}: -k PATTERN chooses keys, -k '*' shows all")
    return "\n".join(lines)


def _first(keys: Sequence[str]) -> Sequence[str]:
    """The keys that are listed of all, in their order."""
    some = set(sorted(keys, key=lambda key: key.count("/"))[:_ROWS])
    return [key for key in keys if key in some]


def recording_data(path: Path, patterns: Sequence[str] = ()) -> dict[str, Any]:
    """The content of `recording_text` as plain data; docs/json.md describes it.

    Raises:
        RecordingError, UnknownKeyError: as `recording_text`.
    """
    with Recording(path) as run:
        chosen = chosen_keys(run, patterns)
        return {
            "path": str(path),
            "state": run.state,
            "complete": run.complete,
            "facts": run.facts,
            "config": run.config,
            "events": run.event_count,
            "logs": int(run.marks.is_log.sum()),
            "dropped": run.dropped,
            "superseded": run.superseded,
            "keys": naming_the_damaged(lambda keys: summary_table(run, keys), chosen),
        }


def model_data(path: Path, patterns: Sequence[str] = ()) -> dict[str, Any]:
    """The content of `model_text` as plain data; docs/json.md describes it."""
    models, statistics = _model(path, patterns)
    return {"path": str(path), "models": models, "statistics": statistics}


def model_text(path: Path, patterns: Sequence[str] = ()) -> str:
    """A table of the layers and their last recorded statistics, with two lines of headings.

    Raises:
        RecordingError, UnknownKeyError: as `recording_text`.
    """
    from flexrec.recorder.layers.table import layer_table, model_table

    models, statistics = _model(path, patterns)
    if not statistics and not any(models.values()):
        return f"{path} has no layer statistics: record them with Recorder.watch(model)"
    printable = {
        one_line(layer): {one_line(source): found for source, found in sources.items()}
        for layer, sources in statistics.items()
    }
    tables = [model_table(models)] if any(models.values()) else []
    return "\n\n".join([*tables, *([str(layer_table(printable))] if printable else [])])


def patch_text(path: Path) -> str:
    """The uncommitted changes when the run began and when it was resumed, as git shows it.

    The lines between the patches begin with a `#`; git ignores them.
    """
    with Recording(path) as run:
        facts = run.facts or {}
    resumed = facts.get("resumed")
    parts = [_patch_of("when it began", facts)]
    for number, each in enumerate(resumed if isinstance(resumed, list) else (), 1):
        parts.append(_patch_of(f"at resume {number}", each if isinstance(each, dict) else {}))
    return "\n".join(parts)


def _patch_of(when: str, facts: dict[str, Any]) -> str:
    patch = facts.get("git_patch")
    head = one_line(f"# {when}, commit {facts.get('git_commit') or 'unknown'}")
    if not isinstance(patch, dict):
        return f"{head}: nothing uncommitted was recorded"
    if "missing" in patch:
        return one_line(f"{head}: {patch['missing']}")
    text = patch.get("text")
    if not isinstance(text, str):
        return f"{head}: the same as before"
    names = patch.get("untracked")
    listed = names if isinstance(names, list) else ()
    untracked = [one_line(f"# not tracked: {name}") for name in listed]
    if patch.get("untracked_left_out") != 0:
        untracked.append("# and more that is not tracked")
    cut = ["# cut here: the rest was not recorded"] if patch.get("cut") else []
    binary = sum(line.startswith("Binary files ") for line in text.splitlines())
    if binary:
        files = counted(binary, "binary file")
        cut.append(f"# without {files}: git apply needs --exclude=NAME for each")
    return "\n".join([head, *([text.removesuffix("\n")] if text else []), *cut, *untracked])


def _model(path: Path, patterns: Sequence[str]) -> tuple[dict[str, Any], _Statistics]:
    """What each layer is, by model and layer; and its last statistics, by layer and source."""
    with Recording(path) as run:
        models = run.models
        chosen = chosen_keys(run, patterns)
        keys = [key for key in chosen if key.count("/") >= 2 and run.is_number(key)]
        found = naming_the_damaged(lambda keys: summaries(run, keys), keys)
        latest = {key: each.last for key, each in found.items() if each.count}
    statistics: _Statistics = {}
    for key, last in latest.items():
        rest, _, stat = key.rpartition("/")
        layer, _, source = rest.rpartition("/")
        statistics.setdefault(layer, {}).setdefault(source, {})[stat] = last
    return models, statistics
