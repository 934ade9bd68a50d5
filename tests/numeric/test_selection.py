"""Methods that choose what to keep or to recall, against searches one sample at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cl.batch import Batch
from cl.learners.mlp import MLP
from cl.memory import herding
from cl.seeding import generator, seeded, step_keys
from cl.streams.base import TrainingView
from cl.testing import TinyStream, train
from cl.testing.tiny import engine
from strategies.gdumb import GDumb
from strategies.gss import GSS
from strategies.icarl import ICaRL
from strategies.mir import MIR


def made(kind, steps=5, **fields):
    """A strategy on TinyStream whose memory was offered some batches of 8; the next batch."""
    stream = TinyStream("class")
    with seeded(0, "learner"):
        strategy = kind(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, **fields)
    strategy.enter(1)
    keys = step_keys(0, 0, 0, steps + 1)
    for i in range(steps):
        with torch.no_grad():
            strategy.remember(stream[i % 2].train.batch(torch.arange(8 * i, 8 * i + 8), keys[i]), {})
    return strategy, stream[1].train.batch(torch.arange(30, 40), keys[steps])


def gradients(strategy, x, y):
    """The gradient of the mean loss of samples, as one vector."""
    strategy.zero_grad()
    F.cross_entropy(strategy.learner(x)[:, :4], y).backward()
    return torch.cat([p.grad.flatten() for p in strategy.learner.parameters()])


def stepped(mir, batch):
    """The network after a step of size .5 down the gradient of a batch."""
    moved = MLP((1, 4, 4), 6, hidden=(8,))
    moved.load_state_dict(mir.learner.state_dict())
    F.cross_entropy(moved(batch.x)[:, :4], batch.y).backward()
    with torch.no_grad():
        for p in moved.parameters():
            p.sub_(0.5 * p.grad)
    return moved


def test_mir_replays_the_most_harmed():
    mir, batch = made(MIR, memory_size=30, candidates=20, replay_batch=6, virtual_lr=0.5)
    recalled, valid = mir.recall(batch)
    fields, _ = mir.memory.sample(20, batch.key)
    before = F.cross_entropy(mir.learner(fields["x"])[:, :4], fields["y"], reduction="none")
    moved = stepped(mir, batch)
    harm = F.cross_entropy(moved(fields["x"])[:, :4], fields["y"], reduction="none") - before
    worst = sorted(range(20), key=lambda i: -float(harm[i].detach()))[:6]
    assert valid.all()
    torch.testing.assert_close(recalled["x"], fields["x"][worst])


def test_mir_compares_to_the_least_loss_so_far():
    """By hand over three steps: losses of the candidates of a step are noted, and lower what the next compares to."""
    mir, batch = made(MIR, memory_size=30, candidates=20, replay_batch=6, virtual_lr=0.5, compare="best")
    guess = np.log(mir.info.n_classes)  # of a network that knows nothing
    assert torch.allclose(mir.memory["best"][mir.memory.filled], torch.tensor(guess, dtype=torch.float32))
    best = np.full(30, guess)
    for key in step_keys(5, 0, 0, 3):
        now = batch._replace(key=key)
        slots, _ = mir.memory.distinct(20, key, mir.memory.filled.float(), "replay")
        x, y = mir.memory["x"][slots], mir.memory["y"][slots]
        before = F.cross_entropy(mir.learner(x)[:, :4], y, reduction="none").detach().numpy()
        moved = stepped(mir, batch)
        after = F.cross_entropy(moved(x)[:, :4], y, reduction="none").detach().numpy()
        harm = after - np.minimum(before, best[slots])
        recalled, _ = mir.recall(now)
        torch.testing.assert_close(recalled["x"], x[np.argsort(-harm, kind="stable")[:6]])
        _, aux = mir.training_loss(now)
        with torch.no_grad():
            mir.after_step(now, {name: value.detach() for name, value in aux.items()})
            best[slots] = np.minimum(best[slots], before)
            np.testing.assert_allclose(mir.memory["best"][slots].numpy(), best[slots], rtol=1e-5)
            for p in mir.learner.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))


def test_mir_never_replays_empty_slots():
    mir, batch = made(MIR, steps=1, memory_size=30, candidates=20, replay_batch=12)
    _, valid = mir.recall(batch)
    assert valid.tolist() == [True] * 8 + [False] * 4


def test_gss_scores_are_the_largest_cosine():
    """Of a sample with samples, or with the mean gradients of batches; a batch is let in by its own mean gradient."""
    for size, gate in ((1, "sample"), (5, "sample"), (5, "batch")):
        gss, batch = made(GSS, memory_size=60, comparisons=7, comparison_batch=size, gate=gate)
        fields, _ = gss.memory.sample(7 * size, batch.key, purpose="comparisons")
        parts = zip(fields["x"].split(size), fields["y"].split(size), strict=True)
        others = [gradients(gss, x, y) for x, y in parts]

        def nearest(x, y, gss=gss, others=others):
            return max(float(F.cosine_similarity(gradients(gss, x, y), other, dim=0)) for other in others)

        cosines = [nearest(x[None], y[None]) for x, y in zip(batch.x, batch.y, strict=True)]
        score, below = gss.scores(batch)
        np.testing.assert_allclose(score.numpy(), 1 + np.array(cosines), rtol=1e-4)
        expected = [c < 0 for c in cosines] if gate == "sample" else [nearest(batch.x, batch.y) < 0] * len(cosines)
        assert below.tolist() == expected


def test_gss_compares_to_whole_batches_alone_where_they_fit():
    """Twelve slots hold two batches of five; the last of 3 comparisons has samples of an empty memory in it."""
    gss, batch = made(GSS, steps=1, memory_size=12, comparisons=3, comparison_batch=5)
    fields, valid = gss.memory.sample(10, batch.key, purpose="comparisons")
    assert valid.tolist() == [True] * 8 + [False] * 2
    others = [gradients(gss, fields["x"][a:b], fields["y"][a:b]) for a, b in ((0, 5), (5, 8))]
    for x, y, score in zip(batch.x, batch.y, gss.scores(batch)[0], strict=True):
        own = gradients(gss, x[None], y[None])
        expected = 1 + max(float(F.cosine_similarity(own, other, dim=0)) for other in others)
        assert float(score) == pytest.approx(expected, rel=1e-4)


def test_gss_finds_opposite_directions_where_few_samples_are_stored():
    """One sample of another class is stored: the comparisons that have none do not hide that its gradient opposes."""
    gss, batch = made(GSS, steps=0, memory_size=12, comparisons=3, comparison_batch=1)
    stored = TinyStream("class")[0].train.batch(torch.arange(1), batch.key)
    with torch.no_grad():
        gss.remember(stored, {})
    other = gradients(gss, stored.x, stored.y)
    own = [gradients(gss, x[None], y[None]) for x, y in zip(batch.x, batch.y, strict=True)]
    cosines = [float(F.cosine_similarity(g, other, dim=0)) for g in own]
    assert max(cosines) < 0
    np.testing.assert_allclose(gss.scores(batch)[0].numpy(), 1 + np.array(cosines), rtol=1e-4)


def test_gss_fills_before_it_chooses():
    gss, _ = made(GSS, steps=5, memory_size=40)
    assert gss.memory.filled.all()
    with seeded(0, "learner"):
        again, _ = made(GSS, steps=3, memory_size=40)
    assert int(again.memory.filled.sum()) == 24
    assert torch.equal(again.memory.x[:24], gss.memory.x[:24])
    assert (again.memory["score"][:8] == np.float32(1.1)).all()


def test_gss_challenges_by_score(monkeypatch):
    """Which slot is challenged and who wins follow C_i / sum C and C_i / (C_i + C): frequencies over 3000 keys."""
    gss, batch = made(GSS, steps=1, memory_size=4, comparison_batch=1)
    one = Batch(batch.x[:1], batch.y[:1], batch.task[:1], batch.key)
    rivals = torch.tensor([0.1, 0.4, 0.0, 0.5])
    monkeypatch.setattr(gss, "scores", lambda b: (torch.tensor([0.2]), torch.tensor([True])))
    kept = {name: t.clone() for name, t in gss.memory.state_dict().items()}
    taken = np.zeros(4)
    with torch.no_grad():
        for key in step_keys(1, 0, 0, 3000):
            gss.memory.load_state_dict(kept)
            gss.memory["score"].copy_(rivals)
            gss.remember(one._replace(key=key), {})
            taken += (gss.memory["score"] != rivals).numpy()
    expected = np.array([0.1 * 0.1 / 0.3, 0.4 * 0.4 / 0.6, 0.0, 0.5 * 0.5 / 0.7])
    np.testing.assert_allclose(taken / 3000, expected, atol=0.035)


def test_gss_may_draw_rivals_by_how_far_they_are_above_the_least():
    """The chance of a slot is (C_i - min C) / sum: frequencies over 3000 keys; no slot is drawn twice in a batch."""
    gss, _ = made(GSS, steps=1, memory_size=4, comparison_batch=1, challenge="scaled")
    gss.memory["score"].copy_(torch.tensor([0.2, 0.5, 0.1, 0.7]))
    first = np.zeros(4)
    for key in step_keys(2, 0, 0, 3000):
        drawn = gss.rivals(3, key).tolist()
        assert len(set(drawn)) == 3
        first[drawn[0]] += 1
    np.testing.assert_allclose(first / 3000, np.array([0.1, 0.4, 0.0, 0.6]) / 1.1, atol=0.03)


def test_gss_refuses_what_it_has(monkeypatch):
    """A score of 1 or more (some gradient in memory points the same way) never enters a full memory."""
    gss, batch = made(GSS, steps=1, memory_size=4, comparison_batch=1)
    before = gss.memory.x.clone()
    monkeypatch.setattr(gss, "scores", lambda b: (torch.full((10,), 1.0), torch.full((10,), False)))
    gss.remember(batch, {})
    assert torch.equal(gss.memory.x, before)


def normalised(info):
    return MLP(info.input_shape, info.n_classes, hidden=(8,), norm="batch")


def icarl_in_second_task(**fields):
    stream = TinyStream("class")
    running = engine(ICaRL, stream, epochs=3, memory_size=12, **fields)
    running.run_task(0)
    strategy = running.strategy
    strategy.grow(1)
    strategy.enter(1)
    strategy.begin_task(stream[1])
    with torch.no_grad():
        for p in strategy.learner.parameters():
            p.mul_(1.2)
    return strategy, stream


@pytest.mark.parametrize(("distillation", "temperature"), [(True, 1.0), (True, 2.0), (False, 1.0)])
def test_icarl_loss(distillation, temperature):
    icarl, stream = icarl_in_second_task(distillation=distillation, temperature=temperature)
    batch = stream[1].train.batch(torch.arange(35, 45), step_keys(0, 0, 0, 1)[0])
    p = icarl.learner(batch.x).sigmoid().detach().double().numpy()
    target = np.eye(6)[batch.y.numpy()]
    if distillation:
        target[:, :2] = (icarl.teacher(batch.x) / temperature).sigmoid().detach().numpy()[:, :2]
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))[:, :4].sum(1).mean()
    assert float(icarl.loss(batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_icarl_trains_on_new_data_and_exemplars():
    icarl, stream = icarl_in_second_task()
    data = icarl.training_data(TrainingView(stream, 1, "current", "ICaRL"), 1)
    assert len(data) == 80 + 12


def test_icarl_classifies_by_the_nearest_mean_of_exemplars():
    strategy = train(ICaRL, TinyStream("class"), epochs=3, memory_size=18).strategy
    x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = F.normalize(strategy.learner.features(x)).numpy()
        means = []
        for c in range(6):
            own = F.normalize(strategy.learner.features(strategy.memory.x[strategy.memory.y == c])).numpy()
            assert len(own) == 3
            means.append(own.mean(0) / np.linalg.norm(own.mean(0)))
    squares = ((z[:, None] - np.stack(means)) ** 2).sum(2)
    scores = strategy.predict(x).detach().numpy()
    np.testing.assert_array_equal(scores.argmax(1), squares.argmin(1))
    np.testing.assert_allclose(scores - scores[:, :1], squares[:, :1] - squares, atol=1e-4)


def test_icarl_gives_no_class_without_exemplars():
    """While the second task is learned the classes of the first compete; the last task's classes never do."""
    icarl, stream = icarl_in_second_task()
    scores = icarl.predict(next(stream.test(1).in_order(99)).x)
    assert ((scores > -1e6).sum(0) > 0).tolist() == [True, True, False, False, False, False]


def test_icarl_distils_the_network_at_the_end_of_the_task_before():
    running = engine(ICaRL, TinyStream("class"), normalised, epochs=2, memory_size=12)
    running.run_task(0)
    running.run_task(1)
    icarl = running.strategy
    before = {n: t.clone() for n, t in icarl.learner.state_dict().items()}
    icarl.train()
    icarl.grow(2)
    icarl.enter(2)
    icarl.begin_task(running.stream[2])
    batch = running.stream[2].train.batch(torch.arange(20), step_keys(0, 2, 0, 1)[0])
    torch.autograd.backward(icarl.loss(batch))
    assert icarl.learner.training
    assert not any(module.training for module in icarl.teacher.modules())
    assert all(torch.equal(t, before[n]) for n, t in icarl.teacher.state_dict().items())
    assert all(p.grad is None for p in icarl.teacher.parameters())


@pytest.mark.parametrize("keep", ["herding", "unit_herding"])
def test_icarl_herds_on_unit_features(keep):
    running = engine(ICaRL, TinyStream("class"), epochs=2, memory_size=10, keep=keep)
    running.run_task(0)
    strategy, data = running.strategy, running.stream[0].train
    x = data.inputs((data.labels == 1).nonzero()[:, 0])
    with torch.no_grad():
        z = F.normalize(strategy.learner.features(x))
    torch.testing.assert_close(strategy.memory.x[strategy.memory.y == 1][:5], x[herding(z, 5, keep == "unit_herding")])


@pytest.mark.parametrize("scenario", ["class", "domain"])
def test_gdumb_trains_a_new_network_on_equal_shares(scenario):
    running = engine(GDumb, TinyStream(scenario), epochs=1, memory_size=12, passes=2)
    first = running.strategy.learner
    running.run()
    memory = running.strategy.memory
    assert torch.bincount(memory["task"]).tolist() == [4, 4, 4]
    assert torch.bincount(memory["group"]).tolist() == [2] * 6
    assert running.strategy.learner is not first
    assert running.record.samples == 3 * 2 * 12


def test_gdumb_starts_every_task_from_another_network():
    gdumb, weights = engine(GDumb, TinyStream("class")).strategy, []
    for k in range(3):
        gdumb.grow(k)
        weights.append(gdumb.learner.head.weight)
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("seed", [0, 1])
def test_gdumb_keeps_the_first_of_each_class_that_flow_past(seed):
    stream = TinyStream("class", seed)
    gdumb = GDumb(MLP((1, 4, 4), 6, hidden=(8,)), stream.info, memory_size=12)
    gdumb.begin_task(stream[0])
    batch = next(stream[0].train.in_order(99))
    order = torch.randperm(80, generator=generator(seed, "flow", 0))
    for c in (0, 1):
        first = [x.flatten().tolist() for x in batch.x[order[batch.y[order] == c][:6]]]
        kept = [x.flatten().tolist() for x in gdumb.memory["x"][gdumb.memory["y"] == c]]
        assert sorted(kept) == sorted(first)


def test_cutmix_boxes():
    """Half of the batches are mixed, the share of the partner is uniform, and the loss is weighed by the pixels."""
    gdumb = GDumb(MLP((1, 40, 40), 6, hidden=(8,)), TinyStream("class").info, cutmix=1.0)
    shares = np.array([float(gdumb.box(key, 40, 40).float().mean()) for key in step_keys(0, 0, 0, 400)])
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.09)
    for key in step_keys(0, 0, 0, 20):
        box = gdumb.box(key, 40, 40)
        rows, columns = box.any(1).sum(), box.any(0).sum()
        assert rows * columns == box.sum()
        assert abs(int(rows) - int(columns)) <= 1
    gdumb.cutmix = 0.5
    used = np.mean([bool(gdumb.box(key, 40, 40).any()) for key in step_keys(0, 0, 0, 400)])
    assert 0.4 < used < 0.6


def test_cutmix_loss():
    stream = TinyStream("class")
    gdumb = GDumb(MLP((1, 4, 4), 6, hidden=(8,), head="single"), stream.info, cutmix=1.0)
    batch = stream[0].train.batch(torch.arange(20, 60, 4), step_keys(5, 0, 0, 1)[0])
    box = gdumb.box(batch.key, 4, 4)
    assert 0 < int(box.sum()) < 16
    inputs, losses = [], []
    gdumb.logits = lambda x, task: inputs.append(x) or gdumb.learner(x)
    loss = gdumb.loss(batch)
    mixed = inputs[0]
    for i in range(10):
        partner = [j for j in range(10) if torch.equal(mixed[i, 0][box], batch.x[j, 0][box])]
        assert torch.equal(mixed[i, 0][~box], batch.x[i, 0][~box])
        log_p = gdumb.learner(mixed[i : i + 1]).log_softmax(1)[0]
        share = float(box.float().mean())
        losses.append(-(1 - share) * log_p[batch.y[i]] - share * log_p[batch.y[partner[0]]])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
