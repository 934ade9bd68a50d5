"""Memory over distance as a measure: looked at before training and after every task, so that both forgettings meet."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cl import objectives
from cl.distance import addresses, attention, gates, gradients, states
from cl.distance.quantities import FACTS, HEADS, quantities
from cl.distance.recall import half_life
from cl.errors import ConfigError, expect
from cl.learners.memory import MemoryLearner
from cl.learners.sequence import SequenceLearner
from cl.measures.base import BATCH, Array, Measure, Quantity, told
from cl.measures.drift import padded
from cl.strategy import Network, Strategy
from cl.streams.base import Stream
from cl.streams.data import Data

INSIDE = [name for name in FACTS if name not in ("recall", "half_life", "drift")]  # what is seen of one network


@runtime_checkable
class Distances(Protocol):
    """A stream that can ask about a chosen distance between cue and use."""

    @property
    def counts(self) -> str | None:
        """What a distance counts, e.g. "steps from cue to question"; None where its problems have none."""

    def at_distance(self, k: int, distance: int, n: int) -> Data:
        """Return n further test samples of task k with this distance, which ask for what was to be remembered alone.

        Raises:
            ConfigError: no sample has this distance.
        """


class Distance(Measure):
    """How far back a network remembers, and what of it is lost with later tasks.

    Always: gradients against distance and drift of the state. Where the stream can ask at a chosen distance: recall
    against distance and its half-life. Of gated layers (LSTM, GRU): retention times implied by the gates. Of attention:
    its mass against distance. Of external memories: how long ago what is read was written, where the heads stand, how
    sharply, and how many slots are in use. The network is the one that the strategy asks about the task, with its gates
    on units; where none stands for the task, recall alone is taken.

    Args:
        samples: test samples (of each task and distance for recall), > 0; None for all, and 250 at each distance.
        probes: test samples for Jacobians, gates, attention, addresses and states, > 0.
        distances: distances between cue and use that are asked about, rising; also beyond what is trained. Those that
            the problem does not have are left out.
        states: True also takes the Jacobians of the states of recurrent layers, and how fast they fall.
    """

    cost: ClassVar[str] = (
        "a forward pass over `samples` for every task and distance; one Jacobian of the features for each of `probes`; "
        "with `states`, one Jacobian of the state a step as well, quadratic in its units to hold and cubic to multiply"
    )

    def __init__(
        self,
        samples: int | None = 200,
        probes: int = 20,
        distances: Sequence[int] = (1, 2, 5, 10, 20, 30, 50, 100),
        states: bool = False,
    ) -> None:
        super().__init__(samples)
        expect(probes > 0, "measures.distance.probes", "> 0", probes)
        rising = all(a < b for a, b in pairwise(distances))
        right = len(distances) > 0 and rising and distances[0] > 0
        expect(right, "measures.distance.distances", "rising whole numbers > 0", list(distances))
        expect(isinstance(states, bool), "measures.distance.states", "true or false", states)
        self.probes, self.distances, self.states = probes, [int(d) for d in distances], states

    def check(self, strategy: Strategy) -> None:
        """Refuse a learner that reads no sequences.

        Raises:
            ConfigError: it does not.
        """
        if not isinstance(strategy.learner, SequenceLearner):
            name = type(strategy.learner).__name__
            raise ConfigError(
                f"Expected `learner` that reads sequences (gru, transformer, ...), got {name}; or leave `distance` out "
                "of `measures`"
            )

    def start(self, strategy: Strategy, stream: Stream) -> None:
        """Look at the untrained network."""
        self.state = {"then": [], "counts": getattr(stream, "counts", None)}
        self._look(0, strategy, stream)

    def after_task(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Look at the network after task k."""
        asked = self.networks(strategy, stream, k)
        now = [None if n is None else self._states(n, stream, j) for j, n in enumerate(asked)]
        then = self.state["then"]
        then.append(torch.zeros(0) if (newest := now[k]) is None else newest[0])
        moved = [
            torch.zeros(0) if found is None else states.drift(before, *found)
            for before, found in zip(then, now, strict=True)
        ]
        self._add("drift", ragged(moved))
        self._look(k, strategy, stream)

    def _states(self, network: Network, stream: Stream, j: int) -> tuple[Tensor, Tensor | None]:
        """Return the states on the inputs of task j and which steps are real, on the CPU."""
        found, real = states.states(_reader(network), self._inputs(stream, j), network.gates)
        return found.cpu(), None if real is None else real.cpu()

    def _add(self, name: str, row: Tensor) -> None:
        self.state[name] = [*self.state.get(name, []), row.detach().double().cpu()]

    def _inputs(self, stream: Stream, k: int) -> Tensor:
        data = self.test(stream, k)
        return next(iter(data.in_order(min(self.probes, len(data))))).x

    def _look(self, k: int, strategy: Strategy, stream: Stream) -> None:
        """Add a row to everything that is looked at before training too, on the inputs of task k."""
        network = self.networks(strategy, stream, k)[k]
        rows = {} if network is None else self._inside(network, self._inputs(stream, k))
        for name in dict.fromkeys([*rows, *(n for n in INSIDE if n in self.state)]):
            self._add(name, rows[name] if name in rows else torch.full_like(self.state[name][-1], torch.nan))
        if isinstance(stream, Distances) and stream.counts is not None:
            self._recall(strategy, stream, stream)

    def _inside(self, network: Network, x: Tensor) -> dict[str, Tensor]:
        """Return what is seen of a network on inputs x."""
        learner, units = _reader(network), network.gates
        found = {"gradient": gradients.input_jacobians(learner, x, units).nanmean(0)}
        if any(gates.gated(block) for block in learner.blocks):
            found["retention"] = ragged(gates.retention_times(learner, x, units))
        if attention.has_attention(learner):
            weights, real = attention.attention_weights(learner, x, units)
            found["attention"] = ragged([_mass(w, real) for w in weights])
        if self.states and (norms := gradients.state_norms(learner, x, units)):
            found["state"] = ragged([n.nanmean(0) for n in norms])
            found["timescale"] = torch.stack([gradients.timescale(n).median() for n in norms])
        if isinstance(learner, MemoryLearner):
            where = addresses.addresses(learner, x)
            found["lag"] = addresses.lag_of_reading(where["read"], where["write"]).nanmean(0)
            found["sharpness"] = torch.stack([addresses.sharpness(where[name]).nanmean() for name in HEADS])
            found["used"] = addresses.slots_used(where["write"]).mean()
            for name in HEADS:  # of one sample: an average over samples would be a blur
                found[name] = where[name][0].sum(1).clamp_max(1).T
        return found

    @torch.no_grad()
    def _recall(self, strategy: Strategy, stream: Stream, source: Distances) -> None:
        """Add recall of every task at every distance, and its half-life with its interval; NaN where there is none."""
        rows, halves = [], []
        for j in range(len(stream)):
            asked = {d: data for d in self.distances if (data := self._at(source, j, d)) is not None}
            info = stream.info
            score = objectives.Score(info.target, info.codes, info.task_classes[j], stream.test(j).device)
            found = {d: self._scores(strategy, stream, data, j, score) for d, data in asked.items()}
            nothing = torch.full((1,), torch.nan)
            rows.append(torch.stack([found.get(d, nothing).mean() for d in self.distances]))
            halves.append(_half_life(found, score, [data.labels for data in asked.values()], info.seed))
        self._add("recall", torch.stack(rows))
        self._add("half_life", torch.stack(halves))

    def _at(self, source: Distances, j: int, distance: int) -> Data | None:
        try:
            return source.at_distance(j, distance, self.samples or BATCH)
        except ConfigError:  # no sample of this problem has this distance
            return None

    def _scores(self, strategy: Strategy, stream: Stream, data: Data, j: int, score: objectives.Score) -> Tensor:
        found = []
        for batch in data.in_order(BATCH):
            predicted = strategy("predict", batch.x, told(stream, j)).float()
            found.append(score(predicted, batch.y).cpu())
        return torch.cat(found)

    def _table(self, name: str) -> Array:
        return np.asarray(ragged(self.state[name]).numpy())

    def result(self) -> dict[str, Quantity]:
        """Return what was seen, by name; only what this network and this stream have."""
        seen = [name for name in FACTS if self.state.get(name)]
        return quantities(seen, self._table, self.state.get("counts") or "distance", self.distances)


def ragged(rows: Sequence[Tensor]) -> Tensor:
    """Return rows of different sizes as one tensor, float64 on the CPU, NaN where a row has nothing."""
    shape = tuple(max(row.shape[i] for row in rows) for i in range(rows[0].dim()))
    return torch.from_numpy(padded([row.detach().double().cpu().numpy() for row in rows], shape))


def _reader(network: Network) -> SequenceLearner:
    assert isinstance(network.learner, SequenceLearner)
    return network.learner


def _half_life(found: Mapping[int, Tensor], score: objectives.Score, labels: Sequence[Tensor], seed: int) -> Tensor:
    """Return estimate, low and high of the half-life of recall, for the scores of samples at each distance: (3,)."""
    if not found:
        return torch.full((3,), torch.nan)
    chance = score.chance(torch.cat([y.flatten() if score.target == "steps" else y for y in labels]))
    values = torch.cat(list(found.values())).double().numpy()
    distance = np.repeat(list(found), [len(scores) for scores in found.values()])
    half = half_life(values, distance, chance, seed)
    return torch.tensor([half.steps, half.low, half.high])


def _mass(weights: Tensor, real: Tensor | None) -> Tensor:
    if weights.shape[2] == 1:
        return attention.mass_from_last(weights, real)
    return attention.mass_by_distance(weights, real)
