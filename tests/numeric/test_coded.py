"""Answers in bits: a softmax over all words is a product of sigmoids."""

import pytest
import torch
import torch.nn.functional as F

from cl.errors import ConfigError
from cl.learners.coded import CodedHead
from cl.learners.recurrent import RNN
from cl.objectives import Score, per_sample_score
from cl.seeding import seeded
from cl.streams.sequences import Copy, GeneratedStream, PermutedCopy
from strategies.naive import Naive

SMALL = {"samples": 30, "test_samples": 10}


def stream(scenario="domain", tasks=1, **options):
    problem = PermutedCopy(4, 1, 8, "bits", hold=False, blanks=False, answers="bits")
    return GeneratedStream([problem], tasks, scenario, **{**SMALL, **options})


def learner(info, **options):
    with seeded(0, "learner"):
        facts = {n: getattr(info, n) for n in ("input_shape", "n_classes", "padded", "target", "codes")}
        return RNN(**facts, hidden=7, **options)


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_the_loss_is_the_sum_of_binary_cross_entropies_and_the_answer_the_bits_above_a_half(scenario):
    """Against torch's own loss of the bits as they were shown, in the tasks' orders."""
    s = stream(scenario, 3)
    strategy = Naive(learner(s.info), s.info)
    heads = 3 if scenario == "task" else 1
    assert strategy.learner.head.bits.out_features == 3 * heads
    for k in range(3):
        batch = next(iter(s[k].train.in_order(30)))
        shown = batch.x[:, :4, :3]  # step, bit
        order = list(s.problems[k].permuted)
        said = shown[:, order]
        outputs = strategy.learner.head.bits(strategy.learner.features(batch.x))[:, -4:]
        own = outputs[..., 3 * k : 3 * k + 3] if scenario == "task" else outputs
        expected = F.binary_cross_entropy_with_logits(own, said, reduction="none").sum(2).mean()
        strategy.tasks_seen.fill_(k)
        torch.testing.assert_close(strategy.loss(batch), expected)
        scores = strategy.predict(batch.x, k if scenario == "task" else None)
        score = Score("steps", s.info.codes, s.info.task_classes[k])
        right = (own > 0) == (said > 0.5)
        torch.testing.assert_close(score(scores, batch.y), right.float().mean((1, 2)))
        torch.testing.assert_close(per_sample_score(scores, batch.y, "steps"), right.all(2).float().mean(1))
        assert score.chance(batch.y) == 0.5


def test_gradients_of_other_tasks_bits_are_zero():
    s = stream("task", 3)
    strategy = Naive(learner(s.info), s.info)
    strategy.loss(next(iter(s[1].train.in_order(30)))).backward()
    moved = strategy.learner.head.bits.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert strategy.learner.head_rows(strategy.task_classes[1]).tolist() == moved.tolist()


def test_a_budget_of_parameters_counts_the_bits():
    s = stream()
    net = learner(s.info, parameters=5000)
    assert abs(sum(p.numel() for p in net.parameters()) - 5000) <= 100
    assert net.fresh().head.bits.out_features == 3


def test_what_is_never_asked_for_is_never_said():
    head = CodedHead(2, (None, (0,), (1,)))
    assert head(torch.zeros(5, 2)).softmax(1)[:, 0].max() == 0


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"symbols": 6}, r"problems\.symbols.*power of 2"),
        ({"symbols": 8, "blanks": True}, r"problems\.blanks"),
        ({"answers": "words"}, r"problems\.answers"),
    ],
)
def test_answers_in_bits_need_whole_words(fields, name):
    with pytest.raises(ConfigError, match=name):
        Copy(**{"blanks": False, "answers": "bits", **fields})
