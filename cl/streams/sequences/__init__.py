"""Streams of sequences: generated problems, images read as sequences, text, time series."""

from cl.streams.sequences.characters import Characters
from cl.streams.sequences.copying import Copy, PermutedCopy, RepeatCopy
from cl.streams.sequences.problem import Problem
from cl.streams.sequences.recall import AssociativeRecall, DelayedMatch, KeyValueRecall, NBack
from cl.streams.sequences.series import Adding, Series
from cl.streams.sequences.stream import GeneratedStream
from cl.streams.sequences.table import Csv
from cl.streams.sequences.words import Sentences

__all__ = [
    "Adding",
    "AssociativeRecall",
    "Characters",
    "Copy",
    "Csv",
    "DelayedMatch",
    "GeneratedStream",
    "KeyValueRecall",
    "NBack",
    "PermutedCopy",
    "Problem",
    "RepeatCopy",
    "Sentences",
    "Series",
]
