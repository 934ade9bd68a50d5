"""Generated problems against plain-Python readers that solve them from the input alone."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from cl import objectives
from cl.errors import ConfigError
from cl.seeding import derive
from cl.streams.sequences import (
    Adding,
    AssociativeRecall,
    Copy,
    DelayedMatch,
    KeyValueRecall,
    NBack,
    PermutedCopy,
    RepeatCopy,
    Series,
)

KEY = torch.tensor(derive(0, "test"))
N = 300


def symbol(features, encoding):
    """Read a symbol back from its features."""
    return features.index(1) if encoding == "one_hot" else sum(int(b) << i for i, b in enumerate(features))


def samples(problem, n=N):
    x, y, lengths = problem.draw(KEY, n)
    assert x.shape[:2] == (n, problem.length)
    assert problem.vocabulary or x.shape[2] == problem.features
    for i in range(n):
        t = problem.length if lengths is None else int(lengths[i])
        assert problem.target != "steps" or set(y[i, t:].tolist()) <= {-100}
        yield x[i].tolist()[:t], y[i].tolist()[:t] if problem.target == "steps" else y[i]


@pytest.mark.parametrize("encoding", ["one_hot", "bits"])
@pytest.mark.parametrize("fields", [{}, {"distractors": True}, {"hold": False}, {"blanks": False}])
@pytest.mark.parametrize(("items", "delay"), [(4, 7), ((1, 5), 1), (3, (1, 9))])
def test_copy(encoding, fields, items, delay):
    problem = Copy(items, delay, 6, encoding, **fields)
    width = 6 if encoding == "one_hot" else 3
    seen = set()
    for x, y in samples(problem):
        go = next(t for t, step in enumerate(x) if step[width] == 1)
        if problem.distractors:
            said = [symbol(step[:width], encoding) for step in x if step[-1] == 1]
        else:
            said = [symbol(step[:width], encoding) for step in x[: len(x) - go - 1]]
        blank = 0 if problem.blanks else -100
        assert y == [blank] * (go + 1) + [s + 1 for s in said]
        assert [step[width] for step in x[go + 1 :]] == [float(problem.hold)] * len(said)
        seen.add((len(said), go - len(said) + 1))
    expected = [range(v, v + 1) if isinstance(v, int) else range(v[0], v[1] + 1) for v in (items, delay)]
    assert seen == {(i, d) for i in expected[0] for d in expected[1]}


def test_copy_is_that_of_bai_kolter_koltun():
    """Their generator: 10 digits of 1..8, T - 1 zeros, 11 nines; answers zeros, then the digits."""
    problem = Copy(10, 50, 8, "tokens")
    assert problem.length == 50 + 20
    for x, y in samples(problem, 50):
        theirs = [{1: 0, 2: 9}.get(t, t - 2) for t in x]
        assert set(theirs[:10]) <= set(range(1, 9))
        assert theirs[10:] == [0] * 49 + [9] * 11
        assert y == [0] * 60 + theirs[:10]


def test_memoryless_loss_of_copying():
    problem = Copy(10, 1000)
    _, y, _ = problem.draw(KEY, 4)
    logits = torch.full((4, problem.length, 9), -1e4)
    logits[:, :-10, 0] = 0  # blank, surely; then nothing but a guess
    logits[:, -10:, 1:] = 0
    loss = objectives.per_sample_loss(logits, y, "steps")
    torch.testing.assert_close(loss, torch.full((4,), 10 * math.log(8) / 1020))
    assert round(10 * math.log(8) / 1020, 4) == 0.0204


def test_permuted_copy_says_items_in_its_order():
    problem = PermutedCopy(items=5, delay=1, symbols=128, encoding="bits").fixed(3, 1)
    assert sorted(problem.permuted) == list(range(5))
    for x, y in samples(problem):
        said = [symbol(step[:7], "bits") + 1 for step in x[:5]]
        assert y[-5:] == [said[i] for i in problem.permuted]
    orders = {PermutedCopy(items=5, delay=1).fixed(0, k).permuted for k in range(10)}
    assert len(orders) > 7
    with pytest.raises(ConfigError, match=r"stream\.problems\.items"):
        PermutedCopy(items=(1, 5))


def test_repeat_copy():
    seen = set()
    for x, y in samples(RepeatCopy((1, 3), (1, 4), 8, "bits")):
        t = next(t for t, step in enumerate(x) if step[3] > 0)
        said, times = [symbol(step[:3], "bits") + 1 for step in x[:t]], round(x[t][3] * 4)
        assert y == [-100] * (t + 1) + said * times + [0]
        assert all(v == 0 for step in x[t + 1 :] for v in step)
        seen.add((len(said), times))
    assert len(seen) == 12


@pytest.mark.parametrize("pairs", [1, 3, 12])
def test_key_value_recall(pairs):
    found = []
    for x, y in samples(KeyValueRecall((2, 9), 12, pairs, keys=5, values=4), 2000):
        assert [step[9] for step in x] == [0] * 12 + [1]
        assert x[-1][5:9] == [0] * 4
        shown = {t: (step[:5].index(1), step[5:9].index(1)) for t, step in enumerate(x[:-1]) if any(step)}
        assert len(shown) == pairs
        question = x[-1][:5].index(1)
        (where,) = [t for t, (key, _) in shown.items() if key == question]
        assert shown[where][1] == int(y)
        found.append(12 - where)
    assert set(found) == set(range(2, 10))
    assert chisquare([found.count(d) for d in range(2, 10)]).pvalue > 1e-3


def test_recall_beyond_the_trained_length():
    longer = KeyValueRecall((1, 5), steps=8).at(40)
    x, _, _ = longer.draw(KEY, 10)
    assert x.shape[1] == 41
    assert torch.equal(x[:, 0, :8], x[:, -1, :8])


@pytest.mark.parametrize("encoding", ["one_hot", "bits"])
def test_associative_recall(encoding):
    asked = set()
    for x, y in samples(AssociativeRecall((2, 5), 2, 4, encoding), 500):
        width = len(x[0]) - 2
        items, question, t = [], None, 0
        while question is None:
            item = [symbol(step[:width], encoding) for step in x[t + 1 : t + 3]]
            if x[t][width] == 1:
                items.append(item)
            else:
                assert x[t][width + 1] == 1
                question = item
            t += 3
        assert x[t][width + 1] == 1
        assert len({tuple(i) for i in items}) == len(items)
        assert y == [-100] * (t + 1) + items[items.index(question) + 1]
        asked.add((len(items), items.index(question)))
    assert asked == {(n, i) for n in range(2, 6) for i in range(n - 1)}


def test_items_of_associative_recall_are_drawn_alike():
    x, _, _ = AssociativeRecall(3, 1, 5, "one_hot").draw(KEY, 5000)
    order = x[:, [1, 3, 5], :5].argmax(2)
    code = (order * torch.tensor([25, 5, 1])).sum(1).bincount(minlength=125)
    assert int((code > 0).sum()) == 5 * 4 * 3
    assert chisquare(code[code > 0].tolist()).pvalue > 1e-3


def test_delayed_match():
    delays = set()
    answers = []
    for x, y in samples(DelayedMatch((1, 4), stimuli=5, noise=0.0)):
        shown = [(t, step.index(1)) for t, step in enumerate(x) if 1 in step]
        assert len(shown) == 2
        assert shown[1][0] == 5
        assert int(y) == int(shown[0][1] == shown[1][1])
        delays.add(shown[1][0] - shown[0][0] - 1)
        answers.append(int(y))
    assert delays == {1, 2, 3, 4}
    assert 0.4 < sum(answers) / N < 0.6


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_back(n):
    yes = []
    for x, y in samples(NBack(n, 11, 4)):
        shown = [step.index(1) for step in x]
        assert y == [-100] * n + [int(shown[t] == shown[t - n]) for t in range(n, 11)]
        yes += y[n:]
    assert 0.45 < sum(yes) / len(yes) < 0.55


def test_adding():
    errors = []
    for x, y in samples(Adding(21), 3000):
        marked = [t for t, step in enumerate(x) if step[1] == 1]
        assert len(marked) == 2
        assert marked[0] < 10 <= marked[1]
        torch.testing.assert_close(y, torch.tensor([x[marked[0]][0] + x[marked[1]][0]]))
        errors.append((float(y) - 1) ** 2)
    assert abs(sum(errors) / len(errors) - 1 / 6) < 0.01


@pytest.mark.parametrize("dynamics", ["sine", "square", "sawtooth", "chirp", "autoregressive", "logistic", "lorenz"])
def test_series_follow_their_rule(dynamics):
    x, y, _ = Series(dynamics, steps=40, horizon=3, period=10.0, noise=0.0).draw(KEY, 20)
    assert y.shape == (20, 3)
    whole = torch.cat([x[..., 0], y], 1)
    assert float(whole.abs().max()) < 6
    assert torch.isfinite(whole).all()
    if dynamics in ("square", "sawtooth", "sine"):
        torch.testing.assert_close(whole[:, 10:], whole[:, :-10], atol=3e-2 if dynamics != "square" else 2.1, rtol=0)
    if dynamics == "logistic":
        unit = (whole + 1) / 2
        torch.testing.assert_close(unit[:, 1:6], 3.8 * unit[:, :5] * (1 - unit[:, :5]), atol=1e-4, rtol=0)
    if dynamics == "autoregressive":
        a, b = 2 * 0.95 * math.cos(2 * math.pi / 10), -(0.95**2)
        torch.testing.assert_close(whole[:, 40:], a * whole[:, 39:42] + b * whole[:, 38:41], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "problem",
    [Copy(3, 4), RepeatCopy(), KeyValueRecall(), AssociativeRecall(), DelayedMatch(), NBack(), Adding(10), Series()],
)
def test_draws_are_a_function_of_the_key(problem):
    before = torch.get_rng_state()
    one, two, other = problem.draw(KEY, 50), problem.draw(KEY, 50), problem.draw(KEY + 1, 50)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    if problem.counts is None:
        with pytest.raises(ConfigError, match="distance"):
            problem.at(3)
    else:
        assert problem.at(7).draw(KEY, 2)[0].shape[0] == 2


def shown(x):
    """Return at which steps of a sample (T, D) something is shown."""
    return x.abs().sum(1).nonzero()[:, 0]


@pytest.mark.parametrize("distance", [1, 4, 9])
def test_a_distance_counts_what_the_problem_says(distance):
    x, y, _ = Copy(3, 5, encoding="one_hot").at(distance).draw(KEY, 4)
    assert Copy().counts == "steps from the last item to the go signal"
    assert x[0, :, 8].nonzero()[0].item() - 2 == distance  # items at 0, 1, 2
    assert Copy(distance="items").counts == "items to say again"
    x, y, _ = Copy(3, 5, distance="items").at(distance).draw(KEY, 4)
    assert ((y > 0).sum(1) == distance).all()
    x, y, _ = KeyValueRecall(steps=12, pairs=1).at(distance).draw(KEY, 4)
    assert KeyValueRecall().counts == "steps from cue to question"
    assert [shown(sample).diff().item() for sample in x] == [distance] * 4
    x, y, _ = DelayedMatch(noise=0.0).at(distance).draw(KEY, 4)
    assert DelayedMatch().counts == "steps between sample and test"
    assert [shown(sample).diff().item() - 1 for sample in x] == [distance] * 4
    x, y, _ = NBack().at(distance).draw(KEY, 4)
    assert NBack().counts == "steps back"
    same = (x[:, distance:].argmax(2) == x[:, :-distance].argmax(2)).long()
    assert torch.equal(y[:, distance:], same)
    x, _, _ = Adding().at(distance + 1).draw(KEY, 4)
    assert Adding().counts == "steps of the sequence"
    assert x.shape[1] == distance + 1


def test_at_a_distance_copying_asks_for_the_items_alone():
    """An answer of blanks would be right at all but the last steps, and at more of them the longer the delay."""
    problem = Copy(3, 5)
    _, y, _ = problem.at(9).draw(KEY, 20)
    assert ((y == -100).sum(1) == y.shape[1] - 3).all()
    assert not (y == 0).any()
    published = Copy((1, 20), 1, 256, "bits", False, False, False, "bits", "items")
    assert published.at(80) == replace(published, items=80)  # as the published task asks


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Copy(items=0), r"stream\.problems\.items"),
        (lambda: Copy(delay=(5, 2)), r"stream\.problems\.delay"),
        (lambda: Copy(symbols=1), r"stream\.problems\.symbols"),
        (lambda: Copy(encoding="words"), r"stream\.problems\.encoding"),
        (lambda: KeyValueRecall(distance=0), r"stream\.problems\.distance"),
        (lambda: AssociativeRecall(items=(1, 3)), r"stream\.problems\.items"),
        (lambda: AssociativeRecall(items=9, width=1, symbols=8), r"stream\.problems\.symbols"),
        (lambda: AssociativeRecall(width=12, symbols=64), r"stream\.problems\.width` in 1 to 6 .*got 12"),
        (lambda: AssociativeRecall(width=10**12), r"stream\.problems\.width"),
        (lambda: AssociativeRecall(symbols=-8, width=2), r"stream\.problems\.symbols"),
        (lambda: Copy(symbols=2**63), r"stream\.problems\.symbols"),
        (lambda: RepeatCopy(symbols=10**12), r"stream\.problems\.symbols"),
        (lambda: NBack(symbols=10**12), r"stream\.problems\.symbols"),
        (lambda: KeyValueRecall(values=10**12), r"stream\.problems\.values"),
        (lambda: KeyValueRecall(distance=(1.5, 2.5)), r"stream\.problems\.distance` a whole number"),
        (lambda: KeyValueRecall(distance=["a", "b"]), r"stream\.problems\.distance` a whole number"),
        (lambda: KeyValueRecall(distance="ab"), r"stream\.problems\.distance` a whole number"),
        (lambda: DelayedMatch(delay=(True, 3)), r"stream\.problems\.delay` a whole number"),
        (lambda: DelayedMatch(stimuli=10**12), r"stream\.problems\.stimuli"),
        (lambda: NBack(n=0), r"stream\.problems\.n"),
        (lambda: Adding(1), r"stream\.problems\.steps"),
        (lambda: Series("noise"), r"stream\.problems\.dynamics"),
    ],
)
def test_impossible_problems(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_the_largest_items_of_associative_recall_are_numbers_of_their_own():
    """Just below the limit nothing overflows: all items of a sequence differ, and all symbols occur."""
    problem = AssociativeRecall(items=4, width=6, symbols=64, encoding="one_hot")
    x = problem.draw(KEY, 200)[0]
    shown = x[:, : 4 * 7].reshape(200, 4, 7, -1)[:, :, 1:, :64]
    assert shown.sum(3).eq(1).all()
    items = shown.argmax(3)
    for a in range(4):
        for b in range(a):
            assert (items[:, a] != items[:, b]).any(1).all()
    assert len(items.unique()) == 64
