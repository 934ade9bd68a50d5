"""Memories of past samples: slots with named fields, filled in the hot path or when a task ends."""

from cl.memory.balanced import Balanced
from cl.memory.base import PER, Memory, groups_of, join, sample_fields, slots
from cl.memory.exemplars import Exemplars
from cl.memory.reservoir import Reservoir
from cl.memory.ring import Ring
from cl.memory.selection import SELECTIONS, herding, select
from cl.memory.splits import splits

__all__ = [
    "PER",
    "SELECTIONS",
    "Balanced",
    "Exemplars",
    "Memory",
    "Reservoir",
    "Ring",
    "groups_of",
    "herding",
    "join",
    "sample_fields",
    "select",
    "slots",
    "splits",
]
