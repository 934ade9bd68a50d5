"""Carry out many small runs in one sweep and show that its processes do not grow.

    python scripts/soak.py --runs 2000

Starts the real command with two jobs side by side and looks at the whole tree of its processes: memory (shared pages
counted once), open files, threads and processes, at each twentieth of the runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STRATEGIES = ("naive", "ewc", "er", "lwf", "progressive")
SMALL = (
    "stream=split_digits",
    "stream.construction.n_tasks=2",
    "stream.samples_per_task=20",
    "stream.test_samples=10",
    "learner.hidden=[8]",
    "training.epochs=1",
    "training.batch_size=20",
    "threads=1",
    "tracker=none",
    "measures=none",
    "hydra/launcher=cores",
    "hydra.launcher.n_jobs=2",
)
ROOT = Path(__file__).parents[1]


def tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    found = [pid]
    for parent in found:
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in listed.read_text().split()]
            except OSError:  # it ended while we looked
                continue
    return found


def usage(pid: int) -> dict[str, float]:
    """Return what a tree of processes holds: MB of memory (of the first process, of all), open files, threads."""
    held = {"processes": 0, "threads": 0, "files": 0, "first": 0.0, "memory": 0.0}
    for one in tree(pid):
        folder = Path(f"/proc/{one}")
        try:
            files, threads = len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))
            text = (folder / "smaps_rollup").read_text()
        except OSError:
            continue
        memory = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
        held["processes"] += 1
        held["threads"] += threads
        held["files"] += files
        held["memory"] += memory
        held["first"] += memory if one == pid else 0.0
    return held


def settled(pid: int) -> dict[str, float]:
    """Return the median of a few looks, so that a job that begins or ends does not count."""
    looks = []
    for _ in range(9):
        looks.append(usage(pid))
        time.sleep(0.2)
    return {name: sorted(look[name] for look in looks)[len(looks) // 2] for name in looks[0]}


def main() -> int:
    """Run, print the usage as text on the way and as JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    seeds = -(-options.runs // len(STRATEGIES))
    points, began = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        words = [*SMALL, f"strategy={','.join(STRATEGIES)}", f"seed=range({seeds})", f"output={folder}", "group=soak"]
        command = [sys.executable, "-m", "cl.cli.main", "train", "-m", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        due = 0.0
        while process.poll() is None:
            done = sum(len(file.read_text().splitlines()) for file in Path(folder).glob(".sweeps/*/jobs.jsonl"))
            if done > due and (held := settled(process.pid))["processes"] > 0:
                points.append({"runs": done, **held})
                print("  ".join(f"{name} {value:.0f}" for name, value in points[-1].items()), flush=True)
                due += options.runs / 20
            time.sleep(0.1)
        states = [json.loads(file.read_text())["status"] for file in Path(folder).glob("soak/*/status.json")]
        if process.returncode != 0:
            print((Path(folder) / "log").read_text()[-2000:], file=sys.stderr)
    complete = states.count("complete")
    print(f"{complete} of {seeds * len(STRATEGIES)} runs complete in {time.monotonic() - began:.0f} s")
    print(json.dumps(points))
    return int(complete < options.runs)


if __name__ == "__main__":
    sys.exit(main())
