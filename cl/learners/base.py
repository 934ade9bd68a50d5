"""What every learner offers: blocks, features, a head, and gates on its units."""

import inspect
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cl.errors import ConfigError, expect
from cl.learners.coded import CodedHead

if TYPE_CHECKING:
    from cl.streams.base import StreamInfo

HEADS = ("auto", "single", "multi", "growing")
_AUTO = {"task": "multi", "domain": "single", "class": "growing", "online": "single"}


FACTS = ("input_shape", "n_classes", "vocabulary", "padded", "target", "codes")


def stream_facts(make: Callable[..., "Learner"], info: "StreamInfo") -> dict[str, Any]:
    """Return the facts of a stream (fields of `StreamInfo`) that a learner's constructor asks for by name."""
    try:
        asked = inspect.signature(make).parameters
    except (TypeError, ValueError):  # built without a Python signature
        return {}
    return {name: getattr(info, name) for name in FACTS if name in asked}


class Learner(nn.Module):
    """A backbone of blocks and a linear head over all outputs of the stream.

    Heads are rows of one linear layer: `multi` trains and asks only the rows of a sample's task (separate heads),
    `growing` the rows of the classes met so far (rows not yet met get no gradient, as if they were added later; weight
    decay alone shrinks them),
    `single` all rows from the start. `auto` takes multi / single / growing / single for task / domain / class / online.

    Subclasses set `blocks` (an `nn.ModuleList`; each ends in its activation), `head` and `widths` (units or channels at
    the end of each block), and may override `activations` and `pool`.

    Args:
        head: one of `HEADS`.
    """

    blocks: nn.ModuleList
    head: nn.Module
    widths: tuple[int, ...]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Learner":
        """Note what the learner is made with, for `fresh`."""
        self = super().__new__(cls)
        object.__setattr__(self, "_made_with", (args, kwargs))
        return self

    def __init__(self, head: str = "auto") -> None:
        super().__init__()
        expect(head in HEADS, "learner.head", f"in {list(HEADS)}", head)
        self.head_kind = head

    def arranged(self, x: Tensor) -> Tensor:
        """Return samples (B, *input) in the order in memory that the first block is quickest with; the values stay."""
        return x

    def activations(self, x: Tensor, gates: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the output of every block, gated.

        Args:
            x: (B, *input).
            gates: for each block, a tensor (width,) or (B, width) that multiplies its units or channels.

        Returns:
            one (B, width, ...) tensor a block.
        """
        outputs: list[Tensor] = []
        x = self.arranged(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if gates is not None:
                gate = gates[i]
                x = x * gate.reshape(*gate.shape, *(1 for _ in x.shape[2:]))
            outputs.append(x)
        return outputs

    def pool(self, x: Tensor) -> Tensor:
        """Turn the last block's output into features (B, D)."""
        return x.flatten(1)

    def features(self, x: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return what the head reads: (B, D)."""
        return self.pool(self.activations(x, gates)[-1])

    def forward(self, x: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return logits (B, C) over all outputs."""
        out: Tensor = self.head(self.features(x, gates))
        return out

    def head_rows(self, outputs: Tensor) -> Tensor:
        """Return which rows of the head's parameters make the given `outputs` ((C,) bool): (rows,) bool."""
        return self.head.rows(outputs) if isinstance(self.head, CodedHead) else outputs

    def fresh(self) -> "Learner":
        """Return a learner made with the same arguments, on the same device: newly initialised, sharing nothing.

        Draw its weights from a purpose of your own: ``with seeded(info.seed, "column", k): learner.fresh()``.
        """
        args, kwargs = deepcopy(self.__dict__["_made_with"])
        made = type(self)(*args, **kwargs)
        return made.to(next(self.parameters()).device)

    def size(self, build: Callable[[int], None], default: int, parameters: int | None) -> None:
        """Build the network at its default size, or at the size that has `parameters` parameters, within 2 %.

        Args:
            build: sets all modules for a size, 1 or more; more parameters for a larger size.
            default: the size where no budget is given.
            parameters: the budget, or None.

        Raises:
            ConfigError: no size is within 2 % of the budget.
        """
        if parameters is None:
            build(default)
            return
        low = self.largest(build, parameters)
        near_by = [(self._count(build, n), n) for n in (low + 1, low, low - 1) if n > 0]
        found, best = min(near_by, key=lambda c: abs(c[0] - parameters))
        near = abs(found - parameters) <= 0.02 * parameters
        expect(near, "learner.parameters", f"a size this network can have within 2 % (nearest: {found})", parameters)
        build(best)

    def largest(self, build: Callable[[int], None], parameters: int) -> int:
        """Return the largest size, at least 1, with which `build` makes at most `parameters` parameters.

        A size may have fewer parameters than the one before (a block as wide as its input needs no projection): it
        counts as if it had as many, so that the sizes just below it are not passed over.
        """
        expect(parameters > 0, "learner.parameters", "> 0 or null", parameters)

        def fits(size: int) -> bool:
            return self._count(build, size) <= parameters and (size == 1 or self._count(build, size - 1) <= parameters)

        high = 2
        while fits(high):
            high *= 2
        low = 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _count(self, build: Callable[[int], None], size: int) -> int:
        with torch.device("meta"):
            build(size)
        return sum(p.numel() for p in self.parameters())

    def head_for(self, info: "StreamInfo") -> str:
        """Return the head in force on a stream: ``single``, ``multi`` or ``growing``.

        Raises:
            ConfigError: several heads were asked for where all tasks share their labels.
        """
        if self.head_kind == "auto":
            return "single" if info.shared_labels else _AUTO[info.scenario]
        if self.head_kind != "single" and info.shared_labels:
            raise ConfigError(
                f"Expected `learner.head` in ['auto', 'single'] where tasks share their labels (scenario "
                f"{info.scenario!r}), got {self.head_kind!r}"
            )
        return self.head_kind
