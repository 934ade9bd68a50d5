"""From the command to the first step, against importing torch and torchvision."""

import sys
import tempfile

from cl.bench.options import Options
from cl.bench.runs import process
from cl.bench.table import Row, in_turns

IMPORT = "import torch, torchvision"
FIRST_STEP = """
import os, sys
from cl.cli.main import main
import cl.update
cl.update.Updater.__call__ = lambda *a: os._exit(0)  # the first step ends the process
main(sys.argv[1:])
"""


def rows(options: Options) -> list[Row]:
    """Measure whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "stream=split_mnist", f"data.root={options.root}", f"output={folder}", "tracker=files"]
        command = [sys.executable, "-c", FIRST_STEP, *words, f"device={options.device}", f"threads={options.threads}"]
        reference = [sys.executable, "-c", IMPORT]
        runs = [lambda c=c: process(c, options.clock)[0] for c in (command, reference)]
        ours, theirs = in_turns(runs, max(3, options.rounds))
    return [Row("startup", "lethe train to its first step", IMPORT, ours, theirs, 1.5)]
