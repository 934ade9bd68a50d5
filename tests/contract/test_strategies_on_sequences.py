"""Strategies on streams of sequences: a label a step with padding, tokens, regression; held to the same contract."""

import dataclasses
import functools
import importlib

import pytest
import torch

from cl import objectives
from cl.batch import Batch
from cl.errors import ConfigError
from cl.learners.dnc import DNC
from cl.learners.hybrid import Hybrid
from cl.learners.recurrent import GRU, LSTM
from cl.learners.ssm import StateSpace
from cl.learners.tcn import TCN
from cl.learners.transformer import Transformer
from cl.seeding import step_keys
from cl.streams.sequences import Copy, GeneratedStream, Series
from cl.testing import tiny
from strategies.der import DER
from strategies.derpp import DERpp
from strategies.dgr import DGR
from strategies.er_ace import ERACE
from strategies.gdumb import GDumb
from strategies.generative_classifier import GenerativeClassifier
from strategies.icarl import ICaRL
from strategies.ogd import OGD
from strategies.progressive import Progressive

checks = importlib.import_module("cl.testing.checks")  # the package has a function of that name
PROBLEMS = {
    "steps": [Copy(2, 1, 4, blanks=False), Copy(1, 2, 4, blanks=False), Copy(2, 2, 4, blanks=False)],
    "tokens": [Copy(2, 1, 4, encoding="tokens"), Copy(1, 2, 4, encoding="tokens"), Copy(2, 2, 4, encoding="tokens")],
    "real": [Series(kind, 6, 2) for kind in ("sine", "sawtooth", "square")],
}
REPLAY = [(DER, {"alpha": 0.5}), (DERpp, {"alpha": 0.5, "beta": 0.5}), (ERACE, {"replay_weight": 0.5})]


def stream_of(kind, scenario="domain", seed=0, samples=40):
    return GeneratedStream(PROBLEMS[kind], None, scenario, samples=samples // 2, test_samples=20, seed=seed)


def facts(info):
    names = ("input_shape", "n_classes", "vocabulary", "padded", "target", "codes")
    return {name: getattr(info, name) for name in names}


class Exact(GRU):
    """Reads in the precision of its weights: the streams are in single precision."""

    def read(self, x):
        steps, real = super().read(x)
        return steps.to(self.head.weight.dtype), real


def gru(info):
    return Exact(**facts(info), hidden=12, embedding=6)


SHORT, WHOLE = ("same_seed", "neutral", "bytes"), ("same_seed", "resume", "population", "neutral", "bytes")
CASES = [(*pair, "steps", check) for pair in [*REPLAY, (Progressive, {"scale": 0.5})] for check in WHOLE]
CASES += [(*pair, "tokens", check) for pair in [*REPLAY, (Progressive, {"scale": 0.5})] for check in SHORT]
CASES += [(*pair, "real", check) for pair in REPLAY[:2] for check in WHOLE]


class ExactDGR(DGR):
    """Generates in the precision of its weights, as `Exact` reads."""

    def generator_loss(self, x, key, purpose):
        return super().generator_loss(x.to(self.generator.mean.weight.dtype), key, purpose)


ALONE = [(ExactDGR, {"hidden": (8,), "latent": 3}), (OGD, {"samples": 3})]
CASES += [(*pair, "steps", check) for pair in ALONE for check in ("resume", "population", "bytes")]
CASES = [case for case in CASES if case[0].neutral is not None or case[3] != "neutral"]
each = pytest.mark.parametrize(
    ("strategy", "fields", "kind", "check"), CASES, ids=[f"{s.__name__}-{kind}-{check}" for s, _, kind, check in CASES]
)


@each
def test_contract(strategy, fields, kind, check, monkeypatch):
    class One(strategy):
        """In one scenario, for speed."""

        scenarios = ("task",) if strategy is Progressive else ("domain",)

    monkeypatch.setattr(checks, "TinyStream", functools.partial(stream_of, kind))
    for name in ("engine", "train"):
        monkeypatch.setattr(checks, name, functools.partial(getattr(tiny, name), make_learner=gru))
    getattr(checks, f"check_{check}")(One, fields | dict(strategy.small))


class TinyRows(tiny.TinyStream):
    """The tiny images read row by row, with one label a sample."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._x = self._x[:, 0]
        self.info = dataclasses.replace(self.info, input_shape=(4, 4), sequence=True)


@pytest.mark.parametrize("check", ["same_seed", "resume", "population", "bytes"])
def test_contract_of_a_recurrent_generator(check, monkeypatch):
    class One(DGR):
        """In one scenario, for speed."""

        scenarios = ("class",)

    def rows(*args, samples=40, **options):
        return TinyRows(*args, samples=samples // 4, **options)

    monkeypatch.setattr(checks, "TinyStream", rows)
    for name in ("engine", "train"):
        monkeypatch.setattr(checks, name, functools.partial(getattr(tiny, name), make_learner=gru))
    getattr(checks, f"check_{check}")(One, {"hidden": (8,), "latent": 3, "generator": "recurrent"})


def made(strategy, kind, scenario="domain", **fields):
    """Return a strategy in the second task of a stream, a batch of the first that it remembers, and a new one."""
    stream = stream_of(kind, scenario)
    one = tiny.engine(strategy, stream, make_learner=gru, **{"memory_size": 8} | fields).strategy
    keys = step_keys(0, 0, 0, 2)
    first, second = (stream[k].train.batch(torch.arange(8), keys[k]) for k in range(2))
    one.enter(0)
    result = one.loss(first)
    one.remember(first, result[1] if isinstance(result, tuple) else {})
    with torch.no_grad():
        for p in one.learner.parameters():
            p.mul_(1.3)
    one.enter(1)
    return one, first, second


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_der_matches_the_steps_that_have_a_label(scenario):
    der, first, batch = made(DER, "steps", scenario, alpha=0.7)
    fields, valid = der.memory.sample(8, batch.key, purpose="logits")
    assert valid.all()
    assert der.memory["logits"].shape == (8, *first.y.shape[1:], der.info.n_classes)
    new, past = der.logits(fields["x"]).detach(), []
    outputs = {"domain": der.info.n_classes, "task": 5, "class": 10}[scenario]
    for i in range(8):
        steps = [t for t in range(first.y.shape[1]) if fields["y"][i, t] != objectives.IGNORE]
        assert 0 < len(steps) < first.y.shape[1]
        squares = [(new[i, t, c] - fields["logits"][i, t, c]) ** 2 for t in steps for c in range(outputs)]
        past.append(sum(squares) / len(squares))
    expected = der.criterion(der.logits(batch.x), batch) + 0.7 * sum(past) / 8
    torch.testing.assert_close(der.loss(batch)[0], expected)
    assert sum(past) > 1e-3


def test_der_matches_outputs_in_regression():
    der, _, batch = made(DERpp, "real", alpha=0.7, beta=0.4)
    past, labels = (der.memory.sample(8, batch.key, purpose=p)[0] for p in ("logits", "labels"))
    distance = (der.logits(past["x"]).detach() - past["logits"]).square().mean()
    expected = (der.logits(batch.x) - batch.y).square().mean() + 0.7 * distance
    expected = expected + 0.4 * (der.logits(labels["x"]) - labels["y"]).square().mean()
    torch.testing.assert_close(der.loss(batch)[0], expected)
    assert distance > 1e-5


def test_er_ace_ranks_the_new_among_the_labels_of_all_steps():
    ace, _, batch = made(ERACE, "steps", replay_weight=2.0)
    y = torch.where(batch.y == 4, 3, batch.y)
    batch = Batch(batch.x, y, batch.task, batch.key)
    fields, _ = ace.recall(batch)
    among = torch.isin(torch.arange(5), y)
    assert among.tolist() == [False, True, True, True, False]

    def loss(x, y, among):
        total = 0.0
        for logits, labels in zip(ace.logits(x), y, strict=True):
            asked = labels != objectives.IGNORE
            scores = torch.where(among, logits[asked], -torch.inf).log_softmax(1)
            total = total - scores[torch.arange(len(scores)), labels[asked]].mean()
        return total / len(y)

    expected = loss(batch.x, y, among) + 2 * loss(fields["x"], fields["y"], torch.full((5,), True))
    torch.testing.assert_close(ace.loss(batch), expected)


def test_what_is_dreamed_is_labelled_step_by_step_but_for_padding():
    stream, fields = stream_of("steps"), {"hidden": (8,), "latent": 3, "weighting": "sum", "temperature": 2.0}
    dgr = tiny.engine(DGR, stream, make_learner=gru, **fields).strategy
    batch = stream[1].train.batch(torch.arange(8), step_keys(0, 0, 0, 1)[0])
    dgr.grow(1)
    dgr.enter(1)
    with torch.no_grad():
        for p in dgr.teacher.parameters():
            p.mul_(2.0)
    x = dgr.dreamer.sample(8, batch.key, "dream")
    real = x[..., -1] > 0.5
    assert real.any()
    assert not real.all()
    old, new = dgr.teacher(x), dgr.learner(x)
    replay, logits = dgr.dream(dgr.teacher, dgr.dreamer, batch)
    torch.testing.assert_close(logits, old)
    assert replay.y.tolist() == torch.where(real, old.argmax(2), objectives.IGNORE).tolist()
    past = 0.0
    for i in range(8):
        steps = [-((old[i, t] / 2).softmax(0) * (new[i, t] / 2).log_softmax(0)).sum() for t in real[i].nonzero()[:, 0]]
        past = past + 4 * sum(steps) / max(len(steps), 1) / 8
    own = dgr.generator_loss(batch.x, batch.key, "new") + dgr.generator_loss(x, batch.key, "replay")
    torch.testing.assert_close(dgr.loss(batch), dgr.criterion(dgr.logits(batch.x), batch) + own + past)


@pytest.mark.parametrize("outputs", ["label", "all"])
def test_ogd_stores_the_gradients_of_outputs_at_a_labelled_step(outputs):
    one = tiny.engine(OGD, stream_of("steps"), make_learner=gru, samples=4, outputs=outputs).strategy
    stream = stream_of("steps")
    one.end_task(stream[0])
    rows = 4 if outputs == "label" else 4 * one.info.n_classes
    assert len(one.basis) == rows
    batch = stream[0].train.batch(torch.arange(len(stream[0].train)), step_keys(0, 0, 0, 1)[0])
    inside = set()
    for i, logits in enumerate(one.logits(batch.x)):
        for t in (batch.y[i] != objectives.IGNORE).nonzero()[:, 0]:
            found = torch.autograd.grad(logits[t, batch.y[i, t]], list(one.learner.parameters()), retain_graph=True)
            g = torch.cat([part.flatten() for part in found])
            if (g - one.basis.T @ (one.basis @ g)).norm() < 1e-3 * g.norm():
                inside.add((tuple(batch.x[i].flatten().tolist()), int(t)))  # some samples are the same
    assert len(inside) == 4 * int(one.basis.any(1).sum()) / rows


@pytest.mark.parametrize("strategy", [GDumb, ICaRL, GenerativeClassifier])
def test_strategies_that_need_a_class_a_sample_refuse_a_label_a_step(strategy):
    stream = stream_of("steps", "class")
    with pytest.raises(ConfigError, match=r"^Expected `stream` with one label a sample for \w+, got 'steps'$"):
        tiny.engine(strategy, stream, make_learner=gru)


def test_er_ace_refuses_regression_in_words_a_user_knows():
    with pytest.raises(ConfigError, match="Expected `stream` with classes"):
        tiny.engine(ERACE, stream_of("real"), make_learner=gru)


COLUMNS = {
    "lstm": lambda info: LSTM(**facts(info), hidden=6, layers=2, bidirectional=True, reading="attention"),
    "gru": lambda info: GRU(**facts(info), hidden=6, layers=3, residual=True),
    "transformer": lambda info: Transformer(**facts(info), width=8, heads=2),
    "tcn": lambda info: TCN(**facts(info), channels=5, levels=2, kernel=2),
    "s4d": lambda info: StateSpace(**facts(info), width=6, states=4),
    "hybrid": lambda info: Hybrid(**facts(info), channels=3, kernels=(2, 3), hidden=6),
    "dnc": lambda info: DNC(**facts(info), hidden=6, slots=4, slot_size=3),
}


def columns(name, kind):
    one = tiny.engine(Progressive, stream_of(kind, "task"), make_learner=COLUMNS[name], scale=1.0).strategy
    for k in range(3):
        one.grow(k)
        one.enter(k)
    return one.eval()


@pytest.mark.parametrize("name", list(COLUMNS))
def test_columns_are_the_formula_of_the_paper_at_every_step(name):
    """Block by block: V a mixing of units at each step, U the weights of what it enters."""
    one = columns(name, "steps")
    x = stream_of("steps", "task")[0].train.batch(torch.arange(4), step_keys(0, 0, 0, 1)[0]).x
    hidden = []
    for c, column in enumerate([*one.earlier, one.learner]):
        (h, real), own = column.read(x), []
        for i, block in enumerate(column.blocks):
            if c > 0 and i > 0:
                h = h + mixed(one.laterals[c - 1][i - 1], [below[i - 1] for below in hidden])
            h = block(h, real)
            own.append(h)
        logits = column.head(column.pool(h, real))
        if c > 0:
            z = column.pool(mixed(one.laterals[c - 1][-1], [below[-1] for below in hidden]), real)
            logits = logits + z @ one.laterals[c - 1][-1].project.weight.T
        hidden.append(own)
        torch.testing.assert_close(one.column(c, x), logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one.column(2, x), one.learner(x), atol=1e-3)
    for module in one.laterals[1]:
        module.alpha.data.zero_()
    torch.testing.assert_close(one.column(2, x), one.learner(x))


def mixed(lateral, below):
    scaled = torch.cat([a * h for a, h in zip(lateral.alpha, below, strict=True)], 1).transpose(1, 2)
    return (scaled @ lateral.reduce.T).relu().transpose(1, 2)


@pytest.mark.parametrize("name", list(COLUMNS))
def test_padding_reaches_no_answer_of_a_later_column(name):
    one = columns(name, "tokens")
    x = stream_of("tokens", "task")[1].train.batch(torch.arange(4), step_keys(0, 1, 0, 1)[0]).x
    real = int((x != 0).sum(1).max())
    assert real < x.shape[1]
    torch.testing.assert_close(one.column(2, x)[:, :real], one.column(2, x[:, :real]), rtol=1e-4, atol=1e-5)


def test_the_first_column_never_forgets_a_label_a_step():
    made = tiny.train(Progressive, stream_of("steps", "task"), make_learner=COLUMNS["gru"], epochs=2)
    assert made.record.accuracy[1, 0] == made.record.accuracy[3, 0]


def test_a_learner_of_sequences_that_runs_its_own_way_is_refused():
    class Odd(GRU):
        def through(self, x, real, gates=None):
            return super().through(x, real, gates)

    with pytest.raises(ConfigError, match=r"learner.*Odd"):
        tiny.engine(Progressive, stream_of("steps", "task"), make_learner=lambda info: Odd(**facts(info)))
