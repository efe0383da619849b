"""Where points lie along the x axis: at the x of their marks, at their steps or at their times."""

from flexrec.recorder.events import Log

LABELS = {"step": "step", "time": "time (UTC)", "relative": "seconds since the start"}
"""The labels of the axes; with `mark` the axis has the name that the log gave."""


def position(log: Log, x: str, start: float) -> tuple[float, str | None]:
    """The position of a log's points, and the name of the axis; None if it has none.

        >>> position(Log(3.0, None, True, 50, 1e9 + 5, "epoch"), "relative", 1e9)
        (5.0, 'seconds since the start')

    Args:
        log: the mark.
        x: `mark`, `step`, `time` or `relative`; a mark whose x is called step keeps it as step.
        start: the time of the run's first event.
    """
    if x == "mark" or (x == "step" and log.axis_name == "step"):
        return log.x, log.axis_name
    if x == "step":
        return float(log.step), LABELS[x]
    return log.time - (start if x == "relative" else 0.0), LABELS[x]
