"""SIGKILL one second after the last add: how much of each recorder's data can be read back.

The other recorders are installed into a virtual environment of their own, made for the purpose.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROWS = 5003  # no multiple of anybody's buffer

WRITE = """
import os, signal, sys, time
kind, folder, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "flexrec":
    from flexrec.recorder import Recorder
    rec = Recorder(folder + "/run.h5", facts=False)
    def add(i): rec.add(loss=float(i)); rec.step()
elif kind == "TensorBoard":
    from torch.utils.tensorboard import SummaryWriter
    writer = SummaryWriter(folder)
    def add(i): writer.add_scalar("loss", float(i), i)
elif kind == "wandb offline":
    import wandb
    wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    def add(i): wandb.log({"loss": float(i)})
else:
    import csv
    out = csv.writer(open(folder + "/run.csv", "w"))
    def add(i): out.writerow([i, float(i)])
for i in range(rows):
    add(i)
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""

READ = """
import sys
from pathlib import Path
kind, folder = sys.argv[1], Path(sys.argv[2])
if kind == "flexrec":
    from flexrec.recorder import Recording
    print(len(Recording(folder / "run.h5")["loss"]))
elif kind == "TensorBoard":
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}); found.Reload()
    print(len(found.Scalars("loss")) if "loss" in found.Tags()["scalars"] else 0)
elif kind == "wandb offline":
    from wandb.proto.wandb_internal_pb2 import Record
    rows = 0
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        # LevelDB's log: blocks of 32 KiB, in them records of checksum, length, type, data.
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole = (b"" if kind in (1, 2) else whole) + data[at + 7 : at + 7 + size]
            if at + 7 + size > len(data) or not kind:
                break
            if kind in (1, 4):
                record = Record()
                record.ParseFromString(whole)
                rows += record.WhichOneof("record_type") == "history"
            at += 7 + size
    print(rows)
else:
    lines = (folder / "run.csv").read_text().splitlines(keepends=True)
    print(sum(line.endswith("\\n") for line in lines))
"""


def main(runs: int) -> bool:
    """Kill each recorder so often, and print what survived."""
    with tempfile.TemporaryDirectory() as folder:
        python = _environment(Path(folder))
        whole = True
        for kind in ("flexrec", "TensorBoard", "wandb offline", "csv"):
            found = [_survivors(python, kind, Path(folder) / f"{kind[:3]}{i}") for i in range(runs)]
            rows = [f for f in found if f is not None]
            if not rows:
                print(f"{kind}: cannot be run here")
                continue
            kept = [row for row in rows if row == ROWS]
            print(
                f"{kind}: of {ROWS} rows {min(rows)} to {max(rows)} survive; "
                f"all of them in {len(kept)} of {len(rows)} runs",
                flush=True,
            )
            whole = whole and (kind != "flexrec" or len(kept) == runs)
    return whole


def _environment(folder: Path) -> str:
    """An interpreter that has the others, and, from ours, flexrec and torch."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv" / "bin" / "python")
    asked = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*asked, "tensorboard", "wandb"], check=False, capture_output=True)
    answer = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(answer, check=True, capture_output=True, text=True).stdout.strip())
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


def _survivors(python: str, kind: str, folder: Path) -> int | None:
    folder.mkdir()
    subprocess.run(
        [python, "-c", WRITE, kind, str(folder), str(ROWS)], check=False, capture_output=True
    )
    read = [python, "-c", READ, kind, str(folder)]
    done = subprocess.run(read, check=False, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else None
