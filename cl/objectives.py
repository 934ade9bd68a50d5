"""Losses and scores by kind of target, all of them per sample, so that importance and replay can weigh samples.

Kinds (`StreamInfo.target`): ``class`` (one label a sample), ``steps`` (one label a time step, -100 where there is
none) and ``real`` (regression). Outputs a task may not use are masked by a large negative finite number, which has
probability zero in a softmax and yet keeps products such as p * log q finite.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -1e9
IGNORE = -100
HALF = (torch.bfloat16, torch.float16)
NEAR = 0.04  # an error below it is none (Hochreiter and Schmidhuber 1997, the adding problem's criterion)


def mask_logits(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Replace the logits of outputs that are not `allowed` ((C,) or (B, C) bool; None = all) by `MASKED`.

    Args:
        logits: (B, C) or (B, T, C).
        allowed: (C,) or (B, C) bool, or None.
    """
    if allowed is None:
        return logits
    if allowed.dim() == 2 and logits.dim() == 3:
        allowed = allowed[:, None]
    return torch.where(allowed, logits, torch.full((), MASKED, dtype=logits.dtype, device=logits.device))


def full(outputs: Tensor) -> Tensor:
    """Return outputs of half precision as float32: autocast sees to it for one network, but not for stacked ones."""
    return outputs.float() if outputs.dtype in HALF else outputs


def per_sample_loss(logits: Tensor, y: Tensor, target: str) -> Tensor:
    """Return the loss of each sample: (B,).

    Args:
        logits: (B, C), (B, T, C) for ``steps``, (B, ...) for ``real``.
        y: targets as in `Batch`.
        target: ``class`` (cross-entropy), ``steps`` (mean cross-entropy over the steps that have a target) or ``real``
            (mean squared error).
    """
    if target == "class":
        return F.cross_entropy(full(logits), y, reduction="none")
    if target == "steps":
        # A softmax along the last dimension is several times as fast as along a middle one.
        flat = full(logits).flatten(0, 1)
        losses = F.cross_entropy(flat, y.flatten(), reduction="none", ignore_index=IGNORE).view_as(y)
        return losses.sum(1) / (y != IGNORE).sum(1).clamp_min(1)
    return (logits - y).square().flatten(1).mean(1)


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    student_allowed: Tensor | None = None,
    teacher_allowed: Tensor | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy between the softened outputs of a teacher and a student, per sample: (B,).

    -sum_c q_c log p_c with q = softmax(teacher / T), p = softmax(student / T) (Hinton, Vinyals and Dean 2015), averaged
    over the real time steps where there are steps. Its gradients shrink as 1 / T^2; multiply by T^2 to keep their size.

    Args:
        student: logits (B, C) or (B, T, C).
        teacher: logits of the same shape.
        temperature: T > 0.
        student_allowed: outputs of the student that take part, as in `mask_logits`.
        teacher_allowed: outputs of the teacher that take part, a subset of the student's.
        real: (B, T) bool, the steps that are not padding, or None for all.
    """
    student, teacher = full(student), full(teacher)
    target = (mask_logits(teacher, teacher_allowed) / temperature).softmax(-1)
    log_p = (mask_logits(student, student_allowed) / temperature).log_softmax(-1)
    losses = -(target * log_p).sum(-1)
    if real is not None:
        return (losses * real).sum(1) / real.sum(1).clamp_min(1)
    return losses.flatten(1).mean(1) if student.dim() > 2 else losses


def per_sample_score(logits: Tensor, y: Tensor, target: str) -> Tensor:
    """Return the score of each sample in [0, 1]: (B,) float32.

    ``class``: 1 if the arg max is the label; ``steps``: the fraction of steps with a target that are right;
    ``real``: 1 if every error is below `NEAR`.
    """
    if target == "class":
        return (logits.argmax(1) == y).float()
    if target == "steps":
        valid = y != IGNORE
        right = (logits.argmax(2) == y) & valid
        return right.sum(1) / valid.sum(1).clamp_min(1)
    return ((logits - y).abs().flatten(1).amax(1) < NEAR).float()


class Score:
    """Scores of samples by the kind of target of a stream, and the score of an answer that looks at no input.

    Where answers are in bits (`StreamInfo.codes`) a sample's score is the share of the bits asked for that are right,
    of a bit above a half in the most probable word; bits of other tasks' words count as wrong ones.

    Args:
        target: see `per_sample_score`.
        codes: the bits of each output, or None; see `StreamInfo`.
        own: outputs of one task.
        device: where scores are computed.
    """

    def __init__(
        self,
        target: str,
        codes: Sequence[tuple[int, ...] | None] | None,
        own: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.target, self.codes = target, None
        if codes is not None:
            asked = [word for word in codes if word is not None]
            words = [(0,) * len(asked[0]) if word is None else word for word in codes]
            self.codes = torch.tensor(words, device=device)
            self.width = (sum(codes[c] is not None for c in own) - 1).bit_length()

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the score of each sample: (B,) float32; arguments as in `per_sample_score`."""
        if self.codes is None:
            return per_sample_score(logits, y, self.target)
        valid = y != IGNORE
        wrong = (self.codes[logits.argmax(2)] != self.codes[y.clamp_min(0)]).sum(2).clamp_max(self.width)
        return 1 - (wrong * valid).sum(1) / (self.width * valid.sum(1).clamp_min(1))

    def chance(self, y: Tensor) -> float:
        """Return the score of an answer that looks at no input, told by the targets y of many samples.

        A guess among the classes that are asked for; half of the bits; of numbers, the best constant among them.

        >>> sums = torch.tensor([[0.2], [0.97], [1.0], [1.03]])
        >>> Score("real", None, (0,)).chance(sums), Score("class", None, (0, 1, 2)).chance(torch.tensor([1, 2, 2, 1]))
        (0.75, 0.5)
        """
        if self.codes is not None:
            return 0.5
        if self.target != "real":
            asked: Tensor = torch.unique(y[y != IGNORE])
            return 1 / max(len(asked), 1)
        numbers = y.flatten(1)
        near = [torch.cdist(some, numbers, p=torch.inf) < NEAR for some in torch.split(numbers, 1000)]
        return max(float(rows.float().mean(1).max()) for rows in near)
