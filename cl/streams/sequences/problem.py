"""What a generated sequence task is: a rule that draws any number of samples from a key."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cl.errors import ConfigError, expect
from cl.objectives import IGNORE
from cl.seeding import integers

ENCODINGS = ("one_hot", "bits", "tokens")
MOST_SYMBOLS = 65536
Drawn = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Problem(ABC):
    """A sequence task whose samples are drawn exactly by a rule. Its fields are what may differ between tasks.

    Class facts:
        target: ``class``, ``steps`` or ``real``.
        lag: the name of the field that says how far back the answer lies, and what that field counts; or None.
    """

    target: ClassVar[str] = "class"
    lag: ClassVar[tuple[str, str] | None] = None

    @property
    @abstractmethod
    def length(self) -> int:
        """Time steps T of the longest sample."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Features D of a step; 0 for tokens."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """What each output means: C names."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens, padding included; 0 for float inputs."""
        return 0

    @property
    def codes(self) -> tuple[tuple[int, ...] | None, ...] | None:
        """For each output its bits (None: never asked for) where answers are given in bits, else None."""
        return None

    @property
    def varies(self) -> bool:
        """True if samples differ in length."""
        return False

    @abstractmethod
    def draw(self, key: Tensor, n: int) -> Drawn:
        """Draw n samples from a key ().

        Returns:
            x (n, T, D) float32 or (n, T) int64 tokens; y (n,), (n, T) or (n, outputs); lengths (n,), or None if all
            samples have length T.
        """

    def fixed(self, seed: int, k: int) -> "Problem":
        """Return the problem of task k with what it draws once for the whole stream (an order, a code)."""
        return self

    @property
    def counts(self) -> str | None:
        """What the distance of `at` counts, e.g. "steps from cue to question"; None where the problem has none."""
        return None if self.lag is None else self.lag[1]

    def at(self, distance: int) -> "Problem":
        """Return the same problem with another distance between cue and use, in what `counts` says.

        Raises:
            ConfigError: the problem has no distance, or not this one.
        """
        if self.lag is None:
            raise ConfigError(f"Expected a problem with a distance between cue and use, got {type(self).__name__}")
        changed: Problem = replace(self, **{self.lag[0]: distance})
        return changed


def bounds(value: int | tuple[int, int] | list[int], name: str, low: int = 1) -> tuple[int, int]:
    """Return (low, high) of a field that is a number or a range [low, high], both included.

    Raises:
        ConfigError: it is neither, or below `low`.
    """
    ends = list(value) if isinstance(value, list | tuple) else [value, value]
    whole = len(ends) == 2 and all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
    rule = f"a whole number >= {low} or a range [low, high] of them"
    expect(whole and low <= ends[0] <= ends[1], name, rule, value)
    return ends[0], ends[1]


def alphabet(size: int, name: str = "stream.problems.symbols") -> None:
    """Refuse an alphabet that has no two symbols, or more than could ever be told apart."""
    expect(1 < size <= MOST_SYMBOLS, name, f"> 1 and <= {MOST_SYMBOLS}", size)


def within(key: Tensor, n: int, ends: tuple[int, int], purpose: str) -> Tensor:
    """Draw n whole numbers uniform in [low, high], both included: (n,) int64."""
    return ends[0] + integers(key, (n,), ends[1] - ends[0] + 1, purpose)


def symbol_features(symbols: int, encoding: str) -> int:
    """Return the number of features that a symbol takes: one each, or one a bit."""
    return symbols if encoding == "one_hot" else max(1, (symbols - 1).bit_length())


def encode(symbol: Tensor, shown: Tensor, symbols: int, encoding: str) -> Tensor:
    """Write symbols as features; all of them 0 where nothing is shown.

    Args:
        symbol: (n, T) int64 in [0, symbols).
        shown: (n, T) bool.
        symbols: how many there are.
        encoding: ``one_hot`` or ``bits``.
    """
    if encoding == "one_hot":
        visible = torch.where(shown, symbol, -1)
        return (visible[..., None] == torch.arange(symbols, device=symbol.device)).to(torch.float32)
    return (bits_of(symbol, symbol_features(symbols, encoding)) * shown[..., None]).to(torch.float32)


def bits_of(symbol: Tensor, width: int) -> Tensor:
    """Return the lowest `width` bits of whole numbers, the lowest first: (..., width) int64."""
    return symbol[..., None] >> torch.arange(width, device=symbol.device) & 1


def place(target: Tensor, where: Tensor, value: Tensor) -> Tensor:
    """Write value (n, L) into target (n, T) at steps `where` (n, L); steps outside [0, T) are left out."""
    inside = (where >= 0) & (where < target.shape[1])
    wide = torch.cat([target, target[:, :1]], 1)  # one more column takes what falls outside
    wide = wide.scatter(1, torch.where(inside, where, target.shape[1]), value.to(target.dtype))
    return wide[:, :-1]


def no_targets(n: int, length: int, device: torch.device) -> Tensor:
    """Return targets (n, T) that ask for nothing."""
    return torch.full((n, length), IGNORE, dtype=torch.long, device=device)
