"""Kill runs and damage their files at random, and count how many end exactly as the undisturbed run.

    python scripts/faults.py --kills 200 --damages 50

Every run is a process of its own (forked, so that torch is imported once), ended by SIGKILL at a random moment, then
started again by the same configuration with resume=auto until it is complete.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cl.cli.compose import compose
from cl.files import CHECKPOINT
from cl.results import Results
from cl.run import run

STRATEGIES = ("naive", "joint", "ewc", "si", "lwf", "er", "derpp", "agem", "progressive", "packnet")
COMMON = ("stream=split_digits", "training.epochs=3", "training.batch_size=16", "learner.hidden=[32,32]", "threads=1",
          "checkpoint.steps=20", "tracker=files", "resume=auto", "measures=none")


def start(config: dict[str, Any], path: Path) -> int:
    """Carry out a run in a child process and return its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = int(run(config, path)[0].status not in ("complete", "skipped"))
        finally:
            os._exit(code)
    return pid


def finish(config: dict[str, Any], path: Path) -> bool:
    """Carry out a run to its end; True if it completed."""
    return os.waitpid(start(config, path), 0)[1] == 0


def kill_after(config: dict[str, Any], path: Path, seconds: float) -> bool:
    """Start a run and kill it after some time; True if it was still running."""
    pid = start(config, path)
    time.sleep(seconds)
    if os.waitpid(pid, os.WNOHANG)[0] == pid:
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def damage(path: Path, draw: random.Random) -> None:
    """Truncate a file or change one of its bytes."""
    content = bytearray(path.read_bytes())
    if draw.random() < 0.5:
        content = content[: draw.randrange(len(content))]
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def same(one: Results, two: Results) -> bool:
    """Return True if two runs measured exactly the same."""
    names = ("accuracy", "loss", "train_loss")
    return all(np.array_equal(getattr(one, n), getattr(two, n), equal_nan=True) for n in names)


def trials(count: int, harm: Callable[[dict[str, Any], Path, float], bool], where: Path) -> dict[str, int]:
    """Disturb `count` runs and count how they end."""
    found = {"disturbed": 0, "identical": 0}
    whole: dict[str, tuple[dict[str, Any], Results, float]] = {}
    i = 0
    while found["disturbed"] < count:
        name = STRATEGIES[i % len(STRATEGIES)]
        if name not in whole:
            config = compose([*COMMON, f"strategy={name}"])
            began = time.monotonic()
            assert finish(config, where / name), name
            whole[name] = config, Results.load(where / name), time.monotonic() - began
        config, expected, seconds = whole[name]
        path = where / f"{name}-{i}"
        if harm(config, path, seconds):
            found["disturbed"] += 1
            found["identical"] += finish(config, path) and same(expected, Results.load(path))
        i += 1
    return found


def main() -> None:
    """Run the trials and print what was found, as text and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)

    def killed(config: dict[str, Any], path: Path, seconds: float) -> bool:
        return kill_after(config, path, draw.uniform(0.05, 0.95) * seconds)

    def damaged(config: dict[str, Any], path: Path, seconds: float) -> bool:
        if not kill_after(config, path, draw.uniform(0.3, 0.95) * seconds) or not (path / CHECKPOINT).exists():
            return False
        damage(path / CHECKPOINT, draw)
        return True

    with tempfile.TemporaryDirectory() as folder:
        report = {
            "kills": trials(options.kills, killed, Path(folder) / "kills"),
            "damages": trials(options.damages, damaged, Path(folder) / "damages"),
        }
    for name, found in report.items():
        print(f"{name}: identical results {found['identical']} of {found['disturbed']}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
