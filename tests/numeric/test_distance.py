"""Memory over distance against closed forms, automatic differentiation of the whole, and hand-worked cases."""

import math

import numpy as np
import pytest
import torch

from cl.distance import addresses, attention, gates, gradients, recall, states
from cl.errors import ConfigError
from cl.learners.cells import GRUCell, LSTMCell, RNNCell
from cl.learners.hybrid import Hybrid
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU, LSTM, RNN
from cl.learners.ssm import StateSpace
from cl.learners.transformer import Transformer


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_wilson_by_hand():
    """8 of 10: (.8 + 1.92/10 -+ 1.96 sqrt(.16/10 + .96/100)) / (1 + 3.84/10), worked to four places."""
    low, high = recall.wilson(np.array([0.8]), np.array([10.0]))
    assert low[0] == pytest.approx(0.4902, abs=1e-4)
    assert high[0] == pytest.approx(0.9433, abs=1e-4)


def test_wilson_covers_what_it_says():
    generator = np.random.default_rng(0)
    p, n = 0.9, 40
    found = generator.binomial(n, p, 20000) / n
    low, high = recall.wilson(found, np.full(20000, float(n)))
    assert abs(((low <= p) & (p <= high)).mean() - 0.95) < 0.02


def test_half_distance_of_an_exponential():
    """Recall .1 + .9 exp(-d / 20) has lost half of what is above chance at 20 ln 2."""
    d = np.arange(0, 100.0)
    found = recall.half_distance(d, 0.1 + 0.9 * np.exp(-d / 20), 0.1)
    assert found == pytest.approx(20 * math.log(2), abs=0.01)
    assert recall.half_distance(d, np.full(100, 0.9), 0.1) == math.inf
    assert math.isnan(recall.half_distance(d, np.full(100, 0.1), 0.1))


def test_half_distance_of_a_window_starts_at_its_best():
    """Trained on 20 to 30 steps alone: .6 above chance at best, .3 above between 40 (.5) and 60 (.1)."""
    found = recall.half_distance(np.array([1.0, 20, 30, 40, 60]), np.array([0.2, 0.7, 0.8, 0.7, 0.3]), 0.2)
    assert found == pytest.approx(40 + 20 * (0.5 - 0.3) / (0.5 - 0.1))


def test_a_network_that_guesses_has_no_half_life():
    """Guessing among four at ten distances: in almost all of many data sets it says so."""
    distance = np.repeat(np.arange(10), 100)
    told = 0
    for seed in range(40):
        score = (np.random.default_rng(seed).random(1000) < 0.25).astype(float)
        told += math.isnan(recall.half_life(score, distance, 0.25, seed).steps)
    assert told >= 36


def test_half_life_interval_holds_the_truth():
    """Over many data sets drawn from a known curve, about 95 % of the intervals hold the known half-life."""
    distance = np.repeat(np.arange(0, 80, 5), 60)
    truth = 20 * math.log(2)
    held = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        score = (generator.random(len(distance)) < np.exp(-distance / 20)).astype(float)
        found = recall.half_life(score, distance, 0.0, seed)
        assert found.low <= found.steps <= found.high
        held += found.low - 0.3 <= truth <= found.high + 0.3  # linear interpolation of a convex curve is a little high
    assert held >= 52


def test_half_life_interval_holds_the_truth_where_a_plateau_is_below_the_ceiling():
    """Half of the best of several noisy means lies too high: uncorrected, 16 of these 120 intervals end too early."""
    d = np.array([1, 2, 5, 10, 20, 30, 50, 100])
    curve = np.where(d <= 20, 0.7, 0.25 + 0.45 * np.exp(-(d - 20) / 30))
    truth = recall.half_distance(d.astype(float), curve, 0.25)
    early = 0
    for seed in range(120):
        score = (np.random.default_rng(seed).random((8, 200)) < curve[:, None]).astype(float)
        early += recall.half_life(score.ravel(), np.repeat(d, 200), 0.25, seed).high < truth
    assert early <= 8


def test_half_life_is_censored_where_nothing_is_lost():
    found = recall.half_life(np.ones(40), np.repeat([1, 2], 20), 0.5, 0)
    assert (found.steps, found.low, found.high) == (math.inf, math.inf, math.inf)


@pytest.mark.parametrize("make", [RNNCell, LSTMCell, GRUCell])
def test_state_jacobians_equal_those_of_the_whole_map(make):
    cell, x = make(2, 3), draw(2, 5, 2)
    norms = gradients.state_jacobians(cell, x)
    assert norms.shape == (2, 6)
    projected = cell.project(x).detach()
    for sample in range(2):
        all_states = [cell.initial(x[:1]), *cell.scan(x[sample : sample + 1])]
        for d in range(6):

            def run(flat, d=d, sample=sample):
                state = tuple(flat[None].chunk(cell.states, 1))
                for t in range(5 - d, 5):
                    state = cell.step(projected[sample : sample + 1, t], state)
                return torch.cat(state, 1)[0]

            start = torch.cat(all_states[5 - d], 1)[0].detach()
            expected = torch.linalg.matrix_norm(torch.autograd.functional.jacobian(run, start), ord=2)
            torch.testing.assert_close(norms[sample, d], expected, rtol=1e-4, atol=1e-6)


def test_gradients_of_an_identity_network_do_not_decay():
    cell = RNNCell(2, 4, "relu", "identity")
    with torch.no_grad():
        cell.kernel.weight_ih_l0.abs_()
    norms = gradients.state_jacobians(cell, draw(1, 30, 2).abs() + 0.1)
    torch.testing.assert_close(norms, torch.ones(1, 31))


def test_gradients_of_a_shrinking_network_decay_exponentially():
    """h' = relu(a h + ...): the norm is a^d, the timescale -1 / log a."""
    cell = RNNCell(2, 4, "relu", "identity")
    with torch.no_grad():
        cell.kernel.weight_hh_l0.mul_(0.9)
        cell.kernel.weight_ih_l0.abs_()
    norms = gradients.state_jacobians(cell, draw(1, 20, 2).abs() + 0.1)
    torch.testing.assert_close(norms[0], 0.9 ** torch.arange(21.0))
    assert gradients.timescale(norms).item() == pytest.approx(-1 / math.log(0.9), rel=1e-3)


@pytest.mark.parametrize("rho", [0.3, 0.577, 0.9])
def test_norms_that_single_precision_lost_do_not_count(rho):
    """rho^d is zero in single precision from some distance on."""
    norms = (rho ** torch.arange(785.0, dtype=torch.float64)).float()[None]
    assert gradients.timescale(norms).item() == pytest.approx(-1 / math.log(rho), rel=1e-3)
    gone = torch.tensor([[1.0, 0.0, 0.0], [1.0, torch.nan, torch.nan]])
    torch.testing.assert_close(gradients.timescale(gone), torch.tensor([0.0, torch.nan]), equal_nan=True)


@pytest.mark.parametrize("make", [GRU, Transformer, NTM, StateSpace])
@pytest.mark.parametrize("target", ["class", "steps"])
def test_input_jacobians_equal_reverse_differentiation(make, target):
    net = make((6, 2), 3, target=target).eval()
    x = draw(2, 6, 2).requires_grad_()
    norms = gradients.input_jacobians(net, x)
    out = net.features(x)
    out = out[:, -1] if target == "steps" else out
    squares = torch.zeros(2, 6)
    for unit in range(out.shape[1]):
        (g,) = torch.autograd.grad(out[:, unit].sum(), x, retain_graph=True)
        squares += g.square().sum(2)
    torch.testing.assert_close(norms, squares.sqrt().flip(1), rtol=1e-3, atol=1e-5)


def tokens(*lengths, vocabulary=7, width=10):
    x = torch.randint(1, vocabulary, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(width) < torch.tensor(lengths)[:, None], x, 0)


@pytest.mark.parametrize("make", [GRU, Transformer, NTM, StateSpace])
@pytest.mark.parametrize("target", ["class", "steps"])
def test_padding_changes_no_jacobian(make, target):
    """A sample among longer ones has the norms that it has alone, counted from its own last step."""
    net = make((10,), 3, vocabulary=7, embedding=4, target=target).eval()
    x = tokens(6, 10, 6, 1)
    norms = gradients.input_jacobians(net, x)
    assert norms.shape == (4, 10)
    for row, length in enumerate((6, 10, 6, 1)):
        alone = gradients.input_jacobians(net, x[row : row + 1, :length])
        torch.testing.assert_close(norms[row, :length], alone[0], rtol=1e-4, atol=1e-6)
        assert norms[row, length:].isnan().all()


def test_padding_changes_no_jacobian_of_states():
    net = LSTM((10,), 3, hidden=4, layers=2, vocabulary=7, embedding=4).eval()
    x = tokens(6, 10)
    layers = gradients.state_norms(net, x)
    assert [n.shape for n in layers] == [(2, 11)] * 2
    alone = gradients.state_norms(net, x[:1, :6])
    for padded, own in zip(layers, alone, strict=True):
        torch.testing.assert_close(padded[0, :7], own[0])
        assert padded[0, 7:].isnan().all()
        torch.testing.assert_close(gradients.timescale(padded)[0], gradients.timescale(own)[0])
    entering = net.activations(x[:1, :6])[0].transpose(1, 2)
    torch.testing.assert_close(alone[1], gradients.state_jacobians(net.blocks[1].cell, entering))
    assert gradients.state_norms(Transformer((10, 2), 3), draw(2, 10, 2)) == []


def test_gates_of_units_reach_every_statistic():
    """With the units of the first layer off, the second sees nothing, and the input has no influence."""
    net = GRU((5, 2), 3, hidden=4, layers=2).eval()
    x, off = draw(3, 5, 2), [torch.zeros(4), torch.ones(4)]
    assert not gradients.input_jacobians(net, x, off).any()
    silent, _ = gates.network_gates(net, x, off)
    cell = net.blocks[1].cell
    torch.testing.assert_close(silent[1]["keep"], gates.gate_values(cell, torch.zeros(3, 5, 4))["keep"])
    torch.testing.assert_close(states.states(net, x, [torch.ones(4), torch.zeros(4)])[0], torch.zeros(3, 5, 4))


@pytest.mark.parametrize(("body", "has"), [("gru", "gates"), ("transformer", "attention"), ("rnn", "nothing")])
def test_layers_after_convolutions_are_looked_into(body, has):
    net = Hybrid((6, 2), 3, channels=4, kernels=(3,), body=body, hidden=8, layers=2).eval()
    x = draw(2, 6, 2)
    front = net.activations(x)[0]
    assert any(gates.gated(block) for block in net.blocks) == (has == "gates")
    assert attention.has_attention(net) == (has == "attention")
    if has == "gates":
        layers, _ = gates.network_gates(net, x)
        assert [g["keep"].shape for g in layers] == [(2, 6, 8)] * 2
        cell = net.blocks[1].cell
        torch.testing.assert_close(layers[0]["keep"], gates.gate_values(cell, front.transpose(1, 2))["keep"])
    if has == "attention":
        found, _ = attention.attention_weights(net, x)
        torch.testing.assert_close(found[0], net.blocks[1].attention_weights(front))


def test_retention_time_of_a_constant_gate():
    """Forget gate sigma(2) at every step: tau = -1 / log sigma(2), on real steps alone."""
    net = LSTM((5, 2), 3, hidden=4, forget_bias=2.0)
    with torch.no_grad():
        cell = net.blocks[0].cell.kernel
        cell.weight_ih_l0.zero_()
        cell.weight_hh_l0.zero_()
    expected = -1 / math.log(1 / (1 + math.exp(-2)))
    (times,) = gates.retention_times(net, draw(3, 5, 2))
    torch.testing.assert_close(times, torch.full((4,), expected), rtol=1e-4, atol=0)


def test_gates_at_the_right_steps_and_layers():
    net = GRU((5, 2), 3, hidden=4, layers=2)
    x = draw(3, 5, 2)
    layers, real = gates.network_gates(net, x)
    assert real is None
    assert [g["keep"].shape for g in layers] == [(3, 5, 4)] * 2
    first = net.activations(x)[0].transpose(1, 2)
    cell = net.blocks[1].cell
    state = cell.scan(first)[2]
    torch.testing.assert_close(layers[1]["keep"][:, 3], cell.gates(cell.project(first)[:, 3], state)["keep"])
    with pytest.raises(ConfigError, match="gates"):
        gates.network_gates(RNN((5, 2), 3), x)


def test_padding_does_not_count_in_retention_time():
    keep = torch.tensor([[[0.5], [0.5], [0.9]]])
    real = torch.tensor([[True, True, False]])
    assert gates.retention_time(keep, real).item() == pytest.approx(1 / math.log(2))


def test_attention_mass_of_uniform_causal_attention():
    """At step t each of t + 1 steps gets 1 / (t + 1): distance d gets the mean of that over t >= d."""
    t = 6
    weights = torch.tril(torch.ones(t, t)) / torch.arange(1, t + 1)[:, None]
    mass = attention.mass_by_distance(weights[None, None])
    expected = [np.mean([1 / (s + 1) for s in range(d, t)]) for d in range(t)]
    np.testing.assert_allclose(mass[0], expected, rtol=1e-5)


def test_attention_mass_leaves_padding_out():
    weights = torch.full((2, 1, 4, 4), 0.25)
    weights[1] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    mass = attention.mass_by_distance(weights, real)[0]
    np.testing.assert_allclose(mass, [(4 * 0.25 + 2 * 0.5) / 6, (3 * 0.25 + 0.5) / 4, 0.25, 0.25])


def test_attention_of_the_last_step():
    weights = torch.tensor([[[[0.1, 0.2, 0.7]]], [[[0.4, 0.6, 0.0]]]])
    real = torch.tensor([[True] * 3, [True, True, False]])
    mass = attention.mass_from_last(weights, real)
    np.testing.assert_allclose(mass, [[(0.7 + 0.6) / 2, (0.2 + 0.4) / 2, 0.1]], rtol=1e-5)


def test_attention_at_distances_that_no_sample_has_is_not_known():
    real = torch.tensor([[True, True, False, False]] * 2)
    weights = real[:, None, None].expand(2, 1, 4, 4) * 0.5
    assert attention.mass_by_distance(weights, real)[0].tolist() == pytest.approx(
        [0.5, 0.5, math.nan, math.nan], nan_ok=True
    )
    last = attention.mass_from_last(weights[:, :, :1], real)[0]
    assert last.tolist() == pytest.approx([0.5, 0.5, math.nan, math.nan], nan_ok=True)


def test_attention_is_found_in_transformers_and_readouts():
    x = draw(2, 5, 3)
    net = Transformer((5, 3), 2, width=8, causal=True)
    found, _ = attention.attention_weights(net, x)
    assert [w.shape for w in found] == [(2, 4, 5, 5)] * 2
    assert not found[1].triu(1).any()
    torch.testing.assert_close(found[1].sum(3), torch.ones(2, 4, 5))
    inner = net.blocks[1].attention
    torch.testing.assert_close(found[1], inner.weights(net.blocks[1].norms[0](net.activations(x)[0].transpose(1, 2))))
    assert attention.attention_weights(GRU((5, 3), 2, reading="attention"), x)[0][0].shape == (2, 1, 1, 5)
    with pytest.raises(ConfigError, match="attention"):
        attention.attention_weights(GRU((5, 3), 2), x)


def test_addresses_by_hand():
    """Slot t is written at step t and read three steps later."""
    write = torch.eye(8)[None, :, None]
    read = torch.roll(torch.eye(8), 3, 0)[None, :, None]
    lag = addresses.lag_of_reading(read, write)
    assert lag[0, 3:].tolist() == [3.0] * 5
    assert addresses.slots_used(write[:, :4]).tolist() == [0.5]
    assert addresses.sharpness(torch.tensor([1.0, 0, 0, 0])).item() == pytest.approx(1)
    assert addresses.sharpness(torch.full((4,), 0.25)).item() == pytest.approx(0, abs=1e-6)
    net = NTM((5, 2), 3, hidden=4, slots=6, slot_size=3, reads=2)
    x = draw(2, 5, 2)
    found = addresses.addresses(net, x)
    assert found["read"].shape == (2, 5, 2, 6)
    torch.testing.assert_close(found["write"][:, 2], net.blocks[0].cell.scan(x)[2]["write"])


def test_padding_has_no_address():
    net = NTM((6,), 3, hidden=4, slots=5, slot_size=3, vocabulary=7, embedding=4)
    x = tokens(4, 6, width=6)
    found, alone = addresses.addresses(net, x), addresses.addresses(net, x[:1, :4])
    assert found["read"][0, 4:].isnan().all()
    torch.testing.assert_close(found["write"][0, :4], alone["write"][0])
    lags = [addresses.lag_of_reading(f["read"], f["write"]) for f in (found, alone)]
    torch.testing.assert_close(lags[0][0, 1:4], lags[1][0, 1:])
    assert lags[0][0, 4:].isnan().all()
    torch.testing.assert_close(addresses.slots_used(found["write"])[0], addresses.slots_used(alone["write"])[0])


def test_drift_of_states():
    before = draw(3, 4, 5)
    now = before.clone()
    now[:, 2] *= 1.5
    torch.testing.assert_close(states.drift(before, now), torch.tensor([0, 0, 0.5, 0]))
    real = torch.tensor([[True, True, False, False]] * 3)
    assert states.drift(before, now, real)[:2].tolist() == [0, 0]
