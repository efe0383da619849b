"""How long does replaying take, from the file to finished windows, and into visdom?

python benchmarks/replaying.py [--quick]
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import begin, folder, interleaved, ratio, seconds, show

from flexrec.recorder import Recorder, Recording
from flexrec.replay import play, preset
from flexrec.replay.server.server import start_server
from flexrec.replay.sinks.visdom import VisdomSink


def main() -> None:
    """1M scalars and 10k marks; visdom's own replay of 3000 points, and TNT's meters in a loop."""
    quick = begin(__doc__ or "")
    marks, each, points = (500, 50, 300) if quick else (10_000, 50, 3000)
    definitions = preset("loss")
    with folder() as place:
        path = recorded(Path(place) / "run.h5", marks, each)

        def windows() -> Any:
            with Recording(path) as run:
                return play(run, definitions)

        def plain() -> Any:
            with Recording(path) as run:
                return play(run, definitions, plain=True)

        ways = {
            "flexrec, file to windows": lambda: seconds(windows),
            "flexrec, event by event": lambda: seconds(plain),
            "TNT's AverageValueMeter in a loop, from memory": lambda: seconds(tnt(marks, each)),
        }
        with start_server(env_path=Path(place) / "envs") as server:

            def shown() -> None:
                sink = VisdomSink(server="http://127.0.0.1", port=server.port, env="ours")
                sink.show(windows())
                sink.close()

            ways["flexrec, file into visdom"] = lambda: seconds(shown)
            taken, failed = interleaved(ways, 2 if quick else 5)
            rival = replay_log(Path(place) / "visdom.log", server.port, points)
    total = marks * each * 2
    taken[f"visdom's replay_log, {points} points, once"] = rival
    taken[f"visdom's replay_log, {2 * marks:,} points, extrapolated in proportion"] = (
        rival * 2 * marks / points
    )
    ours = taken["flexrec, file to windows"]
    show(
        [[name, f"{each:.3f}", ratio(each, ours)] for name, each in taken.items()]
        + [[name, "failed", why] for name, why in failed.items()],
        f"{total:,} scalars, {marks:,} marks",
        "s",
        "times ours to windows",
    )


def recorded(path: Path, marks: int, each: int) -> Path:
    """Two keys, `each` values of both before every mark."""
    rng = np.random.default_rng(0)
    with Recorder(path, facts=False) as rec:
        for mark in range(marks):
            for value in rng.normal(size=each).tolist():
                rec.add(train_loss=value, test_loss=-value)
                rec.step()
            rec.log(mark)
    return path


def tnt(marks: int, each: int) -> Any:
    """The original's meter, fed value by value."""
    from torchnet.meter import AverageValueMeter

    rows = np.random.default_rng(0).normal(size=(marks, each)).tolist()

    def work() -> None:
        for _ in range(2):
            meter = AverageValueMeter()
            for row in rows:
                for value in row:
                    meter.add(value)
                meter.value()
                meter.reset()

    return work


def replay_log(log: Path, port: int, points: int) -> float:
    """Seconds that visdom takes to replay a log of appended points."""
    import visdom

    client_of: Any = visdom.Visdom
    at = {"server": "http://127.0.0.1", "port": port, "use_incoming_socket": False}
    offline = client_of(**at, offline=True, log_to_filename=str(log), env="rival")
    for i in range(points // 2):
        for name in ("train", "test"):
            offline.line([float(i)], [i], win="loss", name=name, update="append" if i else None)
    client = client_of(**at, env="rival")
    client.line([0.0], [0], win="first")  # an environment must exist before it is replayed into
    start = time.perf_counter()
    client.replay_log(str(log))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
