"""Per-sample gradients of recurrent learners: how many are taken together depends on the length of the sequence."""

import torch

from cl.batch import Batch
from cl.importance import layers
from cl.importance.per_sample import FEW, at_once, gradient_powers
from cl.learners.recurrent import GRU
from cl.streams.base import StreamInfo
from strategies.naive import Naive


def build(length: int, hidden: int) -> tuple[Naive, Batch]:
    info = StreamInfo("class", 1, 3, ((0, 1, 2),), (length, 2), seed=0, shared_labels=False)
    torch.manual_seed(0)
    strategy = Naive(GRU((length, 2), 3, hidden=hidden), info).eval()
    strategy.enter(0)
    x, y = torch.randn(5, length, 2), torch.tensor([0, 1, 2, 0, 1])
    return strategy, Batch(x, y, torch.zeros(5, dtype=torch.long), torch.tensor(0))


def test_samples_alone_and_together_give_the_same_sums(monkeypatch):
    strategy, batch = build(6, 4)

    def sums() -> dict[str, torch.Tensor]:
        return gradient_powers(strategy, batch, lambda logits, b: strategy.per_sample(logits, b)[None], 2)

    parameters = {n: p for n, p in strategy.learner.named_parameters() if not n.startswith("head")}
    together = sums()
    assert at_once(strategy, parameters) > 5
    monkeypatch.setattr(layers, "CHUNK", 1)
    assert at_once(strategy, parameters) == 1
    alone = sums()
    assert set(alone) == set(together)
    for name, value in together.items():
        assert value.abs().max() > 0
        torch.testing.assert_close(alone[name], value)


def test_long_sequences_are_taken_one_sample_at_a_time():
    """784 steps of a GRU of 128 units: the gradients of one sample at all steps are 157 MB, of a batch 40 GB."""
    strategy, _ = build(784, 128)
    assert at_once(strategy, dict(strategy.learner.named_parameters())) == 1


def test_a_few_samples_are_not_worth_taking_together():
    strategy, _ = build(100, 128)
    parameters = dict(strategy.learner.named_parameters())
    room = layers.CHUNK // (100 * sum(p.numel() for p in parameters.values()))
    assert 1 < room < FEW
    assert at_once(strategy, parameters) == 1


def test_an_image_is_a_sequence_of_its_rows():
    """28 steps of 28 values, not one step (the channel) of 784."""
    info = StreamInfo("class", 1, 3, ((0, 1, 2),), (1, 28, 28), seed=0, shared_labels=False)
    rows = Naive(GRU((1, 28, 28), 3, hidden=64), info)
    parameters = dict(rows.learner.named_parameters())
    assert at_once(rows, parameters) == layers.CHUNK // (28 * sum(p.numel() for p in parameters.values()))
