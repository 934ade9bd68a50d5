"""Addressing of the NTM and the DNC by hand and in numpy; S4D's kernel as a recurrence; scales."""

import numpy as np
import pytest
import torch

from cl.learners.dnc import DNC, DNCCell, allocation, link, retention
from cl.learners.hybrid import Hybrid
from cl.learners.memory import EMPTY, content
from cl.learners.ntm import NTM, NTMCell, sharpen, shift
from cl.learners.ssm import S4D


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cosine(key, memory):
    return memory @ key / (np.linalg.norm(memory, axis=1) * np.linalg.norm(key) + 1e-8)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_content_addresses_by_hand():
    """Slots along, across and against the key have cosines 1, 0, -1, whatever their length."""
    memory = torch.tensor([[[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]])
    found = content(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[2.0]]), memory)[0, 0]
    expected = np.exp([2.0, 0.0, -2.0]) / np.exp([2.0, 0.0, -2.0]).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_shift_by_hand():
    """A shift of +1 moves the head to the next slot, around the ring; mixed shifts spread it."""
    there = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
    assert shift(there, torch.tensor([[[0.0, 0.0, 1.0]]])).flatten().tolist() == [1, 0, 0, 0]
    assert shift(there, torch.tensor([[[1.0, 0.0, 0.0]]])).flatten().tolist() == [0, 0, 1, 0]
    spread = shift(there, torch.tensor([[[0.25, 0.5, 0.25]]])).flatten().tolist()
    assert spread == [0.25, 0, 0.25, 0.5]
    wide = shift(there, torch.tensor([[[0.0, 0.0, 0.0, 0.0, 1.0]]]))  # reach 2: by +2
    assert wide.flatten().tolist() == [0, 1, 0, 0]


def test_sharpening_by_hand():
    weights = torch.tensor([[[0.1, 0.3, 0.6]]])
    expected = np.array([0.01, 0.09, 0.36]) / 0.46
    np.testing.assert_allclose(sharpen(weights, torch.tensor([[2.0]])).flatten(), expected, rtol=1e-5)


def test_sharpening_of_empty_slots_has_finite_gradients():
    power = torch.tensor([[1.5]], requires_grad=True)
    sharpen(torch.tensor([[[0.0, 1.0]]]), power)[0, 0, 1].backward()
    assert torch.isfinite(power.grad).all()


def test_a_step_of_the_ntm_in_numpy():
    m, w, r, heads = 5, 3, 2, 3
    cell = NTMCell(4, 6, m, w, reads=r, writes=1, reach=1)
    memory, before = draw(1, m, w), torch.softmax(draw(1, heads, m, seed=1), 2)
    controls = draw(1, cell.interface.out_features, seed=2)
    new = cell.access(controls, {"memory": memory, "read": before[:, :r], "write": before[:, r:]})
    numbers, bank = controls[0].double().numpy(), memory[0].double().numpy()
    size = w + 3 + 3
    where = []
    for h in range(heads):
        c = numbers[h * size : (h + 1) * size]
        found = softmax(softplus(c[w]) * cosine(c[:w], bank))
        gate = sigmoid(c[w + 1])
        mixed = gate * found + (1 - gate) * before[0, h].double().numpy()
        s = softmax(c[w + 3 :])
        moved = np.array([sum(mixed[(i - j) % m] * s[j + 1] for j in (-1, 0, 1)) for i in range(m)])
        raised = moved ** (1 + softplus(c[w + 2]))
        where.append(raised / raised.sum())
    erase, add = sigmoid(numbers[heads * size :][:w]), np.tanh(numbers[heads * size + w :])
    expected = bank * (1 - np.outer(where[2], erase)) + np.outer(where[2], add)
    np.testing.assert_allclose(new["memory"][0].detach(), expected, rtol=1e-4, atol=1e-6)
    for h in range(r):
        np.testing.assert_allclose(new["read"][0, h].detach(), where[h], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(new["reads"][0, h].detach(), where[h] @ expected, rtol=1e-4, atol=1e-6)


def test_two_write_heads_erase_and_add_independently_of_their_order():
    cell = NTMCell(2, 4, 3, 2, reads=1, writes=2, reach=0)
    controls = torch.zeros(1, cell.interface.out_features)
    before = torch.eye(3)[None]
    size, w = cell.address_size, 2
    controls[0, [h * size + w + 1 for h in range(3)]] = -50.0  # gates closed: heads stay on slots 0 (read), 1, 2
    controls[0, 3 * size :] = torch.tensor([50.0, -50.0, -50.0, 50.0, 1.0, 1.0, 2.0, 2.0])
    new = cell.access(controls, {"memory": torch.ones(1, 3, w), "read": before[:, :1], "write": before[:, 1:]})
    one, two = np.tanh(1.0), np.tanh(2.0)
    expected = [[1, 1], [one, 1 + one], [1 + two, two]]
    np.testing.assert_allclose(new["memory"][0].detach(), expected, rtol=1e-5)


def test_memory_starts_empty_and_heads_at_the_first_slot():
    state = NTMCell(2, 4, 5, 3, reads=2, writes=1, reach=1).initial(torch.zeros(3, 7, 2))
    assert state["read"].shape == (3, 2, 5)
    assert (state["read"][..., 0] == 1).all()
    assert (state["read"].sum(2) == 1).all()
    assert torch.equal(state["memory"], torch.full((3, 5, 3), EMPTY))
    assert not DNCCell(2, 4, 5, 3, reads=2).initial(torch.zeros(3, 7, 2))["write"].any()


def test_allocation_by_hand():
    """Usage .2, .9, .5: least used first: .8 to slot 0, .2 * .5 to slot 2, .2 * .5 * .1 to slot 1."""
    found = allocation(torch.tensor([[0.2, 0.9, 0.5]]))[0]
    np.testing.assert_allclose(found, [0.8, 0.2 * 0.5 * 0.1, 0.2 * 0.5], rtol=1e-5)
    assert allocation(torch.ones(1, 4)).abs().max() == 0
    assert allocation(torch.zeros(1, 4)).sum() == 1


def test_retention_by_hand():
    kept = retention(torch.tensor([[1.0, 0.5]]), torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
    np.testing.assert_allclose(kept, [[0.0, 0.75]])


def test_links_follow_the_order_of_writing():
    """Written one after the other, slots 2, 0, 1: L[0, 2] = L[1, 0] = 1 and nothing else."""
    matrix, precedence = torch.zeros(1, 3, 3), torch.zeros(1, 3)
    for slot in (2, 0, 1):
        write = torch.eye(3)[slot][None]
        matrix = link(matrix, precedence, write)
        precedence = (1 - write.sum(1, keepdim=True)) * precedence + write
    expected = torch.zeros(3, 3)
    expected[0, 2] = expected[1, 0] = 1
    assert torch.equal(matrix[0], expected)


def test_steps_of_the_dnc_in_numpy():
    m, w, r = 4, 3, 2
    cell = DNCCell(2, 5, m, w, reads=r)
    state = cell.initial(torch.zeros(1, 1, 2))
    bank = state["memory"][0].double().numpy()
    usage, order, last = np.zeros(m), np.zeros((m, m)), np.zeros(m)
    wrote, stood = np.zeros(m), np.zeros((r, m))
    for step in range(4):
        controls = draw(1, cell.interface.out_features, seed=step) * 2
        state = cell.access(controls, state)
        c = np.split(controls[0].double().numpy(), np.cumsum(cell.parts)[:-1])
        keys, strengths, key, strength, erase, new, free, allocate, gate, modes = c
        kept = np.prod([1 - sigmoid(free[i]) * stood[i] for i in range(r)], axis=0)
        usage = (usage + wrote - usage * wrote) * kept
        phi = np.argsort(usage, kind="stable")
        a = np.zeros(m)
        for j, slot in enumerate(phi):
            a[slot] = (1 - usage[slot]) * np.prod(usage[phi[:j]])
        alike = softmax((1 + softplus(strength)) * cosine(key, bank))
        wrote = sigmoid(gate) * (sigmoid(allocate) * a + (1 - sigmoid(allocate)) * alike)
        bank = bank * (1 - np.outer(wrote, sigmoid(erase))) + np.outer(wrote, new)
        for i in range(m):
            for j in range(m):
                order[i, j] = 0 if i == j else (1 - wrote[i] - wrote[j]) * order[i, j] + wrote[i] * last[j]
        last = (1 - wrote.sum()) * last + wrote
        where = []
        for i in range(r):
            found = softmax((1 + softplus(strengths[i])) * cosine(keys.reshape(r, w)[i], bank))
            mode = softmax(modes.reshape(r, 3)[i])
            where.append(mode[0] * order.T @ stood[i] + mode[1] * found + mode[2] * order @ stood[i])
        stood = np.array(where)
        for name, value in {"usage": usage, "memory": bank, "link": order, "precedence": last, "read": stood}.items():
            np.testing.assert_allclose(state[name][0].detach(), value, rtol=1e-3, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(state["reads"][0].detach(), stood @ bank, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [NTM, DNC])
def test_output_is_the_controllers_and_what_was_read(make):
    net = make((6, 3), 4, hidden=7, slots=8, slot_size=5, reads=2)
    x = draw(2, 6, 3)
    states = net.blocks[0].cell.scan(x)
    out = net.activations(x)[0]
    assert net.widths == (7 + 2 * 5,)
    torch.testing.assert_close(out[:, :7, 3], states[3]["hidden"])
    torch.testing.assert_close(out[:, 7:, 3], states[3]["reads"].flatten(1))


def test_controller_sees_the_input_and_the_last_reads():
    """The first step's gates are those of an LSTM fed with (input, zeros), the second's with (input, reads)."""
    cell = NTMCell(3, 5, 6, 4, reads=1, writes=1, reach=1)
    x = draw(2, 2, 3)
    first, second = cell.scan(x)
    lstm = torch.nn.LSTMCell(7, 5)
    for name, value in cell.controller.kernel.named_parameters():
        getattr(lstm, name.removesuffix("_l0")).data.copy_(value)
    h, c = lstm(torch.cat([x[:, 0], torch.zeros(2, 4)], 1))
    torch.testing.assert_close(first["hidden"], h)
    h, _ = lstm(torch.cat([x[:, 1], first["reads"][:, 0]], 1), (h, c))
    torch.testing.assert_close(second["hidden"], h)


@pytest.mark.parametrize("spectrum", ["lin", "inv"])
def test_s4d_convolution_equals_its_recurrence(spectrum):
    layer = S4D(4, 16, spectrum, 0.001, 0.1)
    u = draw(2, 4, 40)
    torch.testing.assert_close(layer(u), layer.scan(u)[0], rtol=1e-3, atol=1e-4)


def test_s4d_is_the_exact_solution_for_a_constant_input():
    """One mode, u = 1: x(t) = (e^(A t) - 1) / A, y = 2 Re(C x)."""
    layer = S4D(1, 2, "lin", 0.05, 0.05)
    with torch.no_grad():
        layer.frequency.fill_(2.0)
        layer.d.zero_()
    a, c = complex(-0.5, 2.0), complex(*layer.c[0, 0].tolist())
    y = layer(torch.ones(1, 1, 30))[0, 0].detach().numpy()
    t = 0.05 * np.arange(1, 31)
    np.testing.assert_allclose(y, 2 * (c * (np.exp(a * t) - 1) / a).real, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("step", [1e-1, 1e-3, 1e-6, 1e-8])
def test_s4d_weighs_its_input_as_a_hold_of_any_step(step):
    """(e^(A dt) - 1) / A cancels in single precision where the step is small."""
    layer = S4D(2, 8, "lin", step, step)
    a = -layer.log_decay.detach().double().exp() + 1j * layer.frequency.detach().double()
    c = torch.complex(*layer.c.detach().double().unbind(-1))
    expected = c * torch.expm1(a * layer.log_step.detach().double().exp()[:, None]) / a
    torch.testing.assert_close(layer.discrete()[1].detach().to(expected.dtype), expected, rtol=1e-5, atol=0)


def test_s4d_starts_as_published():
    layer = S4D(3, 8, "lin", 0.001, 0.1)
    np.testing.assert_allclose(layer.frequency[1].detach(), np.pi * np.arange(4), rtol=1e-5)
    np.testing.assert_allclose(layer.log_decay.exp().detach(), 0.5, rtol=1e-5)
    inverse = S4D(3, 8, "inv", 0.001, 0.1).frequency[0].detach()
    np.testing.assert_allclose(inverse, 8 / np.pi * (8 / (2 * np.arange(4) + 1) - 1), rtol=1e-5)
    steps = S4D(4000, 2, "lin", 0.001, 0.1).log_step.detach().exp().numpy()
    assert 0.001 <= steps.min() < 0.0011
    assert 0.09 < steps.max() <= 0.1
    assert abs(np.log(steps).mean() - np.log(0.01)) < 0.1  # log-uniform: standard error 0.02


def test_scales_stand_side_by_side():
    net = Hybrid((12, 2), 3, channels=4, kernels=[2, 5], hidden=6)
    x = draw(1, 12, 2)
    first = net.activations(x)[0]
    assert net.widths == (8, 6)
    for i, kernel in enumerate((2, 5)):
        layer = net.blocks[0].scales[i].convolution
        window = x[:, 9 - kernel + 1 : 10].transpose(1, 2)  # what the kernel sees at step 9
        expected = ((layer.weight * window).sum((1, 2)) + layer.bias).relu()
        torch.testing.assert_close(first[0, 4 * i : 4 * i + 4, 9], expected)
