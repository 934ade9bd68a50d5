"""Shrink and perturb, L2 Init, soft orthogonality, pruning and continual backprop against their formulas in numpy."""

import numpy as np
import pytest
import torch

from cl.batch import Batch
from cl.errors import ConfigError
from cl.learners.cnn import CNN
from cl.learners.recurrent import GRU, LSTM, RNN
from cl.population import Population
from cl.seeding import normal, seeded, step_keys
from cl.testing.tiny import TinySequences, TinyStream, engine, small_mlp, state, train
from cl.update import Updater
from strategies.cbp import CBP
from strategies.l2_init import L2Init
from strategies.orthogonal import Orthogonal
from strategies.pruning import Pruning
from strategies.shrink_perturb import ShrinkPerturb
from strategies.usage import Usage

FIRST, SECOND = "learner.blocks.0.1.weight", "learner.blocks.1.0.weight"


def test_shrink_and_perturb_between_tasks_is_the_papers_line():
    made = engine(ShrinkPerturb, TinyStream("class"), shrink=0.3, perturb=0.2)
    before = state(made.strategy)
    made.strategy.begin_task(made.stream[0])
    assert all(torch.equal(before[n], t) for n, t in made.strategy.state_dict().items())
    made.strategy.begin_task(made.stream[1])
    with seeded(0, "shrink_perturb", 1):
        fresh = made.strategy.learner.fresh()
    for name, noise in fresh.named_parameters():
        expected = 0.3 * before[f"learner.{name}"] + 0.2 * noise
        torch.testing.assert_close(made.strategy.learner.get_parameter(name), expected)


@pytest.mark.parametrize("noise", ["fresh", "gaussian"])
def test_the_noise_of_every_task_is_another(noise):
    stream = TinyStream("class")
    strategy = engine(ShrinkPerturb, stream, shrink=0.0, perturb=1.0, noise=noise).strategy
    found = []
    for k in (1, 2, 2):
        strategy.begin_task(stream[k])
        found.append(state(strategy.learner)["head.weight"])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_shrink_and_perturb_every_step():
    options = {"shrink": 0.5, "perturb": 0.1, "when": "step", "noise": "gaussian"}
    strategy = engine(ShrinkPerturb, TinyStream("class"), **options).strategy
    before, key = state(strategy), step_keys(0, 0, 0, 1)[0]
    with torch.no_grad():
        strategy.after_step(Batch(None, None, None, key), {})
    names = [f"learner.{name}" for name, _ in strategy.learner.named_parameters()]
    moved = torch.cat([(state(strategy)[name] - 0.5 * before[name]).flatten() for name in names])
    torch.testing.assert_close(moved, 0.1 * normal(key, moved.shape, "perturb"))
    with pytest.raises(ConfigError, match=r"strategy\.noise"):
        engine(ShrinkPerturb, TinyStream("class"), when="step", noise="fresh")


@pytest.mark.parametrize(("norm", "power"), [("l2", 2), ("l1", 1)])
def test_l2_init_is_the_distance_to_the_start(norm, power):
    strategy = engine(L2Init, TinyStream("class"), strength=0.7, norm=norm).strategy
    g, total = torch.Generator().manual_seed(0), 0.0
    for p in strategy.learner.parameters():
        change = torch.randn(p.shape, generator=g)
        p.data += change
        total += float(np.sum(np.abs(change.numpy()) ** power))
    np.testing.assert_allclose(strategy.penalty().item(), 0.7 * total, rtol=1e-4)


def distance_from_orthogonal(w):
    w = w.reshape(len(w), -1).astype(np.float64)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return np.sum((product - np.eye(len(product))) ** 2)


@pytest.mark.parametrize(("cell", "gates"), [(RNN, 1), (LSTM, 4), (GRU, 3)])
def test_orthogonal_is_the_distance_of_every_gate_from_an_orthogonal_matrix(cell, gates):
    stream = TinySequences("class")
    made = engine(
        Orthogonal,
        stream,
        lambda info: cell(info.input_shape, info.n_classes, hidden=6, readout=[5]),
        strength=0.7,
        weights="recurrent",
    ).strategy
    kernel = made.learner.blocks[0].cell.kernel
    blocks = np.split(kernel.weight_hh_l0.detach().numpy(), gates)
    np.testing.assert_allclose(made.penalty().item(), 0.7 * sum(map(distance_from_orthogonal, blocks)), rtol=1e-5)
    made.weights = "all"
    others = [p.detach().numpy() for p in (kernel.weight_ih_l0, made.learner.blocks[1].layer.weight)]
    total = sum(map(distance_from_orthogonal, [*blocks, *others]))
    np.testing.assert_allclose(made.penalty().item(), 0.7 * total, rtol=1e-5)


def test_orthogonal_brings_the_weights_nearer_to_orthogonal_ones():
    far, near = (train(Orthogonal, TinyStream("class"), epochs=5, strength=s).strategy for s in (0.0, 0.05))
    distance = [sum(distance_from_orthogonal(w.detach().numpy()) for w in s.matrices()) for s in (far, near)]
    assert distance[1] < 0.5 * distance[0]
    with pytest.raises(ConfigError, match=r"Expected `strategy\.weights` 'all' for MLP"):
        engine(Orthogonal, TinyStream("class"), weights="recurrent")


def test_l2_init_keeps_the_weights_nearer_to_the_start():
    far, near = (train(L2Init, TinyStream("class"), epochs=5, strength=s).strategy for s in (0.0, 1e-2))
    distance = [sum(float((p.detach() - q).square().sum()) for p, q in s.start.pairs(s.learner)) for s in (far, near)]
    assert distance[1] < 0.8 * distance[0]


def cut(scope, regrow):
    made = engine(Pruning, TinyStream("class"), share=0.25, scope=scope, regrow=regrow)
    made.run_task(0)
    before = state(made.strategy)
    made.strategy.end_task(made.stream[1])
    return made, before, state(made.strategy)


def test_pruning_cuts_the_weakest_quarter_of_each_layer_and_they_stay_cut():
    made, _, after = cut("layer", "none")
    assert int((after[FIRST] == 0).sum()) == 64 + 48  # at the end of the task, and once more by hand
    made.run_task(1)
    assert (made.strategy.state_dict()[FIRST][after[FIRST] == 0] == 0).all()


@pytest.mark.parametrize("regrow", ["zero", "random"])
def test_pruned_connections_may_grow_again(regrow):
    made, before, after = cut("layer", regrow)
    weakest = np.argsort(np.abs(before[FIRST].numpy()).ravel())[:64]
    changed = np.flatnonzero((before[FIRST] != after[FIRST]).numpy().ravel())
    assert set(changed) <= set(weakest)
    if regrow == "zero":
        assert (after[FIRST].numpy().ravel()[weakest] == 0).all()
        made.run_task(1)
        assert int((state(made.strategy)[FIRST] == 0).sum()) < 80
    else:
        assert len(changed) == 64
        assert (after[FIRST] != 0).all()


def test_pruning_the_network_compares_its_layers():
    _, before, after = cut("network", "zero")
    both = np.concatenate([np.abs(before[n].numpy()).ravel() for n in (FIRST, SECOND)])
    gone = np.concatenate([(after[n] == 0).numpy().ravel() for n in (FIRST, SECOND)])
    assert gone.sum() == 128
    assert both[gone].max() <= both[~gone].min()


def cbp_by_hand(strategy, batch):
    """The utility of the first hidden layer in numpy."""
    w = {n: p.detach().numpy().astype(np.float64) for n, p in strategy.learner.named_parameters()}
    h = np.maximum(batch.x.flatten(1).numpy() @ w["blocks.0.1.weight"].T + w["blocks.0.1.bias"], 0)
    return h, np.abs(h).mean(0) * np.abs(w["blocks.1.0.weight"]).sum(0)


def test_cbp_replaces_the_least_useful_unit():
    stream = TinyStream("class")
    strategy = engine(CBP, stream, rate=0.05, maturity=2, decay=0.9).strategy
    batch = stream[0].train.batch(torch.arange(30), step_keys(0, 0, 0, 1)[0])
    _, worth = cbp_by_hand(strategy, batch)
    strategy.enter(0)
    replaced = []
    for step in range(5):
        before = state(strategy)
        _, aux = strategy.loss(batch)
        with torch.no_grad():
            strategy.after_step(batch, aux)
        changed = (before[FIRST] != state(strategy)[FIRST]).any(1).nonzero()[:, 0].tolist()
        replaced.append(changed)
        if step < 2:
            np.testing.assert_allclose(strategy.utility_0.numpy(), (1 - 0.9 ** (step + 1)) * worth, rtol=1e-4)
    # mature from step 2 on: 16 units x .05 = .8 due at step 2, 1.6 at step 3, so the first goes at step 3
    assert replaced[:3] == [[], [], []]
    (unit,) = replaced[3]
    assert worth[unit] == worth.min()
    assert strategy.age_0[unit] <= 1
    assert (strategy.learner.blocks[0][1].weight[unit].abs() <= strategy.bound_0).all()


def test_cbp_hands_the_mean_output_to_the_next_bias():
    stream = TinyStream("class")
    strategy = engine(CBP, stream, rate=0.05, maturity=2, decay=0.9).strategy
    batch = stream[0].train.batch(torch.arange(30), step_keys(0, 0, 0, 1)[0])
    h, worth = cbp_by_hand(strategy, batch)
    before = state(strategy)
    unit = torch.tensor([int(worth.argmax())])
    with torch.no_grad():
        mean = torch.tensor(h.mean(0), dtype=torch.float32)
        gone, new = torch.arange(16) == unit, torch.rand(1, 16)
        strategy.replace(0, unit, torch.tensor([True]), gone, new, mean)
    after = state(strategy)
    expected = before["learner.blocks.1.0.bias"] + before[SECOND][:, unit[0]] * mean[unit]
    torch.testing.assert_close(after["learner.blocks.1.0.bias"], expected)
    assert (after[SECOND][:, unit[0]] == 0).all()
    assert after["learner.blocks.0.1.bias"][unit] == 0
    assert torch.equal(after[FIRST][unit], new)


def test_cbp_corrects_running_means_for_their_age():
    """Units of different ages whose running means all began at zero are compared by what they are worth now.

    The least useful one is replaced, not a young one, and the next biases take over its whole mean output.
    """
    stream = TinyStream("class")
    strategy = engine(CBP, stream, rate=0.05, maturity=2, decay=0.9).strategy
    first = strategy.learner.blocks[0][1].weight.detach().clone()
    strategy.learner.blocks[0][1].bias.data.fill_(1.0)  # every unit speaks
    assert float(strategy.bound_0) == pytest.approx(3**0.5 * float(first.std()))
    batch = stream[0].train.batch(torch.arange(30), step_keys(0, 0, 0, 1)[0])
    h, worth = cbp_by_hand(strategy, batch)
    least, next_one = np.argsort(worth)[:2]
    age = np.full(16, 20.0)
    age[next_one] = 3.0
    correction = 1 - 0.9**age
    for name, value in (("age", age), ("utility", correction * worth), ("output", correction * h.mean(0))):
        strategy.get_buffer(f"{name}_0").copy_(torch.from_numpy(value))
    assert (1 - 0.9**4) * worth[next_one] < (1 - 0.9**21) * worth[least], "without the correction it would go"
    strategy.due_0.fill_(1.0)
    before = state(strategy)
    _, aux = strategy.loss(batch)
    with torch.no_grad():
        strategy.after_step(batch, aux)
    after = state(strategy)
    assert (before[FIRST] != after[FIRST]).any(1).nonzero()[:, 0].tolist() == [least]
    expected = before["learner.blocks.1.0.bias"] + before[SECOND][:, least] * float(h.mean(0)[least])
    torch.testing.assert_close(after["learner.blocks.1.0.bias"], expected)


@pytest.mark.parametrize("learner", ["mlp", "cnn"])
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_cbp_forgets_the_moments_of_the_units_it_replaces_and_no_others(learner, optimizer):
    stream = TinyStream("class")
    with seeded(0, "learner"):
        network = {"mlp": small_mlp, "cnn": lambda info: CNN(info.input_shape, info.n_classes, [4, 6])}[learner]
        strategy = CBP(network(stream.info), stream.info, rate=0.3, maturity=1)
    make = {"adam": torch.optim.Adam, "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}[optimizer]
    update = Updater(make, None, None, torch.device("cpu"))
    update.refresh(strategy, reset=False)
    strategy.enter(0)
    kept = {}
    for step in range(4):
        for own in update.optimizer.state.values():  # nothing of the earlier steps is zero by chance
            for value in own.values():
                if value is not None and value.dim() > 0:
                    value.abs_().add_(1.0)
        update(strategy, stream[0].train.batch(torch.arange(30), step_keys(0, 0, step, 1)[0]))
        kept = {p: {k: v for k, v in s.items() if v is not None and v.dim()} for p, s in update.optimizer.state.items()}
    first, second = strategy.layers[:2]
    gone = strategy.new_0 == 1
    assert 0 < int(gone.sum()) < len(gone)
    for moment in (*kept[first.weight].values(), *kept[first.bias].values()):
        assert (moment.flatten(1) == 0).all(1).equal(gone) if moment.dim() > 1 else (moment == 0).equal(gone)
    for moment in kept[second.weight].values():
        by_unit = moment.view(len(moment), len(gone), -1)
        assert (by_unit[:, gone] == 0).all()
        assert (by_unit[:, ~gone] != 0).any((0, 2)).all()
    assert all((moment != 0).any() for moment in kept[second.bias].values())


@pytest.mark.parametrize(
    ("rates", "samples"),
    [((0.05, 0.05), (40, 40)), ((0.05, 0.05), (40, 45)), ((0.05, 0.3), (40, 40))],
    ids=["one optimiser", "one each", "not stacked"],
)
def test_cbp_with_adam_in_a_population_is_cbp_alone(rates, samples):
    def replicas():
        return [
            engine(CBP, TinyStream("class", seed, samples=n), epochs=3, rate=rate, maturity=3)
            for seed, (rate, n) in enumerate(zip(rates, samples, strict=True))
        ]

    torch.set_default_dtype(torch.float64)  # rounding would choose other units
    try:
        together, alone = Population(replicas(), always=True), replicas()
        together.run()
        for one, other in zip(alone, together.engines, strict=True):
            one.run()
            found = other.strategy.state_dict()
            for name, tensor in one.strategy.state_dict().items():
                torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-8)
    finally:
        torch.set_default_dtype(torch.float32)


def test_cbp_subtracts_the_mean_output_from_the_adaptable_contribution():
    stream = TinyStream("class")
    strategy = engine(CBP, stream, utility="adaptable_contribution", decay=0.9).strategy
    batch = stream[0].train.batch(torch.arange(30), step_keys(0, 0, 0, 1)[0])
    h, _ = cbp_by_hand(strategy, batch)
    w = {n: np.abs(p.detach().numpy()) for n, p in strategy.learner.named_parameters()}
    strategy.enter(0)
    worth = np.abs(h - h.mean(0)).mean(0) * w["blocks.1.0.weight"].sum(0) / w["blocks.0.1.weight"].sum(1)
    _, aux = strategy.loss(batch)
    with torch.no_grad():
        strategy.after_step(batch, aux)
    np.testing.assert_allclose(strategy.utility_0.numpy(), 0.1 * worth, rtol=1e-4)


def test_cbp_replaces_at_its_rate():
    strategy = train(CBP, TinyStream("class"), epochs=20, rate=0.01, maturity=10).strategy
    steps = 3 * 20 * 5
    young = sum(int((age < steps).sum()) for age in (strategy.age_0, strategy.age_1))
    assert 10 <= young <= 32  # 0.01 x 16 x 290 = 46 replacements a layer


def test_use_makes_firm_and_disuse_fades():
    stream = TinyStream("class")
    strategy = engine(Usage, stream, firm=3.0, fade=0.1, memory=0.5).strategy
    batch = stream[0].train.batch(torch.arange(30), step_keys(0, 0, 0, 1)[0])
    w = strategy.learner.blocks[0][1].weight.detach().numpy().astype(np.float64)
    x = np.abs(batch.x.flatten(1).numpy()).mean(0)
    h = np.maximum(batch.x.flatten(1).numpy() @ w.T + strategy.learner.blocks[0][1].bias.detach().numpy(), 0).mean(0)
    _, aux = strategy.loss(batch)
    with torch.no_grad():
        strategy.gradients({}, batch, aux)
        strategy.learner.blocks[0][1].weight += 1.0  # the optimiser's step
        strategy.after_step(batch, aux)
    use = h[:, None] * np.abs(w + 1) * x[None, :]
    plasticity = 1 / (1 + 3 * 0.5 * use / use.mean())
    expected = (w + plasticity) * (1 - 0.1 * plasticity)
    np.testing.assert_allclose(state(strategy)[FIRST].numpy(), expected, rtol=1e-4)
