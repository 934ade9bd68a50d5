"""Streams of sequences: generated problems, images read as sequences, text, time series."""

from cl.streams.sequences.copying import Copy, PermutedCopy, RepeatCopy
from cl.streams.sequences.problem import Problem
from cl.streams.sequences.recall import AssociativeRecall, DelayedMatch, KeyValueRecall, NBack
from cl.streams.sequences.series import Adding, Series
from cl.streams.sequences.stream import GeneratedStream

__all__ = [
    "Adding",
    "AssociativeRecall",
    "Copy",
    "DelayedMatch",
    "GeneratedStream",
    "KeyValueRecall",
    "NBack",
    "PermutedCopy",
    "Problem",
    "RepeatCopy",
    "Series",
]
