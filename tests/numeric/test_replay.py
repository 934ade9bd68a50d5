"""The losses of the replay methods against plain numpy recomputations from what was recalled."""

import numpy as np
import pytest
import torch

from cl.batch import Batch
from cl.errors import ConfigError
from cl.learners.mlp import MLP
from cl.learners.recurrent import GRU
from cl.seeding import seeded, step_keys
from cl.testing import TinyStream, train
from cl.testing.tiny import TinySequences
from strategies.agem import AGEM
from strategies.der import DER
from strategies.derpp import DERpp
from strategies.er import ER
from strategies.er_ace import ERACE
from strategies.mir import MIR
from strategies.rehearsal import Rehearsal


def made(kind, scenario="class", memory_size=12, head="auto", **fields):
    """A strategy in the second task of TinyStream, its memory full of the first; the next batch; the stream."""
    stream = TinyStream(scenario)
    with seeded(0, "learner"):
        learner = MLP(stream.info.input_shape, stream.info.n_classes, hidden=(8,), head=head)
    strategy = kind(learner, stream.info, memory_size=memory_size, **fields)
    keys = step_keys(0, 0, 0, 9)
    strategy.enter(0)
    with torch.no_grad():
        for i in range(5):
            batch = stream[0].train.batch(torch.arange(16 * i, 16 * i + 16), keys[i])
            _, aux = strategy.training_loss(batch)
            strategy.remember(batch, aux)
            for p in strategy.learner.parameters():
                p.add_(0.05)
    strategy.enter(1)
    return strategy, stream[1].train.batch(torch.arange(30, 50), keys[8]), stream


def cross_entropy(logits, y, allowed):
    """Mean cross-entropy over allowed outputs, in float64: logits (n, C), y (n,), allowed (n, C) or (C,)."""
    logits = np.where(allowed, logits.detach().double().numpy(), -np.inf)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log_p[np.arange(len(y)), y.numpy()]


@pytest.mark.parametrize(
    ("weighting", "weight", "expected"),
    [
        ("mean", 1.0, lambda a, b: (20 * a + 10 * b) / 30),
        ("sum", 0.7, lambda a, b: a + 0.7 * b),
        ("share", 0.25, lambda a, b: 0.75 * a + 0.25 * b),
        ("tasks", 1.0, lambda a, b: a / 2 + b / 2),
    ],
)
def test_er_weightings(weighting, weight, expected):
    er, batch, _ = made(ER, weighting=weighting, replay_weight=weight, replay_batch=10)
    fields, valid = er.recall(batch)
    assert valid.all()
    met = np.arange(6) < 4
    current = cross_entropy(er.logits(batch.x), batch.y, met).mean()
    replay = cross_entropy(er.logits(fields["x"]), fields["y"], met).mean()
    assert abs(current - replay) > 0.01
    assert float(er.loss(batch).detach()) == pytest.approx(expected(current, replay), rel=1e-5)


@pytest.mark.parametrize("weighting", ["mean", "sum", "share", "tasks"])
def test_an_empty_memory_weighs_nothing(weighting):
    stream = TinyStream("class")
    er = ER(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, weighting=weighting, replay_weight=0.5)
    er.enter(1)
    batch = stream[1].train.batch(torch.arange(20), step_keys(0, 0, 0, 1)[0])
    torch.testing.assert_close(er.loss(batch), er.criterion(er.logits(batch.x), batch))


@pytest.mark.parametrize("kind", [ER, MIR, DER])
def test_er_recalls_earlier_tasks_alone(kind):
    er, batch, _ = made(kind, recall_from="earlier", memory_size=200, replay_batch=30)
    first = er.memory["x"][er.memory.filled]  # all 80 samples of the first task
    with torch.no_grad():
        er.remember(batch, {"logits": torch.zeros(20, 6)})  # 20 of the second
    assert int(er.memory.filled.sum()) == 100
    for step in range(5):
        now = batch._replace(key=step_keys(0, 1, step, 1)[0], x=batch.x[:30], y=batch.y[:30])
        fields, valid = er.drawn(now, "logits") if kind is DER else er.recall(now)
        assert valid.all()
        assert (fields["x"][:, None] == first[None]).flatten(2).all(2).any(1).all()
    er.enter(2)
    fields, _ = er.recall(batch)
    assert not (fields["x"][:, None] == first[None]).flatten(2).all(2).any(1).all()


def test_balanced_draws_give_every_class_the_same_chance():
    """Of a task of two classes, one with three times the samples of the other."""
    stream = TinyStream("class")
    er = ER(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, memory_size=30, draw="balanced")
    er.remember(stream[0].train.batch(torch.arange(28, 44), step_keys(0, 0, 0, 1)[0]), {})
    y = er.memory["y"][:16]
    assert torch.bincount(y).tolist() == [12, 4]
    torch.testing.assert_close(er.chances()[:16], torch.where(y == 0, 1 / 12, 1 / 4))


@pytest.mark.parametrize("kind", [ER, AGEM])
def test_a_ring_keeps_the_last_samples_of_each_class_of_each_task(kind):
    stream = TinyStream("domain")
    er = kind(MLP((1, 4, 4), 2, hidden=(8,)), stream.info, memory_size=2, per="both", memory="ring", groups="both")
    offered = []
    for k in range(3):
        er.enter(k)
        batch = stream[k].train.batch(torch.arange(80), step_keys(0, k, 0, 1)[0])
        with torch.no_grad():
            er.remember(batch, {})
        offered += [batch.x[batch.y == c][-2:] for c in (0, 1)]
    for i, expected in enumerate(offered):
        kept = er.memory["x"][2 * i : 2 * i + 2]
        assert sorted(kept.flatten(1).sum(1).tolist()) == sorted(expected.flatten(1).sum(1).tolist())


def test_er_in_the_task_scenario_uses_the_head_of_each_sample():
    er, batch, _ = made(ER, "task", weighting="sum")
    fields, _ = er.recall(batch)
    current = cross_entropy(er.logits(batch.x), batch.y, np.isin(np.arange(6), [2, 3])).mean()
    replay = cross_entropy(er.logits(fields["x"]), fields["y"], np.isin(np.arange(6), [0, 1])).mean()
    assert float(er.loss(batch).detach()) == pytest.approx(current + replay, rel=1e-5)


def test_er_ace_is_asymmetric():
    ace, batch, _ = made(ERACE, replay_weight=2.0, head="single")
    batch = Batch(batch.x[:6], torch.tensor([2, 3, 3, 3, 2, 3]), batch.task[:6], batch.key)
    fields, _ = ace.recall(batch)
    current = cross_entropy(ace.logits(batch.x), batch.y, np.isin(np.arange(6), [2, 3])).mean()
    replay = cross_entropy(ace.logits(fields["x"]), fields["y"], np.full(6, True)).mean()
    assert float(ace.loss(batch).detach()) == pytest.approx(current + 2 * replay, rel=1e-5)


def test_der_replays_logits():
    der, batch, _ = made(DER, alpha=0.3, head="single")
    loss, aux = der.loss(batch)
    fields, valid = der.memory.sample(20, batch.key, purpose="logits")
    assert len(valid) == 12
    new = der.logits(fields["x"]).detach().numpy()
    squares = ((new - fields["logits"].numpy()) ** 2).mean()
    current = cross_entropy(der.logits(batch.x), batch.y, np.full(6, True)).mean()
    assert squares > 0.001
    assert float(loss.detach()) == pytest.approx(current + 0.3 * squares, rel=1e-5)
    torch.testing.assert_close(aux["logits"], der.logits(batch.x))


def test_der_holds_new_classes_at_zero():
    """With growing heads a class met after a sample was stored is to stay at 0 there; one not met yet is left alone."""
    der, batch, _ = made(DER, alpha=1.0)
    fields, _ = der.memory.sample(20, batch.key, purpose="logits")
    assert (fields["logits"][:, :2] != 0).all()
    assert not fields["logits"][:, 2:].any()
    loss, _ = der.loss(batch)
    new = der.logits(fields["x"]).detach()
    squares = ((new - fields["logits"])[:, :4] ** 2).mean()
    current = cross_entropy(der.logits(batch.x), batch.y, np.arange(6) < 4).mean()
    assert float(loss.detach()) == pytest.approx(float(current + squares), rel=1e-5)


def test_der_matches_the_head_of_a_sample_alone():
    der, batch, _ = made(DER, "task", alpha=1.0)
    fields, _ = der.memory.sample(20, batch.key, purpose="logits")
    loss, _ = der.loss(batch)
    squares = ((der.logits(fields["x"]).detach() - fields["logits"])[:, :2] ** 2).mean()
    current = cross_entropy(der.logits(batch.x), batch.y, np.isin(np.arange(6), [2, 3])).mean()
    assert float(loss.detach()) == pytest.approx(float(current + squares), rel=1e-5)


def test_derpp_adds_the_labels_of_a_second_draw():
    der, batch, _ = made(DERpp, alpha=0.3, beta=0.6, head="single", replay_batch=5)
    loss, _ = der.loss(batch)
    first, _ = der.memory.sample(5, batch.key, purpose="logits")
    second, _ = der.memory.sample(5, batch.key, purpose="labels")
    assert not torch.equal(first["x"], second["x"])
    everything = np.full(6, True)
    expected = (
        cross_entropy(der.logits(batch.x), batch.y, everything).mean()
        + 0.3 * ((der.logits(first["x"]).detach() - first["logits"]) ** 2).mean()
        + 0.6 * cross_entropy(der.logits(second["x"]), second["y"], everything).mean()
    )
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("stored", [0, 3])
@pytest.mark.parametrize("kind", [ER, ERACE, DER, DERpp])
def test_a_memory_that_is_not_full_is_recalled_sample_by_sample(kind, stored):
    """Of ten samples asked for three are there: each weighs a third of the past; an empty memory weighs nothing."""
    fields = {DER: {"alpha": 0.3}, DERpp: {"alpha": 0.3, "beta": 0.6}}.get(kind, {"replay_weight": 0.6})
    stream = TinyStream("class")
    with seeded(0, "learner"):
        learner = MLP((1, 4, 4), 6, hidden=(8,), head="single")
        extra = {"weighting": "sum"} if kind is ER else {}
        strategy = kind(learner, stream.info, memory_size=20, replay_batch=10, **fields, **extra)
    keys, everything = step_keys(0, 0, 0, 2), np.full(6, True)
    past = stream[0].train.batch(torch.arange(38, 38 + stored), keys[0])
    logits = torch.linspace(-1, 1, 6 * stored).reshape(stored, 6)
    strategy.remember(past, {"logits": logits})
    batch = stream[0].train.batch(torch.arange(30, 50), keys[1])
    current = np.arange(6) < 2 if kind is ERACE else everything  # new classes are learned among themselves
    expected = float(cross_entropy(strategy.logits(batch.x), batch.y, current).mean())
    if stored:
        found = strategy.logits(past.x).detach()
        expected += 0.3 * float((found - logits).square().mean()) if kind in (DER, DERpp) else 0.0
        expected += 0.6 * float(cross_entropy(found, past.y, everything).mean()) if kind is not DER else 0.0
    assert float(strategy.training_loss(batch)[0].detach()) == pytest.approx(expected, rel=1e-5)


def test_logits_are_those_of_the_moment_a_sample_came():
    """The stored logits are the ones the network gave in the step that stored the sample."""
    stream = TinyStream("class")
    der = DER(MLP((1, 4, 4), 6, hidden=(8,), head="single"), stream.info, memory_size=40)
    key = step_keys(0, 0, 0, 2)
    first = stream[0].train.batch(torch.arange(10), key[0])
    _, aux = der.loss(first)
    with torch.no_grad():
        before = der.logits(first.x)
        for p in der.parameters():
            p.mul_(1.5)
        der.remember(first, aux)
    torch.testing.assert_close(der.memory["logits"][:10], before)


def test_rehearsal_mixes_the_memory_into_the_epoch():
    """Hsu et al.: new data once, memory floor(new / memory) times, equal shares of the tasks."""
    engine = train(Rehearsal, TinyStream("class"), memory_size=20, epochs=1)
    memory = engine.strategy.memory
    assert [len(memory.slots(k)) for k in range(3)] == [6, 6, 6]
    assert engine.record.task_steps == [5, 10, 10]  # 80 samples; 80 + 4 x 20; 80 + 4 x 20, in batches of 16


@pytest.mark.parametrize(("per", "size"), [("both", 4), ("class", 4), ("task", 8)])
def test_rehearsal_by_step_starts_with_the_second_task(per, size):
    fields = {"per": per, "groups": "class", "replay": "step", "keep": "herding", "weighting": "tasks"}
    strategy = train(Rehearsal, TinyStream("class"), memory_size=size, **fields).strategy
    assert strategy.memory.y[strategy.memory.filled].tolist() == [c for c in range(6) for _ in range(4)]
    strategy.grow(0)
    assert not strategy.replaying
    strategy.grow(1)
    assert strategy.replaying


def test_settings_that_need_boundaries_are_refused_without_them():
    stream = TinyStream("online")
    learner = MLP((1, 4, 4), 6, hidden=(8,))
    for fields, word in (({"groups": "task"}, "groups"), ({"weighting": "tasks"}, "weighting")):
        with pytest.raises(ConfigError, match=rf"strategy\.{word}"):
            ER(learner, stream.info, **fields)
    with pytest.raises(ConfigError, match="strategy=rehearsal"):
        ER(learner, stream.info, memory="herding")


@pytest.mark.parametrize("kind", ["steps", "real"])
@pytest.mark.parametrize(
    ("field", "value"), [("groups", "class"), ("groups", "both"), ("draw", "balanced"), ("memory", "balanced")]
)
def test_what_goes_by_class_is_refused_where_a_sample_has_none(kind, field, value):
    info = TinySequences(kind, "domain").info
    learner = GRU(info.input_shape, info.n_classes, hidden=4, target=info.target, vocabulary=info.vocabulary)
    with pytest.raises(ConfigError, match=rf"strategy\.(groups|draw).*{kind}"):
        ER(learner, info, **{field: value})
    assert ER(learner, info, memory="balanced", groups="task").groups == "task"


def replaying(kind, norm="none", dropout=0.0, **fields):
    """A strategy with a learner of batch normalisation or dropout, its memory full or empty; the next batch."""
    stream = TinyStream("class")
    with seeded(0, "learner"):
        learner = MLP(stream.info.input_shape, stream.info.n_classes, hidden=(16,), norm=norm, dropout=dropout)
    return kind(learner, stream.info, **{"memory_size": 40, **fields}), stream


@pytest.mark.parametrize("learner", [{"norm": "batch"}, {"dropout": 0.5}])
@pytest.mark.parametrize("compare", ["present", "best"])
def test_a_virtual_step_of_no_size_harms_nothing(learner, compare):
    """Other masks, or other statistics, before and after it would show as harm."""
    mir, stream = replaying(MIR, virtual_lr=1e-30, replay_batch=5, candidates=20, compare=compare, **learner)
    keys = step_keys(0, 0, 0, 2)
    mir.remember(stream[0].train.batch(torch.arange(0, 80, 2), keys[0]), {})
    if compare == "best":
        mir.memory["best"].fill_(1e3)
    before = {n: b.clone() for n, b in mir.learner.named_buffers() if "dropout" not in n}
    batch = stream[0].train.batch(torch.arange(20), keys[1])
    seen = []
    losses_at = mir.losses_at
    mir.losses_at = lambda p, b: seen.append(losses_at(p, b)) or seen[-1]
    assert mir.recall(batch)[1].all()
    assert torch.equal(*seen)
    assert seen[0].std() > 0
    assert all(torch.equal(b, before[n]) for n, b in mir.learner.named_buffers() if n in before)


def test_mir_takes_the_losses_of_training_with_batch_statistics():
    mir, stream = replaying(MIR, norm="batch", candidates=20, replay_batch=5)
    keys = step_keys(0, 0, 0, 2)
    mir.remember(stream[0].train.batch(torch.arange(0, 80, 2), keys[0]), {})
    loss, aux = mir.training_loss(stream[0].train.batch(torch.arange(20), keys[1]))
    fields = mir.memory.read(aux["candidates"])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(mir.learner(fields["x"]), fields["y"], reduction="none")
    torch.testing.assert_close(aux["losses"], expected)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("kind", [ER, ERACE, DER, DERpp, MIR])
@pytest.mark.parametrize("stored", [0, 3])
def test_empty_slots_are_no_part_of_batch_statistics(kind, stored):
    """Whatever lies in empty slots changes neither loss nor running statistics."""
    found = []
    for rubbish in (0.0, 50.0):
        strategy, stream = replaying(kind, norm="batch", replay_batch=10)
        keys = step_keys(0, 0, 0, 2)
        if stored:
            batch = stream[0].train.batch(torch.arange(stored), keys[0])
            strategy.remember(batch, {"logits": torch.zeros(stored, stream.info.n_classes)})
        strategy.memory["x"][~strategy.memory.filled] = rubbish
        loss, _ = strategy.training_loss(stream[0].train.batch(torch.arange(20, 40), keys[1]))
        found.append([loss.detach(), *(b.clone() for n, b in strategy.learner.named_buffers())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [ER, ERACE, MIR, DER])
@pytest.mark.parametrize("memory", ["ring", "reservoir", "balanced"])
def test_every_pair_of_task_and_class_that_occurs_has_a_share(kind, memory):
    strategy = train(kind, TinyStream("class"), memory_size=30, memory=memory, groups="both", epochs=2).strategy
    assert strategy.memory.filled.all()
    assert torch.bincount(strategy.memory["y"]).tolist() == [5] * 6


def test_er_ace_lets_classes_from_the_highest_seen_on_compete():
    ace, batch, _ = made(ERACE, head="single", replay_batch=10, compete="unseen")
    fields, _ = ace.recall(batch)
    own = batch._replace(y=torch.full_like(batch.y, 2))
    for highest, among in ((0, [2, 3, 4, 5]), (4, [2, 4, 5])):
        ace.highest.fill_(highest)
        allowed = np.isin(np.arange(6), among)
        expected = cross_entropy(ace.logits(own.x, own.task), own.y, allowed).mean()
        expected += cross_entropy(ace.logits(fields["x"], fields["task"]), fields["y"], np.ones(6, bool)).mean()
        assert ace.loss(own).item() == pytest.approx(expected, rel=1e-5)
    ace.remember(batch, {})
    assert int(ace.highest) == 4
