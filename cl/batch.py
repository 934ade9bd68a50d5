"""What one optimisation step sees."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One batch; a plain tuple of tensors, so that it passes through `torch.func.vmap`.

    Attributes:
        x: (B, *input) float32, already transformed (permuted, rotated, normalised, augmented); int64 tokens for text.
        y: (B,) int64 output indices; (B, T) int64 for per-step targets (-100 = no target); (B, ...) float32 for
            regression.
        task: (B,) int64, the task each sample comes from. Strategies with ``needs_task_id = False`` may hand it on to
            `Strategy.criterion` (which knows what the scenario allows) and use it for nothing else.
        key: () int64, the step's key for `cl.seeding.uniform` and its kin.
        stored: (B, ...), the same samples as they are stored, where the stream augments, so that a memory can keep them
            and augment them anew (`cl.memory.kept_inputs`); elsewhere None, or x itself.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    key: Tensor
    stored: Tensor | None = None
