"""What a memory holds, as splits to train on."""

from collections.abc import Callable

from cl.memory.base import Memory
from cl.streams.data import Data, Transform


def splits(memory: Memory, later: Callable[[int], Transform | None]) -> list[Data]:
    """Return the stored samples, one split a task; where the stream augments, they are augmented anew at each use.

    Args:
        memory: its x are what `Data.kept` gave.
        later: for a task how they become inputs (`TrainingView.later`).
    """
    found = []
    for k in sorted(set(memory["task"][memory.filled].tolist())):
        slots = ((memory["task"] == k) & memory.filled).nonzero()[:, 0]
        found.append(Data(memory["x"], slots, memory["y"][slots], k, later(k)))
    return found
