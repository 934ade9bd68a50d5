"""Recurrent layers against torch's own modules and against numpy, written from the papers' equations."""

import numpy as np
import pytest
import torch
from torch import nn

from cl.errors import ConfigError
from cl.learners.cells import GRUCell, LSTMCell, RNNCell
from cl.learners.readout import StateAttention, largest, last, reverse
from cl.learners.recurrent import GRU, LSTM, RNN, RecurrentBlock
from cl.seeding import seeded
from cl.strategy import Strategy
from cl.testing.tiny import TinySequences
from cl.unsaved import attributes, lost

D, H, B, T = 3, 5, 4, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def arrays(cell):
    return [p.detach().double().numpy() for p in cell.kernel.parameters()]


def inputs():
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(0))


CELLS = [
    lambda: RNNCell(D, H),
    lambda: RNNCell(D, H, "relu", "identity"),
    lambda: LSTMCell(D, H),
    lambda: GRUCell(D, H, timescale=50),
]


@pytest.mark.parametrize("make", CELLS)
def test_step_by_step_equals_the_fused_kernel(make):
    cell, x = make(), inputs().requires_grad_()
    fused, stepped = cell(x), torch.stack([s[0] for s in cell.scan(x)], 1)
    torch.testing.assert_close(fused, stepped)
    weight = torch.randn(B, T, H)
    for a, b in zip(
        torch.autograd.grad((fused * weight).sum(), [x, *cell.parameters()]),
        torch.autograd.grad((stepped * weight).sum(), [x, *cell.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", CELLS)
def test_torchs_layer_gives_gradients_in_evaluation_mode_on_a_gpu_too(make):
    net = nn.Sequential(make()).eval()
    seen = []
    net[0].kernel.register_forward_pre_hook(lambda kernel, _: seen.append(kernel.training))
    x = inputs()
    found = torch.autograd.grad(net(x).sum(), list(net.parameters()))  # cuDNN refuses it of a layer in evaluation mode
    net.train()
    wanted = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    assert seen == [True, True]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_peepholes_as_in_the_paper():
    cell = LSTMCell(D, H, peepholes=True)
    with torch.no_grad():
        cell.peepholes.normal_()
    w, u, b1, b2 = arrays(cell)
    pi, pf, po = cell.peepholes.detach().double().numpy()
    x = inputs()
    h, c = np.zeros((B, H)), np.zeros((B, H))
    for t in range(T):
        i, f, g, o = np.split(x[:, t].double().numpy() @ w.T + h @ u.T + b1 + b2, 4, axis=1)
        i, f, g = sigmoid(i + pi * c), sigmoid(f + pf * c), np.tanh(g)
        c = f * c + i * g  # the output gate sees the new cell state
        h = sigmoid(o + po * c) * np.tanh(c)
        np.testing.assert_allclose(cell(x)[:, t].detach().numpy(), h, rtol=1e-4, atol=1e-5)


def test_gates_say_what_is_kept():
    x = inputs()
    lstm, gru = LSTMCell(D, H), GRUCell(D, H)
    state = tuple(torch.randn(B, H) for _ in range(2))
    p = lstm.project(x)[:, 0]
    gates, new = lstm.gates(p, state), lstm.step(p, state)
    candidate = torch.tanh(p + state[0] @ lstm.kernel.weight_hh_l0.T + lstm.kernel.bias_hh_l0)[:, 2 * H : 3 * H]
    torch.testing.assert_close(new[1], gates["keep"] * state[1] + gates["input"] * candidate)
    torch.testing.assert_close(new[0], gates["output"] * new[1].tanh())
    with torch.no_grad():
        gru.kernel.bias_ih_l0[H : 2 * H] = 50.0  # keep everything
    p = gru.project(x)[:, 0]
    assert (gru.gates(p, state[:1])["keep"] > 1 - 1e-6).all()
    torch.testing.assert_close(gru.step(p, state[:1])[0], state[0])


def test_initialisation():
    lstm = LSTMCell(D, 400)
    bias = lstm.kernel.bias_ih_l0 + lstm.kernel.bias_hh_l0
    assert torch.equal(bias[400:800], torch.ones(400))
    chrono = LSTMCell(D, 400, timescale=101)
    bias = chrono.kernel.bias_ih_l0 + chrono.kernel.bias_hh_l0
    forget = bias[400:800].exp()
    assert forget.min() >= 1
    assert forget.max() <= 100
    assert abs(forget.mean().item() - 50.5) < 6  # uniform on [1, 100], standard error 1.4
    assert torch.equal(bias[:400], -bias[400:800])
    identity = RNNCell(D, H, "relu", "identity")
    assert torch.equal(identity.kernel.weight_hh_l0, torch.eye(H))
    orthogonal = GRUCell(D, H, recurrent_init="orthogonal")
    for block in orthogonal.kernel.weight_hh_l0.detach().split(H):
        torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cell", "gates"), [(RNNCell, 1), (LSTMCell, 4), (GRUCell, 3)])
def test_fan_in_draws_each_weight_within_one_over_the_root_of_its_inputs(cell, gates):
    more = {"forget_bias": None} if cell is LSTMCell else {}
    kernel = cell(9, 400, recurrent_init="fan_in", **more).kernel
    for part, inputs in (("ih", 9), ("hh", 400)):
        for kind in ("weight", "bias"):
            values, bound = getattr(kernel, f"{kind}_{part}_l0"), inputs**-0.5
            assert len(values) == gates * 400
            assert float(values.detach().abs().max()) <= bound
            np.testing.assert_allclose(values.detach().std(), bound / 3**0.5, rtol=0.1)


def test_readout_layers_stand_between_the_states_and_the_head():
    net = RNN((T, D), 4, hidden=H, readout=[7, 3], head="single").double()
    assert net.widths == (H, 7, 3)
    x = inputs().double()
    state = net.blocks[0](x.transpose(1, 2)).transpose(1, 2).detach().numpy()[:, -1]
    for block in net.blocks[1:]:
        state = np.tanh(state @ block.layer.weight.detach().numpy().T + block.layer.bias.detach().numpy())
    wanted = state @ net.head.weight.detach().numpy().T + net.head.bias.detach().numpy()
    np.testing.assert_allclose(net(x).detach().numpy(), wanted, atol=1e-12)
    for wrong, text in (([0], "widths > 0"), ([4], "bidirectional")):
        with pytest.raises(ConfigError, match=text):
            RNN((T, D), 4, hidden=H, readout=wrong, bidirectional=wrong == [4])


def test_irnn_remembers_a_sum():
    """With the identity, zero biases and non-negative inputs the state is the running sum of W x."""
    cell = RNNCell(D, H, "relu", "identity")
    with torch.no_grad():
        cell.kernel.weight_ih_l0.abs_()
    x = inputs().abs()
    torch.testing.assert_close(cell(x), (x @ cell.kernel.weight_ih_l0.T).cumsum(1), rtol=1e-4, atol=1e-6)


def test_a_stack_equals_torchs_stack():
    ours = LSTM((T, D), 2, hidden=H, layers=2)
    theirs = nn.LSTM(D, H, num_layers=2, batch_first=True)
    with torch.no_grad():
        for layer, block in enumerate(ours.blocks):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(theirs, f"{kind}_l{layer}").copy_(getattr(block.cell.kernel, f"{kind}_l0"))
    x = inputs()
    torch.testing.assert_close(ours.activations(x)[1].transpose(1, 2), theirs(x)[0])
    torch.testing.assert_close(ours(x), ours.head(theirs(x)[0][:, -1]))


def test_bidirectional_equals_torchs_on_packed_sequences():
    lengths = torch.tensor([6, 4, 3, 1])
    real = torch.arange(T) < lengths[:, None]
    ours = RecurrentBlock(D, H, GRUCell, bidirectional=True, residual=False, dropout=0.0)
    theirs = nn.GRU(D, H, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for suffix, cell in (("", ours.cell), ("_reverse", ours.backward_cell)):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(theirs, f"{kind}_l0{suffix}").copy_(getattr(cell.kernel, f"{kind}_l0"))
    x = inputs() * real[..., None]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    expected = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]
    out = ours(x.transpose(1, 2), real).transpose(1, 2)
    torch.testing.assert_close(out * real[..., None], expected)


def test_the_readout_of_both_directions_is_torchs_final_state():
    ours = GRU((T, D), 2, hidden=H, bidirectional=True)
    x = inputs()
    states = ours.activations(x)[0]
    expected = torch.cat([states[:, :H, -1], states[:, H:, 0]], 1)
    torch.testing.assert_close(ours.features(x), expected)


def test_residual_layers_add_their_input():
    with seeded(0, "a"):
        plain = RNN((T, D), 2, hidden=H, layers=2)
    with seeded(0, "a"):
        residual = RNN((T, D), 2, hidden=H, layers=2, residual=True)
    x = inputs()
    first, second = plain.activations(x)
    torch.testing.assert_close(residual.activations(x)[1], first + second)


def test_reverse_and_last_by_hand():
    x = torch.tensor([[[1.0], [2.0], [3.0], [9.0]]])
    real = torch.tensor([[True, True, True, False]])
    assert reverse(x, real).flatten().tolist() == [3, 2, 1, 9]
    assert reverse(reverse(x, real), real).equal(x)
    assert last(x, real).item() == 3


def test_attention_by_hand():
    """Two states of one unit, score weight 1: weights are softmax(q s), output tanh(a context + b query)."""
    net = StateAttention(1)
    with torch.no_grad():
        net.score.weight.fill_(1.0)
        net.combine.weight.copy_(torch.tensor([[0.5, 0.25]]))
    states = torch.tensor([[[1.0], [2.0]]])
    e = np.exp([2.0, 4.0])
    context = (e / e.sum()) @ np.array([1.0, 2.0])
    assert net(states, None, each=False).item() == pytest.approx(np.tanh(0.5 * context + 0.25 * 2), abs=1e-6)
    each = net(states, None, each=True)
    assert each[0, 0].item() == pytest.approx(np.tanh(0.5 * 1 + 0.25 * 1), abs=1e-6)
    assert each[0, 1].item() == pytest.approx(np.tanh(0.5 * context + 0.25 * 2), abs=1e-6)


def test_a_shortcut_that_no_layer_can_have_is_refused():
    with pytest.raises(ConfigError, match=r"`learner\.residual` false where no layer is as wide as its input"):
        GRU((5, 3), 2, hidden=4, residual=True)
    assert [block.residual for block in GRU((5, 3), 2, hidden=4, layers=2, residual=True).blocks] == [False, True]
    assert GRU((5, 4), 2, hidden=4, residual=True).blocks[0].residual


def test_the_largest_of_no_real_step_is_nothing():
    """As the mean and the last state are finite there, and so is what follows."""
    states = torch.tensor([[[1.0, -2.0], [3.0, -4.0]], [[5.0, 6.0], [7.0, 8.0]]], requires_grad=True)
    real = torch.tensor([[True, True], [False, False]])
    found = largest(states, real)
    assert found.tolist() == [[3.0, -2.0], [0.0, 0.0]]
    found.sum().backward()
    assert states.grad[1].abs().sum() == 0


@pytest.mark.parametrize("make", [GRU, LSTM])
def test_a_restored_kernel_is_no_loss(make):
    """torch's recurrent layers keep a list of their parameters, which is made anew when a state is loaded."""
    info = TinySequences("padded", "task").info
    strategy = Strategy(make(info.input_shape, info.n_classes, hidden=4, padded=True), info)
    before = attributes(strategy)
    strategy.load_state_dict(strategy.state_dict())
    strategy.to(torch.float64).to(torch.float32)
    assert lost(strategy, before) == []
