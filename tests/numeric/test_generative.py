"""Generators against torch.distributions, numerical integration and what must not change."""

import copy

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cl.errors import ConfigError
from cl.generative import VAE
from cl.learners.mlp import MLP
from cl.seeding import normal, seeded, step_keys
from cl.testing import TinyStream, train
from cl.testing.tiny import engine
from strategies.dgr import DGR
from strategies.generative_classifier import GenerativeClassifier

KEY = step_keys(0, 0, 0, 1)[0]
SMALL = {"hidden": (8,), "latent": 3}


@pytest.fixture
def vae():
    with seeded(0, "vae"):
        return VAE((1, 4, 4), (8, 6), 3, "bernoulli")


def test_losses_are_minus_the_evidence_lower_bound(vae):
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, log_variance = vae.encode(x)
    q = Normal(mean, (0.5 * log_variance).exp())
    z = q.mean + q.stddev * normal(KEY, (5, 3), "draw")
    p = vae.decoder(z).sigmoid()
    flat = x.flatten(1)
    log_likelihood = (flat * p.log() + (1 - flat) * (1 - p).log()).sum(1)
    expected = kl_divergence(q, Normal(torch.zeros(()), torch.ones(()))).sum(1) - log_likelihood
    torch.testing.assert_close(vae.losses(x, KEY, "draw"), expected)


def test_mirrored_layers(vae):
    shapes = [tuple(p.shape) for n, p in vae.named_parameters() if n.endswith("weight")]
    assert shapes == [(8, 16), (6, 8), (3, 6), (3, 6), (6, 3), (8, 6), (16, 8)]
    drawn = vae.sample(7, KEY, "dream")
    assert drawn.shape == (7, 1, 4, 4)
    assert ((drawn > 0) & (drawn < 1)).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_evidence_is_the_integral_over_the_code(likelihood):
    """One-dimensional code: log p(x) by a fine grid over z."""
    with seeded(1, "vae"):
        vae = VAE((4,), (6,), 1, likelihood).double()
    x = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    z = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    with torch.no_grad():
        vae.log_variance.bias.add_(1)  # wider than the posterior: importance weights with a small variance
        out = vae.decoder(z[:, None])[:, None]
        if likelihood == "bernoulli":
            log_px = torch.distributions.Bernoulli(logits=out).log_prob(x.round()).sum(-1)
            x = x.round()
        else:
            log_px = Normal(out, torch.ones(())).log_prob(x).sum(-1)
        prior = Normal(torch.zeros(()), torch.ones(())).log_prob(z)
        exact = (log_px + prior[:, None]).logsumexp(0) + np.log(18 / 20000)
        noise = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        estimate = vae.log_evidence(x, noise)
    torch.testing.assert_close(estimate, exact, atol=0.01, rtol=0)


def test_a_bernoulli_model_can_be_scored_by_a_gaussian_around_its_mean(vae):
    """With a code of no variance the evidence is the density of x around the decoded mean."""
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    density = Normal(vae.decoder(z).sigmoid(), torch.ones(())).log_prob(x.flatten(1)).sum(1)
    torch.testing.assert_close(vae.log_likelihood(x.flatten(1), z, "gaussian"), density)
    noise = torch.randn(7, 3, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(vae.log_evidence(x, noise, "gaussian"), vae.log_evidence(x, noise))


def dgr_in_second_task(scenario, **fields):
    stream = TinyStream(scenario)
    running = engine(DGR, stream, epochs=3, **{**SMALL, **fields})
    running.run_task(0)
    strategy = running.strategy
    strategy.grow(1)
    strategy.enter(1)
    strategy.begin_task(stream[1])
    strategy.train()
    with torch.no_grad():
        for p in strategy.learner.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    return strategy, stream[1].train.batch(torch.arange(20), KEY)


def log_softmax(logits, allowed):
    return torch.where(allowed, logits, -torch.inf).log_softmax(1)


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_dgr_loss(targets):
    dgr, batch = dgr_in_second_task("class", targets=targets, weighting="tasks", temperature=2.0)
    x = dgr.dreamer.sample(20, KEY, "dream")
    before, now = torch.arange(6) < 2, torch.arange(6) < 4
    student, teacher = dgr.learner(x), dgr.teacher(x)
    if targets == "hard":
        y = teacher[:, :2].argmax(1)
        past = -log_softmax(student, now)[torch.arange(20), y].mean()
    else:
        target = log_softmax(teacher / 2, before).exp()[:, :2]
        past = -4 * (target * log_softmax(student / 2, now)[:, :2]).sum(1).mean()
    past = past + dgr.generator.losses(x, KEY, "generator/replay").mean() / 16
    new = -log_softmax(dgr.learner(batch.x), now)[torch.arange(20), batch.y].mean()
    new = new + dgr.generator.losses(batch.x, KEY, "generator/new").mean() / 16
    torch.testing.assert_close(dgr.loss(batch), (new + past) / 2)
    for weighting, expected in (("sum", new + 0.3 * past), ("share", 0.7 * new + 0.3 * past)):
        dgr.weighting, dgr.replay_weight = weighting, 0.3
        torch.testing.assert_close(dgr.loss(batch), expected)


def test_soft_targets_of_dgr_without_the_square_of_the_temperature():
    losses = {}
    for squared in (True, False):
        dgr, batch = dgr_in_second_task("class", targets="soft", weighting="sum", squared_temperature=squared)
        x = dgr.dreamer.sample(20, KEY, "dream")
        dgr.replay_weight = 0.0
        new = dgr.loss(batch)
        dgr.replay_weight = 1.0
        losses[squared] = dgr.loss(batch) - new - dgr.generator.losses(x, KEY, "generator/replay").mean() / 16
    torch.testing.assert_close(losses[True], 4 * losses[False])


def test_dgr_with_heads_dreams_of_earlier_tasks_alone():
    dgr, batch = dgr_in_second_task("task", targets="hard")
    replay, _ = dgr.dream(dgr.teacher, dgr.dreamer, batch)
    assert (replay.task == 0).all()
    assert (replay.y < 2).all()
    assert not replay.x.requires_grad


def test_dgr_keeps_the_old_networks_still():
    dgr, batch = dgr_in_second_task("class")
    kept = copy.deepcopy(dgr.dreamer.state_dict()), copy.deepcopy(dgr.teacher.state_dict())
    dgr.loss(batch).backward()
    for p in dgr.parameters():
        if p.grad is not None:
            p.data.sub_(p.grad)
    for before, after in zip(kept, (dgr.dreamer.state_dict(), dgr.teacher.state_dict()), strict=True):
        for name in before:
            assert torch.equal(before[name], after[name])
    assert all(p.grad is not None for p in dgr.generator.parameters())


def test_dgr_in_the_third_task():
    """Old network and old generator are those of the end of the second task, and the past weighs two thirds."""
    stream = TinyStream("class")
    running = engine(DGR, stream, epochs=2, **SMALL, weighting="tasks")
    running.run_task(0)
    running.run_task(1)
    dgr = running.strategy
    dgr.grow(2)
    dgr.enter(2)
    dgr.begin_task(stream[2])
    for old, present in ((dgr.teacher, dgr.learner), (dgr.dreamer, dgr.generator)):
        now = present.state_dict()
        assert all(torch.equal(t, now[n]) for n, t in old.state_dict().items())
    batch = stream[2].train.batch(torch.arange(20), KEY)
    whole = dgr.loss(batch)
    dgr.weighting = "share"
    parts = []
    for weight in (0.0, 1.0):
        dgr.replay_weight = weight
        parts.append(dgr.loss(batch))
    assert abs(float((parts[0] - parts[1]).detach())) > 1e-3
    torch.testing.assert_close(whole, parts[0] / 3 + 2 * parts[1] / 3)


def test_inputs_a_bernoulli_generator_cannot_make_are_refused(vae):
    with pytest.raises(ConfigError, match=r"stream\.normalise.*gaussian.*-0\.5"):
        vae.check(torch.tensor([[-0.5, 1.0]]))
    vae.check(torch.tensor([[0.0, 1.0]]))


def test_classes_learn_apart():
    """Training on a task changes the models of its own classes and no other."""
    running = engine(GenerativeClassifier, TinyStream("class"), epochs=2, **SMALL)
    running.run_task(0)
    before = copy.deepcopy(running.strategy.models.state_dict())
    running.run_task(1)
    after = running.strategy.models.state_dict()
    changed = {int(name.split(".")[0]) for name in before if not torch.equal(before[name], after[name])}
    assert changed == {2, 3}


def test_each_class_has_the_mean_loss_of_its_own_samples():
    """Twelve samples of one class and four of the other weigh the same, in nats an input value."""
    stream = TinyStream("class")
    strategy = engine(GenerativeClassifier, stream, **SMALL).strategy
    strategy.grow(1)
    strategy.enter(1)
    trained = [all(p.requires_grad for p in strategy.models[c].parameters()) for c in range(6)]
    assert trained == [False, False, True, True, False, False]
    batch = stream[1].train.batch(torch.arange(28, 44), KEY)
    assert torch.bincount(batch.y).tolist() == [0, 0, 12, 4]
    each = {c: strategy.models[c].losses(batch.x, KEY, f"code/{c}") for c in (2, 3)}
    expected = sum(losses[batch.y == c].mean() / 16 for c, losses in each.items())
    torch.testing.assert_close(strategy.loss(batch), expected)
    own = torch.where(batch.y == 2, each[2], each[3])
    torch.testing.assert_close(strategy.validation_loss(batch), own)


def test_scores_are_the_evidence_of_each_class():
    strategy = train(GenerativeClassifier, TinyStream("class"), epochs=2, **SMALL).strategy
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    scores = strategy.predict(x)
    torch.testing.assert_close(scores[:, 3], strategy.models[3].log_evidence(x, strategy.noise))
    assert scores.shape == (4, 6)


def test_the_learner_is_not_trained():
    stream = TinyStream("class")
    running = engine(GenerativeClassifier, stream, epochs=1, **SMALL)
    before = copy.deepcopy(running.strategy.learner.state_dict())
    running.run()
    assert isinstance(running.strategy.learner, MLP)
    assert all(torch.equal(before[n], t) for n, t in running.strategy.learner.state_dict().items())


@pytest.fixture
def sequential():
    with seeded(0, "vae"):
        return VAE((5, 3), (7, 6), 2, "bernoulli", recurrent=True)


def test_a_recurrent_generator_is_its_layers_one_step_at_a_time(sequential):
    """Against torch's cells: the code is read off the last state, and is an input at every step of the writer."""

    def layer(cell, inputs):
        alone = torch.nn.GRUCell(cell.kernel.input_size, cell.size)
        own = (cell.kernel.weight_ih_l0, cell.kernel.weight_hh_l0, cell.kernel.bias_ih_l0, cell.kernel.bias_hh_l0)
        for p, value in zip((alone.weight_ih, alone.weight_hh, alone.bias_ih, alone.bias_hh), own, strict=True):
            p.data.copy_(value)
        state, found = torch.zeros(len(inputs[0]), cell.size), []
        for now in inputs:
            state = alone(now, state)
            found.append(state)
        return found

    x = torch.rand(4, 5, 3)
    states = list(x.unbind(1))
    for cell in sequential.encoder.cells:
        states = layer(cell, states)
    mean, log_variance = sequential.encode(x)
    torch.testing.assert_close(mean, sequential.mean(states[-1]))
    z = mean + (0.5 * log_variance).exp() * normal(KEY, (4, 2), "code")
    states = [z] * 5
    assert [cell.size for cell in sequential.decoder.cells] == [6, 7]
    for cell in sequential.decoder.cells:
        states = layer(cell, states)
    out = torch.stack([sequential.decoder.out(state) for state in states], 1)
    likelihood = torch.distributions.Bernoulli(logits=out, validate_args=False).log_prob(x).flatten(1).sum(1)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(sequential.losses(x, KEY, "code"), divergence - likelihood)


def test_what_a_recurrent_generator_draws(sequential):
    drawn = sequential.sample(6, KEY, "dream")
    assert drawn.shape == (6, 5, 3)
    codes = torch.stack([normal(KEY, (6, 2), "dream"), torch.zeros(6, 2)])
    torch.testing.assert_close(sequential.decoder(codes)[0].sigmoid().reshape(6, 5, 3), drawn)


def test_a_recurrent_generator_is_for_sequences():
    with pytest.raises(ConfigError, match=r"`strategy\.generator` in \['connected'\] on this stream, got 'recurrent'"):
        engine(DGR, TinyStream("class"), **SMALL, generator="recurrent")
