"""The number a page ranks strategies by: average accuracy, or the loss of a stream of which it says more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import per_replica
from cl.report.losses import KINDS
from cl.report.member import Member

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lead:
    """What strategies are ranked by.

    Attributes:
        metric: name of a metric, one value a run.
        words: what it is called on the page.
        less: True where less is better.
    """

    metric: str = "average_accuracy"
    words: str = "average accuracy"
    less: bool = False

    @property
    def most(self) -> float:
        """Its largest possible value."""
        return np.inf if self.less else 1.0

    @property
    def capital(self) -> str:
        """Its words at the start of a title."""
        return self.words[0].upper() + self.words[1:]

    def values(self, member: Member) -> Array:
        """Return its value for every run of a member, (S,); NaN where it was not measured."""
        if self.metric not in member.values:
            return np.full(len(member.group.seeds), np.nan)
        return per_replica(member.values[self.metric])

    def worth(self, member: Member) -> Array:
        """Return its value for every run, turned so that more is better: (S,)."""
        return np.asarray(-self.values(member) if self.less else self.values(member))


def lead(members: Sequence[Member]) -> Lead:
    """Return what the members of one stream are ranked by, the same as `lethe compare` tests by default."""
    for kind in KINDS:
        if kind.readers(members):
            return Lead(kind.metric, kind.unit, less=True)
    return Lead()
