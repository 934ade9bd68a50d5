"""Carry out many small runs in one process and show that memory, open files and processes do not grow.

    python scripts/soak.py --runs 2000

Prints what the process holds ten times on the way.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from cl.cli.compose import compose
from cl.run import run

SMALL = ("stream=split_digits", "stream.samples_per_task=40", "stream.test_samples=20", "learner.hidden=[16]",
         "threads=1", "tracker=files", "measures=none")
STRATEGIES = ("naive", "ewc", "er", "lwf", "progressive")


def usage() -> dict[str, int]:
    """Return what this process holds: resident memory in KiB, open files, threads, children."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "memory": int(status["VmRSS"].split()[0]),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "children": len(children),
    }


def main() -> None:
    """Run, and print the usage ten times on the way, as text and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.runs):
            strategy = STRATEGIES[i % len(STRATEGIES)]
            outcome = run(compose([*SMALL, f"strategy={strategy}", f"seed={i}", f"output={folder}"]))[0]
            assert outcome.status == "complete", outcome
            shutil.rmtree(outcome.path)
            if (i + 1) % max(1, options.runs // 10) == 0:
                points.append({"runs": i + 1, **usage()})
                print("  ".join(f"{name} {value}" for name, value in points[-1].items()), flush=True)
    print(json.dumps(points))


if __name__ == "__main__":
    main()
