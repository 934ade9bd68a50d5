"""What the sections of the bench are told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Options:
    """Options of the bench.

    Attributes:
        device: where to compute.
        threads: CPU threads of everything that is measured.
        rounds: turns of each pair.
        root: data folder.
        full: True also runs the sizes that take long.
        clock: ``wall``, or ``cpu``: the process's own time, which other programs on the machine disturb less.
    """

    device: torch.device
    threads: int
    rounds: int
    root: str
    full: bool
    clock: str = "wall"

    def timed(self, run: Callable[[], Any]) -> float:
        """Return the seconds that `run` takes, until the device has finished."""
        clock = time.process_time if self.clock == "cpu" else time.perf_counter
        started = clock()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return clock() - started
