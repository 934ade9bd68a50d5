"""A sweep of 32 jobs by three launchers: one process after another, one process a core, one population."""

import sys
import tempfile

from cl.bench.options import Options
from cl.bench.runs import process
from cl.bench.table import Row

SEEDS = 32
LAUNCHERS = (("cores", 1.8), ("population", 1.0))


def rows(options: Options) -> list[Row]:
    """Measure whole sweeps, start of the processes included."""
    basic = [sweep(options, "basic")]
    found = []
    for name, bar in LAUNCHERS:
        seconds = [sweep(options, name)]
        found.append(Row("sweep", f"{SEEDS} jobs, launcher {name}", "launcher basic", seconds, basic, bar, larger=True))
    return found


def sweep(options: Options, launcher: str) -> float:
    """Return the seconds of one sweep."""
    with tempfile.TemporaryDirectory() as folder:
        return process(
            [
                sys.executable, "-m", "cl.cli.main", "train", "-m",
                f"hydra/launcher={launcher}", "stream=split_mnist", "stream.samples_per_task=4000",
                "stream.test_samples=500", "learner.hidden=[400,400]", f"data.root={options.root}", f"output={folder}",
                "tracker=files", f"device={options.device}", "threads=1", "seed=" + ",".join(map(str, range(SEEDS))),
            ]
        )[0]  # fmt: skip
