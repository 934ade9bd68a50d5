"""Memories of past samples: slots with named fields, filled in the hot path or when a task ends."""

from cl.memory.balanced import Balanced
from cl.memory.base import PER, Memory, augmented, groups_of, join, kept_inputs, sample_fields, slots
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
    "augmented",
    "groups_of",
    "herding",
    "join",
    "kept_inputs",
    "sample_fields",
    "select",
    "slots",
    "splits",
]
