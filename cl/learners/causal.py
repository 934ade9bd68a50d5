"""Does a learner look ahead? Asked by a trial, so that it holds for any learner, one of your own included."""

import torch

from cl.learners.base import Learner
from cl.seeding import generator
from cl.streams.base import StreamInfo

ROUNDING = 1e-4  # of the largest output: what a convolution by FFT moves at steps that it must not reach


@torch.no_grad()
def looks_ahead(learner: Learner, info: StreamInfo) -> bool:
    """Return True if outputs of the first half of a sequence change with the tokens of the second half.

    Args:
        learner: gives (B, T, C) for tokens (B, T); left as it is.
        info: of a stream of tokens with a label a step.
    """
    steps, half = info.input_shape[0], info.input_shape[0] // 2
    draw = generator(0, "causal")
    one = torch.randint(1, info.vocabulary, (4, steps), generator=draw)
    other = torch.randint(1, info.vocabulary, (4, steps), generator=draw)
    other[:, :half] = one[:, :half]
    training = learner.training
    learner.eval()
    a, b = learner(one), learner(other)
    learner.train(training)
    moved = (a[:, :half] - b[:, :half]).abs().amax() if half else torch.zeros(())
    return bool(moved > ROUNDING * a.abs().amax())
