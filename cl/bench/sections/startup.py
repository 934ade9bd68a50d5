"""From the command to the first step, against importing torch and torchvision."""

import subprocess
import sys
import tempfile
import time

from cl.bench.options import Options
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
        runs = [lambda: process(command), lambda: process([sys.executable, "-c", IMPORT])]
        seconds, reference = in_turns(runs, max(3, options.rounds))
    return [Row("startup", "lethe train to its first step", IMPORT, seconds, reference, 1.5)]


def process(command: list[str]) -> float:
    """Return the seconds that a command takes."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[:4]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - started
