"""Freed memory kept for the next step (`cl.allocator`) against glibc as it comes: whole runs, process by process."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial

from cl.bench.options import Options
from cl.bench.runs import process
from cl.bench.table import Row, in_turns

AS_IT_COMES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}  # glibc's own value: what the user sets is not changed
RUNS = (
    ("cnn, 500 samples a task", "stream=split_mnist", "learner=cnn"),
    ("gru row by row, 1000 samples a task", "stream=row_mnist", "learner=gru", "stream.samples_per_task=1000"),
)


def rows(options: Options) -> list[Row]:
    """Measure a convolutional and a recurrent network."""
    if options.device.type != "cpu":
        print("memory: left out (of a CPU alone)")
        return []
    found = []
    for name, *words in RUNS:
        runs = [partial(run, options, words, environment) for environment in ({}, AS_IT_COMES)]
        kept, plain = in_turns(runs, options.rounds, warm=False)
        found.append(Row("memory", name, "glibc as it comes", kept, plain, larger=True))
    return found


def run(options: Options, words: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the seconds of one run, start of the process included."""
    with tempfile.TemporaryDirectory() as folder:
        return process(
            [
                sys.executable, "-m", "cl.cli.main", "train", "stream.samples_per_task=500", *words, "tracker=files",
                f"data.root={options.root}", f"output={folder}", f"threads={options.threads}", "measures=none",
            ],
            options.clock,
            environment,
        )[0]  # fmt: skip
