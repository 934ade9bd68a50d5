"""What the sections of the bench are told."""

from dataclasses import dataclass

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
        avalanche: Python interpreter of an environment with avalanche-lib, or None.
    """

    device: torch.device
    threads: int
    rounds: int
    root: str
    full: bool
    avalanche: str | None
