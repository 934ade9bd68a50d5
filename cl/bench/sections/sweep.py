"""A sweep of 32 jobs by three launchers (job after job, one process a core, one population) and without a sweep."""

import sys
import tempfile

from cl.bench.options import Options
from cl.bench.runs import process
from cl.bench.table import Row, in_turns

SEEDS = 32
LAUNCHERS = (("cores", 1.8), ("population", 1.0))
ALONE = 4  # jobs measured each in a process of its own


def rows(options: Options) -> list[Row]:
    """Measure whole sweeps, start of the processes included; by the wall clock, as processes work side by side."""
    if options.clock != "wall":
        print("sweep: left out (measured by --clock wall alone)")
        return []
    names = [name for name, _ in LAUNCHERS]
    runs = [lambda name=name: sweep(options, name) for name in ("basic", *names)]

    def apart() -> float:
        return SEEDS * sum(job(options, seed) for seed in range(ALONE)) / ALONE

    basic, *others, alone = in_turns([*runs, apart], options.rounds, warm=False)
    found = []
    for (name, bar), seconds in zip(LAUNCHERS, others, strict=True):
        found.append(Row("sweep", f"{SEEDS} jobs, launcher {name}", "launcher basic", seconds, basic, bar, larger=True))
        note = f"{ALONE} of them measured"
        found.append(
            Row("sweep", f"{SEEDS} jobs, launcher {name}", "a process a job, in turn", seconds, alone, bar, True, note)
        )
    return found


def sweep(options: Options, launcher: str) -> float:
    """Return the seconds of one sweep."""
    return _train(options, "-m", f"hydra/launcher={launcher}", "seed=" + ",".join(map(str, range(SEEDS))))


def job(options: Options, seed: int) -> float:
    """Return the seconds of one job as a command of its own."""
    return _train(options, f"seed={seed}")


def _train(options: Options, *words: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return process(
            [
                sys.executable, "-m", "cl.cli.main", "train", *words, "stream=split_mnist",
                "stream.samples_per_task=4000", "stream.test_samples=500", "learner.hidden=[400,400]",
                f"data.root={options.root}", f"output={folder}", "tracker=files", f"device={options.device}",
                "threads=1",
            ]
        )[0]  # fmt: skip
