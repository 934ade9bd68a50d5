"""Copying problems: say again what was shown, after a while, several times, or in another order."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from cl.errors import expect
from cl.seeding import generator, integers
from cl.streams.sequences.problem import (
    ENCODINGS,
    Drawn,
    Problem,
    alphabet,
    bits_of,
    bounds,
    encode,
    no_targets,
    place,
    symbol_features,
    within,
)

ANSWERS = ("symbols", "bits")
DISTANCES = {"delay": "steps from the last item to the go signal", "items": "items to say again"}
Number = int | tuple[int, int] | list[int]


@dataclass(frozen=True)
class Copy(Problem):
    """Symbols are shown, then nothing for a while, then they are asked for in order.

    With the defaults it is the copying memory problem (Hochreiter and Schmidhuber 1997) in the form of Bai, Kolter and
    Koltun 2018: `items` symbols, `delay` - 1 blanks, then a go signal for `items` + 1 steps, T = `delay` + 2 `items`;
    the target is blank until the last `items` steps. Answering without memory costs items * ln(symbols) / T. With
    delay = 1, hold = false, blanks = false, encoding = bits, answers = bits and items = [1, 20] it is the copy task of
    Graves, Wayne and Danihelka 2014. Its loss is the sum of the binary cross-entropies of the bits, a step.

    Attributes:
        items: symbols to remember, or a range of them.
        delay: steps from the last symbol to the first go signal, >= 1, or a range.
        symbols: size of the alphabet.
        encoding: ``one_hot``, ``bits`` or ``tokens``.
        hold: True keeps the go signal on while answers are due; False gives it once.
        blanks: True asks for "blank" at all other steps; False asks for nothing there.
        distractors: True fills the delay with symbols that are not to be remembered; those that are, are marked.
        answers: ``symbols`` (one softmax over them) or ``bits`` (one sigmoid a bit, see `cl.learners.coded`).
        distance: what is changed to ask about other distances between cue and use, one of `DISTANCES`: ``delay``, or
            ``items`` (every item is said as many steps after it was shown, and the delay).
    """

    target: ClassVar[str] = "steps"
    items: Number = 10
    delay: Number = 100
    symbols: int = 8
    encoding: str = "one_hot"
    hold: bool = True
    blanks: bool = True
    distractors: bool = False
    answers: str = "symbols"
    distance: str = "delay"

    def __post_init__(self) -> None:
        alphabet(self.symbols)
        expect(self.encoding in ENCODINGS, "stream.problems.encoding", f"in {list(ENCODINGS)}", self.encoding)
        rule = "'one_hot' or 'bits' where distractors are marked"
        expect(not (self.distractors and self.encoding == "tokens"), "stream.problems.encoding", rule, self.encoding)
        bounds(self.items, "stream.problems.items")
        bounds(self.delay, "stream.problems.delay")
        expect(self.answers in ANSWERS, "stream.problems.answers", f"in {list(ANSWERS)}", self.answers)
        expect(self.distance in DISTANCES, "stream.problems.distance", f"in {list(DISTANCES)}", self.distance)
        if self.answers == "bits":
            whole = self.symbols == 2 ** symbol_features(self.symbols, "bits")
            expect(whole, "stream.problems.symbols", "a power of 2 where answers are bits", self.symbols)
            expect(not self.blanks, "stream.problems.blanks", "false where answers are bits", self.blanks)

    @property
    def _ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return bounds(self.items, "stream.problems.items"), bounds(self.delay, "stream.problems.delay")

    @property
    def length(self) -> int:
        """Time steps T of the longest sample."""
        items, delay = self._ends
        return 2 * items[1] + delay[1]

    @property
    def varies(self) -> bool:
        """True if samples differ in length."""
        items, delay = self._ends
        return items[0] < items[1] or delay[0] < delay[1]

    @property
    def features(self) -> int:
        """Features of the symbols, the go signal, and the mark."""
        if self.encoding == "tokens":
            return 0
        return symbol_features(self.symbols, self.encoding) + 1 + self.distractors

    @property
    def vocabulary(self) -> int:
        """Padding, blank, go, symbols."""
        return self.symbols + 3 if self.encoding == "tokens" else 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Blank and the symbols."""
        return ("blank", *(str(s) for s in range(self.symbols)))

    @property
    def codes(self) -> tuple[tuple[int, ...] | None, ...] | None:
        """The bits of each symbol; blank is never asked for."""
        if self.answers == "symbols":
            return None
        words = bits_of(torch.arange(self.symbols), symbol_features(self.symbols, "bits"))
        return (None, *(tuple(word) for word in words.tolist()))

    @property
    def counts(self) -> str:
        """What the distance of `at` counts."""
        return DISTANCES[self.distance]

    def at(self, distance: int) -> Problem:
        """Return the problem with that delay, or so many items; it asks for the items alone.

        Answering "blank" elsewhere takes no memory: the more steps there are, the more of them are right.
        """
        if self.distance == "items":
            return replace(self, blanks=False, items=distance)
        return replace(self, blanks=False, delay=distance)

    def order(self, items: int) -> list[int]:
        """Return which item is said first, second..."""
        return list(range(items))

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples."""
        item_ends, delay_ends = self._ends
        count = within(key, n, item_ends, "copy/items")
        delay = within(key, n, delay_ends, "copy/delay")
        most, length, device = item_ends[1], self.length, key.device
        shown = integers(key, (n, most), self.symbols, "copy/symbols")
        step = torch.arange(length, device=device)
        real = torch.arange(most, device=device) < count[:, None]
        lengths = 2 * count + delay
        first_go, first_answer = count + delay - 1, count + delay
        said = shown[:, torch.tensor(self.order(most), device=device)]
        y = torch.zeros((n, length), dtype=torch.long, device=device) if self.blanks else no_targets(n, length, device)
        answers = torch.where(real, first_answer[:, None] + step[:most], -1)
        y = place(y, answers, said + 1)
        y = torch.where(step < lengths[:, None], y, no_targets(n, length, device))
        go = (step >= first_go[:, None]) & (step < lengths[:, None]) if self.hold else step == first_go[:, None]
        remembered = step < count[:, None]
        symbol = place(torch.zeros((n, length), dtype=torch.long, device=device), step[:most].expand(n, -1), shown)
        visible = remembered
        if self.distractors:
            other = integers(key, (n, length), self.symbols, "copy/distractors")
            symbol = torch.where(remembered, symbol, other)
            visible = step < first_go[:, None]
        varying = lengths if self.varies else None
        if self.encoding == "tokens":
            token = torch.where(visible, symbol + 3, torch.where(go, 2, 1))
            return torch.where(step < lengths[:, None], token, 0), y, varying
        parts = [encode(symbol, visible, self.symbols, self.encoding), go[..., None].to(torch.float32)]
        if self.distractors:
            parts.append(remembered[..., None].to(torch.float32))
        return torch.cat(parts, -1), y, varying


@dataclass(frozen=True)
class PermutedCopy(Copy):
    """Copying in an order of the task's own: the items are asked for in a permuted order (Ehret et al. 2021).

    Attributes:
        permuted: the order in which items are said, or empty for one drawn by the stream's seed and the task.
    """

    permuted: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self._ends[0]
        expect(low == high, "stream.problems.items", "one number, for an order to permute", self.items)
        expect(self.distance == "delay", "stream.problems.distance", "'delay' for an order to permute", self.distance)
        known = not self.permuted or sorted(self.permuted) == list(range(high))
        expect(known, "stream.problems.permuted", f"an order of {high} items", self.permuted)

    def fixed(self, seed: int, k: int) -> Problem:
        """Return the problem with task k's order."""
        if self.permuted:
            return self
        drawn = torch.randperm(self._ends[0][1], generator=generator(seed, "copy order", k))
        return replace(self, permuted=tuple(drawn.tolist()))

    def order(self, items: int) -> list[int]:
        """Return which item is said first, second..."""
        return list(self.permuted) if self.permuted else super().order(items)


@dataclass(frozen=True)
class RepeatCopy(Problem):
    """Symbols are shown, then a number; they are to be said that many times, then "end" (Graves et al. 2014).

    Attributes:
        items: symbols to remember, or a range.
        repeats: times they are said, or a range.
        symbols: size of the alphabet.
        encoding: ``one_hot`` or ``bits``.
    """

    target: ClassVar[str] = "steps"

    items: Number = (1, 10)
    repeats: Number = (1, 10)
    symbols: int = 8
    encoding: str = "bits"

    def __post_init__(self) -> None:
        alphabet(self.symbols)
        known = ENCODINGS[:2]
        expect(self.encoding in known, "stream.problems.encoding", f"in {list(known)}", self.encoding)
        bounds(self.items, "stream.problems.items")
        bounds(self.repeats, "stream.problems.repeats")

    @property
    def _ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return bounds(self.items, "stream.problems.items"), bounds(self.repeats, "stream.problems.repeats")

    @property
    def length(self) -> int:
        """Items, the number, the answer, the end."""
        items, repeats = self._ends
        return items[1] + 1 + items[1] * repeats[1] + 1

    @property
    def varies(self) -> bool:
        """True if samples differ in length."""
        items, repeats = self._ends
        return items[0] < items[1] or repeats[0] < repeats[1]

    @property
    def features(self) -> int:
        """Features of the symbols, and the number, scaled to [0, 1]."""
        return symbol_features(self.symbols, self.encoding) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """End and the symbols."""
        return ("end", *(str(s) for s in range(self.symbols)))

    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples."""
        item_ends, repeat_ends = self._ends
        count = within(key, n, item_ends, "repeat/items")[:, None]
        repeats = within(key, n, repeat_ends, "repeat/repeats")[:, None]
        most, length, device = item_ends[1], self.length, key.device
        shown = integers(key, (n, most), self.symbols, "repeat/symbols")
        step = torch.arange(length, device=device)[None]
        said = step - count - 1  # place in the answer
        answering = (said >= 0) & (said < count * repeats)
        y = torch.where(answering, shown.gather(1, said.clamp_min(0) % count) + 1, no_targets(n, length, device))
        y = torch.where(said == count * repeats, 0, y)
        symbol = shown.gather(1, step.clamp_max(most - 1).expand(n, -1))
        number = (step == count) * repeats / repeat_ends[1]
        x = torch.cat([encode(symbol, step < count, self.symbols, self.encoding), number[..., None]], -1)
        return x.to(torch.float32), y, (count * (1 + repeats) + 2)[:, 0] if self.varies else None
