"""What the measure of memory over distance records, and what each of it means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cl.measures.base import Array, Quantity


@dataclass(frozen=True)
class Fact:
    """What is known of one quantity.

    Attributes:
        title: its name in the results.
        axes: what each axis counts; ``distance`` stands for what the stream's distance counts.
        meaning, better, source, unit, summary: see `Quantity`.
    """

    title: str
    axes: tuple[str, ...]
    meaning: str
    source: str
    unit: str = "fraction"
    better: str = ""
    summary: bool = True


BOUNDS = ("estimate", "low", "high")
HEADS = ("read", "write")
FACTS = {
    "recall": Fact(
        "recall_by_distance",
        ("after task", "task", "distance"),
        "How well what was read this far back is given back, for every task.",
        "score of the stream's target at a chosen distance, where something remembered is asked for",
        better="higher",
    ),
    "half_life": Fact(
        "recall_half_life",
        ("after task", "task", "bound"),
        "Distance, beyond the one recalled best, at which recall above chance has fallen to half of its best; infinite "
        "where it has not within the distances asked.",
        "95 % percentile bootstrap over samples",
        better="higher",
        summary=False,  # there is no mean of what is beyond the distances asked
    ),
    "gradient": Fact(
        "gradient_by_distance",
        ("after task", "steps back"),
        "How strongly what the head reads at the last step depends on the input this many steps before.",
        "Frobenius norm of the Jacobian, exact; Pascanu, Mikolov, Bengio 2013",
        "norm",
    ),
    "state": Fact(
        "state_gradient_by_distance",
        ("after task", "layer", "steps back"),
        "How strongly the last state of a recurrent layer depends on its state this many steps before.",
        "spectral norm of the product of the exact one-step Jacobians; Pascanu, Mikolov, Bengio 2013, equation 5",
        "norm",
        summary=False,
    ),
    "timescale": Fact(
        "state_timescale",
        ("after task", "layer"),
        "Steps in which the influence of a state falls to 1/e; infinite or negative where it does not fall.",
        "exponential fitted to state_gradient_by_distance, least squares of the logarithm",
        "steps",
        summary=False,
    ),
    "retention": Fact(
        "retention_time",
        ("after task", "layer", "unit"),
        "Steps until 1/e of a unit's state is left, as its gates imply on test data.",
        "-1 / mean log of the forget (update) gate; Mahto et al. 2021",
        "steps",
    ),
    "attention": Fact(
        "attention_by_distance",
        ("after task", "layer", "head", "steps back"),
        "Attention that a step pays, on average, to the step this far before it.",
        "mean over pairs of steps; Vaswani et al. 2017",
    ),
    "lag": Fact(
        "reading_lag",
        ("after task", "step"),
        "How long before each step what its read heads read was written.",
        "overlap of read and write addresses",
        "steps",
    ),
    "read": Fact(
        "read_addresses",
        ("after task", "slot", "step"),
        "Where the read heads stand at every step of one test sample.",
        "sum over heads; Graves, Wayne, Danihelka 2014, figure 6",
        summary=False,
    ),
    "write": Fact(
        "write_addresses",
        ("after task", "slot", "step"),
        "Where the write heads stand at every step of one test sample.",
        "sum over heads; Graves, Wayne, Danihelka 2014, figure 6",
        summary=False,
    ),
    "sharpness": Fact(
        "address_sharpness",
        ("after task", "heads"),
        "How sharply the heads of the memory point: 1 is one slot, 0 all slots alike.",
        "1 - entropy / log of the slots, mean over steps",
    ),
    "used": Fact(
        "slots_used",
        ("after task",),
        "Share of the memory's slots that a sample writes to, by at least half of a head.",
        "mean over test samples",
    ),
    "drift": Fact(
        "state_drift",
        ("task trained", "task", "step"),
        "How far the state at each step moved since the task was learned, on the same inputs.",
        "relative L2 distance",
        better="lower",
    ),
}


def quantities(
    seen: Sequence[str], table: Callable[[str], Array], counts: str, distances: Sequence[int]
) -> dict[str, Quantity]:
    """Return the quantities by title, those that have a number.

    Args:
        seen: keys of `FACTS` that were recorded.
        table: from a key to its values.
        counts: what a distance counts, e.g. "steps from cue to question".
        distances: the distances asked about.
    """
    names = {counts: [str(d) for d in distances], "bound": list(BOUNDS), "heads": list(HEADS)}
    found = {}
    for name, fact in ((name, FACTS[name]) for name in seen):
        values = table(name)
        if np.isfinite(values).any() or name == "half_life":  # of a half-life it is told that there is none
            axes = tuple(counts if axis == "distance" else axis for axis in fact.axes)
            own = {axis: names[axis] for axis in axes if axis in names}
            unit = counts if name == "half_life" else fact.unit
            found[fact.title] = Quantity(values, axes, fact.meaning, fact.better, fact.source, unit, own, fact.summary)
    return found
