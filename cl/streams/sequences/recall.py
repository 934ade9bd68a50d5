"""Problems of recall: a cue far back decides the answer."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cl.errors import expect
from cl.seeding import integers, normal, uniform
from cl.streams.sequences.problem import Drawn, Problem, alphabet, bounds, encode, no_targets, place, within

MOST_BITS = 40  # of a number that is drawn: `integers` has 47, of which some make all numbers equally likely
Number = int | tuple[int, int] | list[int]


@dataclass(frozen=True)
class KeyValueRecall(Problem):
    """Some steps show a key with a value; the last step shows a key alone: which value came with it?

    The key asked for was shown exactly once, `distance` steps before the question; the other pairs stand anywhere and
    have other keys; all other steps are blank. The distance may be longer than any sequence trained on: sequences grow
    with it.

    Attributes:
        distance: steps from cue to question, >= 1, or a range.
        steps: steps before the question, at least; sequences have max(steps, largest distance) + 1 steps.
        pairs: pairs that are shown, the one asked for included, 1 to `steps`.
        keys: different keys, >= 2.
        values: different values.
    """

    lag: ClassVar[tuple[str, str] | None] = ("distance", "steps from cue to question")

    distance: Number = (1, 20)
    steps: int = 20
    pairs: int = 4
    keys: int = 8
    values: int = 8

    def __post_init__(self) -> None:
        bounds(self.distance, "stream.problems.distance")
        for name in ("keys", "values"):
            alphabet(getattr(self, name), f"stream.problems.{name}")
        expect(self.steps > 0, "stream.problems.steps", "> 0", self.steps)
        expect(0 < self.pairs <= self.steps, "stream.problems.pairs", f"in 1 to steps ({self.steps})", self.pairs)

    @property
    def length(self) -> int:
        """All steps and the question."""
        return max(self.steps, bounds(self.distance, "stream.problems.distance")[1]) + 1

    @property
    def features(self) -> int:
        """Key, value, and a mark of the question."""
        return self.keys + self.values + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """The values."""
        return tuple(str(v) for v in range(self.values))

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples."""
        length, device = self.length, key.device
        distance = within(key, n, bounds(self.distance, "stream.problems.distance"), "recall/distance")
        asked = integers(key, (n, 1), self.keys, "recall/asked")
        other = (asked + 1 + integers(key, (n, length), self.keys - 1, "recall/keys")) % self.keys
        value = integers(key, (n, length), self.values, "recall/values")
        step = torch.arange(length, device=device)
        cue, question = step == (length - 1 - distance)[:, None], (step == length - 1).expand(n, -1)
        place = torch.where(question, 2.0, torch.where(cue, -1.0, uniform(key, (n, length), "recall/places")))
        pair = place.argsort(1).argsort(1) < self.pairs  # the cue comes first, then steps as drawn
        symbol = F.one_hot(torch.where(cue | question, asked, other), self.keys) * (pair | question)[..., None]
        parts = [symbol, F.one_hot(value, self.values) * pair[..., None], question[..., None]]
        return torch.cat(parts, -1).to(torch.float32), (value * cue).sum(1), None


@dataclass(frozen=True)
class AssociativeRecall(Problem):
    """Items of several symbols in a row; one is shown again: which item followed it? (Graves et al. 2014).

    Attributes:
        items: items of a sequence, >= 2, or a range.
        width: symbols of an item.
        symbols: size of the alphabet.
        encoding: ``one_hot`` or ``bits``.
    """

    target: ClassVar[str] = "steps"

    items: Number = (2, 6)
    width: int = 3
    symbols: int = 8
    encoding: str = "bits"

    def __post_init__(self) -> None:
        bounds(self.items, "stream.problems.items", low=2)
        expect(self.encoding in ("one_hot", "bits"), "stream.problems.encoding", "'one_hot' or 'bits'", self.encoding)
        alphabet(self.symbols)
        bits = math.log2(self.symbols)
        rule = f"in 1 to {int(MOST_BITS / bits)} (items are numbers below symbols ** width <= 2 ** {MOST_BITS})"
        expect(self.width > 0 and self.width * bits <= MOST_BITS, "stream.problems.width", rule, self.width)
        most = bounds(self.items, "stream.problems.items", low=2)[1]
        rule = f"with more than {most} different items to draw (symbols ** width)"
        expect(self.symbols**self.width > most, "stream.problems.symbols", rule, self.symbols)

    @property
    def _ends(self) -> tuple[int, int]:
        return bounds(self.items, "stream.problems.items", low=2)

    @property
    def length(self) -> int:
        """Each item after a mark, the question after another and closed by it, the answer."""
        return (self._ends[1] + 1) * (self.width + 1) + 1 + self.width

    @property
    def varies(self) -> bool:
        """True if samples differ in length."""
        return self._ends[0] < self._ends[1]

    @property
    def features(self) -> int:
        """Symbol, mark of an item, mark of the question."""
        return (self.symbols if self.encoding == "one_hot" else max(1, (self.symbols - 1).bit_length())) + 2

    @property
    def class_names(self) -> tuple[str, ...]:
        """The symbols."""
        return tuple(str(s) for s in range(self.symbols))

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples; the items of a sequence are all different."""
        most, w, length, device = self._ends[1], self.width, self.length, key.device
        count = within(key, n, self._ends, "associative/items")[:, None]
        code = _distinct(key, n, most, self.symbols**w)
        item = code[..., None] // self.symbols ** torch.arange(w, device=device) % self.symbols  # (n, most, w)
        asked = integers(key, (n, 1), count - 1, "associative/asked")
        step = torch.arange(length, device=device)[None]
        block, inside = step // (w + 1), step % (w + 1) - 1
        questioning = block == count
        which = torch.where(questioning, asked, block.clamp_max(most - 1))
        flat = (which * w + inside.clamp_min(0)).clamp(0, most * w - 1)
        symbol = item.flatten(1).gather(1, flat)
        visible = (block <= count) & (inside >= 0)
        item_mark = (inside == -1) & (block < count)
        last = (count + 1) * (w + 1)
        question_mark = (questioning & (inside == -1)) | (step == last)
        visible &= step < last
        marks = torch.stack([item_mark, question_mark], -1).to(torch.float32)
        x = torch.cat([encode(symbol, visible, self.symbols, self.encoding), marks], -1)
        answer = item.gather(1, (asked + 1)[..., None].expand(-1, -1, w))[:, 0]
        y = place(no_targets(n, length, device), last + 1 + torch.arange(w, device=device), answer)
        return x, y, (last + 1 + w)[:, 0] if self.varies else None


def _distinct(key: Tensor, n: int, count: int, total: int) -> Tensor:
    """Draw `count` different numbers below `total` for each of n samples, all sets alike: (n, count)."""
    drawn = torch.zeros((n, 0), dtype=torch.long, device=key.device)
    for i in range(count):
        # One of the numbers not taken yet: counted among them, then moved past every taken one in rising order.
        number = integers(key, (n,), total - i, f"associative/item/{i}")
        for taken in drawn.sort(1).values.unbind(1):
            number = number + (number >= taken)
        drawn = torch.cat([drawn, number[:, None]], 1)
    return drawn


@dataclass(frozen=True)
class DelayedMatch(Problem):
    """A sample stimulus, a delay, a test stimulus: are they the same? (delayed match to sample).

    Attributes:
        delay: steps between the two, >= 1, or a range.
        stimuli: different stimuli.
        noise: standard deviation of what is added to every step, >= 0.
    """

    lag: ClassVar[tuple[str, str] | None] = ("delay", "steps between sample and test")

    delay: Number = (5, 20)
    stimuli: int = 8
    noise: float = 0.1

    def __post_init__(self) -> None:
        bounds(self.delay, "stream.problems.delay")
        alphabet(self.stimuli, "stream.problems.stimuli")
        expect(self.noise >= 0, "stream.problems.noise", ">= 0", self.noise)

    @property
    def length(self) -> int:
        """Sample, delay, test."""
        return bounds(self.delay, "stream.problems.delay")[1] + 2

    @property
    def features(self) -> int:
        """One a stimulus."""
        return self.stimuli

    @property
    def class_names(self) -> tuple[str, ...]:
        """The two answers."""
        return ("different", "same")

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples; half of them match. A shorter delay begins later, so that all end with the test."""
        length = self.length
        delay = within(key, n, bounds(self.delay, "stream.problems.delay"), "match/delay")
        sample = integers(key, (n,), self.stimuli, "match/sample")
        same = integers(key, (n,), 2, "match/same")
        other = (sample + 1 + integers(key, (n,), self.stimuli - 1, "match/other")) % self.stimuli
        test = torch.where(same == 1, sample, other)
        step = torch.arange(length, device=key.device)
        first, last = step == (length - 2 - delay)[:, None], (step == length - 1).expand(n, -1)
        x = encode(torch.where(last, test[:, None], sample[:, None]), first | last, self.stimuli, "one_hot")
        return x + self.noise * normal(key, x.shape, "match/noise"), same, None


@dataclass(frozen=True)
class NBack(Problem):
    """At every step: is this the symbol of n steps ago? (Kirchner 1958). Half of the answers are yes.

    Attributes:
        n: steps back, >= 1.
        steps: length of a sequence, > n.
        symbols: size of the alphabet.
    """

    target: ClassVar[str] = "steps"
    lag: ClassVar[tuple[str, str] | None] = ("n", "steps back")

    n: int = 2
    steps: int = 20
    symbols: int = 8

    def __post_init__(self) -> None:
        expect(self.n > 0, "stream.problems.n", "> 0", self.n)
        expect(self.steps > 1, "stream.problems.steps", "> 1", self.steps)
        alphabet(self.symbols)

    @property
    def length(self) -> int:
        """Steps; at least twice as many as go back."""
        return max(self.steps, 2 * self.n)

    @property
    def features(self) -> int:
        """One a symbol."""
        return self.symbols

    @property
    def class_names(self) -> tuple[str, ...]:
        """The two answers."""
        return ("different", "same")

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples."""
        same = integers(key, (n, self.length), 2, "back/same")
        shift = 1 + integers(key, (n, self.length), self.symbols - 1, "back/shift")
        shift = torch.where(same == 1, 0, shift)
        blocks = [integers(key, (n, self.n), self.symbols, "back/first")]
        for start in range(self.n, self.length, self.n):  # a block of n steps depends on the block before alone
            change = shift[:, start : start + self.n]
            blocks.append((blocks[-1][:, : change.shape[1]] + change) % self.symbols)
        symbol = torch.cat(blocks, 1)
        y = torch.cat([no_targets(n, self.n, key.device), same[:, self.n :]], 1)
        return F.one_hot(symbol, self.symbols).to(torch.float32), y, None
