"""Kill runs and damage their files at random, and count how many end exactly as the undisturbed run.

    python scripts/faults.py --kills 200 --damages 50
    python scripts/faults.py --every                      every strategy, killed once alone and once as four replicas

A run is ended by SIGKILL once it has told of a random share of its progress, or a checkpoint or a result file of it is
truncated or changed by one bit; then the same configuration is started again with resume=auto. Equal are all numbers of
the results and every tensor of the last checkpoint. Most runs are forked from this process, which has imported what
they need and computes nothing; every tenth round of the strategies is the real command, two of ten are four replicas.
"""

import argparse
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl import checkpoint
from cl.cli.compose import compose
from cl.cli.compose import options as choices
from cl.files import CHECKPOINT, CHECKPOINT_BEFORE
from cl.folder import read_status
from cl.results import Results
from cl.run import run
from cl.trackers.files import PROGRESS

STRATEGIES = ("naive", "joint", "ewc", "si", "lwf", "er", "derpp", "agem", "progressive", "packnet")
COMMON = (
    "stream=split_digits",
    "training.epochs=3",
    "training.batch_size=16",
    "learner.hidden=[32,32]",
    "threads=1",
    "checkpoint.steps=20",
    "tracker=files",
    "resume=auto",
    "measures=none",
)
DAMAGED = ((CHECKPOINT,), (CHECKPOINT, CHECKPOINT_BEFORE), ("results.npz",), ("results.json",), ("status.json",))
ROOT = Path(__file__).parents[1]
MANNERS = ("real command", "4 replicas", "4 replicas", *7 * ("forked",))  # of ten rounds of the strategies


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its words, its configuration, where it lies, and how much it tells of its progress."""

    words: tuple[str, ...]
    config: dict[str, Any]
    at: Path
    told: int


def fork(whole: Whole, at: Path) -> int:
    """Carry out a run in a child process and return its id; what it says on standard error is kept beside `at`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(f"{at}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            code = int(any(o.status not in ("complete", "skipped") for o in run({**whole.config, "output": str(at)})))
        finally:
            os._exit(code)
    return pid


def command(whole: Whole, at: Path) -> int:
    """Start a run as a user does and return its process id."""
    with Path(f"{at}.log").open("a") as log:
        words = [sys.executable, "-m", "cl.cli.main", "train", *whole.words, f"output={at}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log, env=environment).pid


def folders(at: Path) -> list[Path]:
    """Return the run folders of all replicas, in order of their seeds."""
    return sorted(path.parent for path in at.glob("*/*/status.json"))


def told(at: Path) -> int:
    """Return how many bytes the first replica has told of its progress."""
    return max((path.stat().st_size for path in at.glob(f"*/*/{PROGRESS}")), default=0)


def kill(whole: Whole, at: Path, start: Callable[[Whole, Path], int], draw: random.Random) -> float | None:
    """Kill a run at a random place; returns the share that was done, or None if it had ended by itself."""
    share, delay = draw.random(), 0.02 * draw.random()
    pid = start(whole, at)
    while told(at) <= share * whole.told:
        time.sleep(0.002)
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return None
    time.sleep(delay)
    if os.waitpid(pid, os.WNOHANG)[0] == pid:
        return None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return told(at) / whole.told


def damage(path: Path, draw: random.Random) -> None:
    """Truncate a file or change one of its bits."""
    content = bytearray(path.read_bytes())
    if draw.random() < 0.5:
        content = content[: draw.randrange(len(content))]
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def equal(one: Path, two: Path) -> bool:
    """Return True if two runs measured the same and ended in the same state."""
    a, b = Results.load(one), Results.load(two)
    arrays = [n for n, v in vars(a).items() if isinstance(v, np.ndarray)]
    if not all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in arrays):
        return False
    states = [checkpoint.read(folder / CHECKPOINT)["strategy"] for folder in (one, two)]
    return states[0].keys() == states[1].keys() and all(t.equal(states[1][n]) for n, t in states[0].items())


def ends_equal(whole: Whole, at: Path, start: Callable[[Whole, Path], int]) -> bool:
    """Start a disturbed run again and compare it with the undisturbed one."""
    if os.waitpid(start(whole, at), 0)[1] != 0:
        return False
    pairs = list(zip(folders(whole.at), folders(at), strict=True))
    return all(equal(one, two) for one, two in pairs)


def scenario(strategy: str) -> str:
    """Return the first scenario that a strategy supports."""
    target = compose([f"strategy={strategy}"])["strategy"]["_target_"]
    found: str = pkgutil.resolve_name(target).scenarios[0]
    return found


class Trials:
    """Disturbs runs below a folder and counts how they end.

    Args:
        where: folder for the runs.
        draw: random numbers.
        strategies: whose runs.

    Attributes:
        found: (manner, strategy, share done when it was disturbed, whether it ended equal), in order.
    """

    def __init__(self, where: Path, draw: random.Random, strategies: Sequence[str] = STRATEGIES) -> None:
        self.where, self.draw, self.strategies = where, draw, strategies
        self.wholes: dict[tuple[str, int], Whole] = {}
        self.found: list[tuple[str, str, float, bool]] = []

    def whole(self, strategy: str, replicas: int) -> Whole:
        """Return the undisturbed run of a strategy."""
        key = (strategy, replicas)
        if key not in self.wholes:
            at = self.where / f"{strategy}-whole-{replicas}"
            words = (*COMMON, f"strategy={strategy}", f"stream.scenario={scenario(strategy)}", f"replicas={replicas}")
            new = Whole(words, compose(words), at, 0)
            if os.waitpid(fork(new, at), 0)[1] != 0:
                raise RuntimeError(Path(f"{at}.log").read_text())
            self.wholes[key] = Whole(words, new.config, at, told(at))
        return self.wholes[key]

    def kills(self, count: int, manners: Sequence[str] = MANNERS) -> None:
        """Kill `count` runs, a round of the strategies after another, each round in its manner."""
        for i in range(count):
            strategy = self.strategies[i % len(self.strategies)]
            manner = manners[i // len(self.strategies) % len(manners)]
            start = command if manner == "real command" else fork
            whole = self.whole(strategy, 4 if manner == "4 replicas" else 1)
            at, share = self.where / f"kill-{i}", None
            while share is None:  # it ended before it was killed
                shutil.rmtree(at, ignore_errors=True)
                share = kill(whole, at, start, self.draw)
            self._note(f"SIGKILL, {manner}", strategy, share, whole, at, start)

    def damages(self, count: int) -> None:
        """Damage files of `count` runs: checkpoints of a killed one, results and state of a complete one."""
        for i, names in zip(range(count), self._turns(), strict=False):
            strategy = self.strategies[i // len(DAMAGED) % len(self.strategies)]
            whole, at = self.whole(strategy, 1), self.where / f"damage-{i}"
            share: float | None = None
            if CHECKPOINT in names:
                while share is None or not all((folder / n).exists() for n in names for folder in folders(at)):
                    shutil.rmtree(at, ignore_errors=True)
                    share = kill(whole, at, fork, self.draw)
                    if any(read_status(folder).get("status") == "complete" for folder in folders(at)):
                        share = None  # a complete run does not read its checkpoint
            else:
                share = 1.0
                shutil.copytree(whole.at, at)
            for name in names:
                damage(folders(at)[0] / name, self.draw)
            self._note(f"damaged {' and '.join(names)}", strategy, share, whole, at, fork)

    @staticmethod
    def _turns() -> Iterator[tuple[str, ...]]:
        while True:
            yield from DAMAGED

    def _note(
        self, manner: str, strategy: str, share: float, whole: Whole, at: Path, start: Callable[[Whole, Path], int]
    ) -> None:
        good = ends_equal(whole, at, start)
        self.found.append((manner, strategy, share, good))
        if good:
            shutil.rmtree(at)
        else:
            print(f"not equal: {manner}, {strategy}, at {share:.2f}\n{Path(f'{at}.log').read_text()}", flush=True)
        if len(self.found) % 25 == 0:
            print(f"{len(self.found)} done, {sum(f[3] for f in self.found)} identical", file=sys.stderr, flush=True)

    def table(self) -> list[dict[str, Any]]:
        """Return one row a manner: trials, identical ends, and the least and largest share done when disturbed."""
        rows = []
        for manner in dict.fromkeys(f[0] for f in self.found):
            own = [f for f in self.found if f[0] == manner]
            shares = [f[2] for f in own]
            rows.append(
                {
                    "manner": manner,
                    "trials": len(own),
                    "identical": sum(f[3] for f in own),
                    "strategies": len({f[1] for f in own}),
                    "from": min(shares),
                    "to": max(shares),
                }
            )
        return rows


def warm(where: Path) -> None:
    """Import here what a run imports, so that its processes need not."""
    names = where / "modules.json"
    pid = os.fork()
    if pid == 0:
        try:
            run(compose([*COMMON, f"output={where / 'warm'}"]))
            names.write_text(json.dumps(sorted(sys.modules)))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    for name in json.loads(names.read_text()):
        if name.split(".")[0] in ("torch", "torchvision", "sklearn", "pandas", "cl", "strategies"):
            importlib.import_module(name)


def main() -> None:
    """Run the trials and print what was found, as a table and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=50)
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        warm(Path(folder))
        if options.every:
            names = choices("strategy")
            trials = Trials(Path(folder), random.Random(options.seed), names)
            trials.kills(2 * len(names), ("forked", "4 replicas"))
        else:
            trials = Trials(Path(folder), random.Random(options.seed))
            trials.kills(options.kills)
            trials.damages(options.damages)
    rows = trials.table()
    for row in rows:
        part = f"{row['strategies']} strategies, at {100 * row['from']:.0f} to {100 * row['to']:.0f} % of the run"
        print(f"{row['manner']}: identical {row['identical']} of {row['trials']} ({part})")
    print(f"together: identical {sum(r['identical'] for r in rows)} of {sum(r['trials'] for r in rows)}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
