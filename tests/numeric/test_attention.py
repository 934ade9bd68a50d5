"""Attention, its position codes and the Transformer against torch's modules and closed forms; TCN against torch's."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from cl.errors import ConfigError
from cl.learners.attention import POSITIONS, SelfAttention, alibi, rotate, sinusoidal
from cl.learners.hybrid import Hybrid
from cl.learners.tcn import TCN, CausalConv, reach
from cl.learners.transformer import Transformer, TransformerBlock

B, T, D = 2, 6, 8


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_sinusoidal_codes_as_in_the_paper():
    codes = sinusoidal(50, 6).numpy()
    for t in (0, 1, 49):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert codes[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert codes[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoidal(4, 5).shape == (4, 5)


def test_rotation_is_multiplication_of_complex_numbers():
    x = inputs(T, D)
    pairs = x.double().numpy().reshape(T, D // 2, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(
        1j * np.arange(T)[:, None] * 10000.0 ** (-2 * np.arange(D // 2) / D)
    )
    expected = np.stack([turned.real, turned.imag], -1).reshape(T, D)
    np.testing.assert_allclose(rotate(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_rotated_products_depend_on_distance_alone():
    q, k = inputs(D), inputs(2, D)[1]
    products = rotate(q.expand(20, D)) @ rotate(k.expand(20, D)).T
    for distance in range(-5, 6):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(products[0, 0], products[0, 5])


def test_alibi_as_in_the_paper():
    bias = alibi(4, 8)
    assert bias[:, 3, 0].tolist() == [-3 * 2.0**-h for h in range(1, 9)]  # slopes 1/2, 1/4, ... 1/256 for 8 heads
    assert not bias.diagonal(dim1=1, dim2=2).any()


def test_rotation_in_half_precision_is_rounded_once():
    """Angles of 800 rad keep their precision: before, bf16 was up to 1.2 rad off there."""
    x = torch.randn(800, 16, generator=torch.Generator().manual_seed(0))
    exact, half = rotate(x.bfloat16().float()), rotate(x.bfloat16()).float()
    assert float((exact - half).abs().max()) < 2**-6 * float(x.abs().max())


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_alibi_in_half_precision_tells_far_steps_apart(autocast, explicit, monkeypatch):
    """The weight of the first step in that of every other, read from a value that is 1 there and 0 elsewhere."""
    t, heads = 1500, 8
    net = SelfAttention(heads, heads, True, "alibi")
    with torch.no_grad():
        net.project.bias.zero_()
        net.project.weight.copy_(torch.cat([torch.zeros(2 * heads, heads), torch.eye(heads)]))  # values alone
        net.out.weight.copy_(torch.eye(heads))
        net.out.bias.zero_()
    x = torch.zeros(1, t, heads)
    x[:, 0] = 1
    monkeypatch.setattr("cl.learners.attention.transformed", lambda: explicit)
    if autocast:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = net(x)
    else:
        with torch.no_grad():
            found = net.bfloat16()(x.bfloat16())
    slope = 2.0**-8
    step = torch.arange(t, dtype=torch.float64)
    share = torch.exp(-slope * step) * (1 - math.exp(-slope)) / (1 - torch.exp(-slope * (step + 1)))
    np.testing.assert_allclose(found[0, :, -1].double(), share, rtol=2**-8)  # that of bf16 itself


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torchs(causal):
    ours = SelfAttention(D, 2, causal, "none")
    theirs = nn.MultiheadAttention(D, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.project.weight)
        theirs.in_proj_bias.copy_(ours.project.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = inputs(B, T, D)
    mask = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(x, x, x, attn_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours.weights(x), weights)
    if not causal:
        real = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
        expected, weights = theirs(x, x, x, key_padding_mask=~real, average_attn_weights=False)
        torch.testing.assert_close(ours(x, real), expected)
        torch.testing.assert_close(ours.weights(x, real), weights)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_equals_torchs_encoder_layer(norm):
    ours = TransformerBlock(D, 2, False, "none", 16, norm, "relu", 0.0, None, False)
    theirs = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True, norm_first=norm == "pre")
    pairs = [
        (theirs.self_attn.in_proj_weight, ours.attention.project.weight),
        (theirs.self_attn.out_proj.weight, ours.attention.out.weight),
        (theirs.linear1.weight, ours.inner[0].weight),
        (theirs.linear1.bias, ours.inner[0].bias),
        (theirs.linear2.weight, ours.inner[2].weight),
        (theirs.linear2.bias, ours.inner[2].bias),
    ]
    with torch.no_grad():
        ours.attention.project.bias.zero_()
        ours.attention.out.bias.zero_()
        for module in ours.norms:
            module.weight.normal_()
            module.bias.normal_()
        for i, module in enumerate((theirs.norm1, theirs.norm2)):
            module.load_state_dict(ours.norms[i].state_dict())
        for a, b in pairs:
            a.copy_(b)
    x = inputs(B, T, D)
    torch.testing.assert_close(ours(x.transpose(1, 2)).transpose(1, 2), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_explicit_and_fused_attention_agree(position, causal):
    net = SelfAttention(D, 2, causal, position)
    x = inputs(B, T, D)
    real = torch.arange(T) < torch.tensor([[6], [4]])
    plain = net(x, real)
    under = torch.func.vmap(net)(x[None], real[None])[0]
    torch.testing.assert_close(plain * real[..., None], under * real[..., None])
    weights = net.weights(x, real)
    torch.testing.assert_close(weights.sum(3), torch.ones(B, 2, T))


@pytest.mark.parametrize("position", [p for p in POSITIONS if p != "none"])
def test_order_matters_with_a_position_code_only(position):
    x = inputs(B, T, 3)
    swapped = x[:, [1, 0, *range(2, T)]]
    blind = Transformer((T, 3), 4, width=8, position="none")
    torch.testing.assert_close(blind(x), blind(swapped))
    seeing = Transformer((T, 3), 4, width=8, position=position)
    assert not torch.allclose(seeing(x), seeing(swapped), atol=1e-5)


@pytest.mark.parametrize("make", [partial(Transformer, width=8), partial(Hybrid, body="transformer", hidden=8)])
def test_sequences_beyond_learned_positions_are_refused(make):
    net = make((T, 3), 4, position="learned")
    with pytest.raises(ConfigError, match=r"learner\.max_length"):
        net(inputs(B, T + 1, 3))
    assert make((T, 3), 4, position="learned", max_length=9)(inputs(B, 9, 3)).shape == (B, 4)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"learner\.heads"):
        Transformer((T, 3), 4, width=10, heads=4)
    with pytest.raises(ConfigError, match=r"learner\.heads"):
        Transformer((T, 3), 4, width=12, heads=4, position="rotary")


def test_causal_convolution_with_weight_normalisation_equals_torchs():
    ours = CausalConv(3, 5, 4, 2, "weight")
    theirs = weight_norm(nn.Conv1d(3, 5, 4, dilation=2))
    with torch.no_grad():
        ours.length.mul_(1.7)
        theirs.parametrizations.weight.original0.copy_(ours.length)
        theirs.parametrizations.weight.original1.copy_(ours.convolution.weight)
        theirs.bias.copy_(ours.convolution.bias)
    x = inputs(B, 3, 12)
    torch.testing.assert_close(ours(x), theirs(nn.functional.pad(x, (6, 0))))


def test_how_far_a_temporal_network_sees():
    """The gradient at the last output reaches exactly `reach` steps back."""
    net = TCN((30, 2), 3, channels=4, levels=2, kernel=3, norm="none", activation="tanh")
    x = inputs(1, 30, 2).requires_grad_()
    net(x).sum().backward()
    seen = x.grad.abs().sum((0, 2)) > 0
    assert reach(3, 2) == 13
    assert seen.tolist() == [False] * 17 + [True] * 13
    assert len(TCN((784, 1), 10).blocks) == 8 - 1 + (reach(7, 7) < 784)


def test_more_levels_than_any_sequence_needs_are_refused():
    assert len(TCN((28, 28), 10, channels=2, levels=8).blocks) == 8
    with pytest.raises(ConfigError, match=r"`learner\.levels` in 1 to 10 .*got 30"):
        TCN((28, 28), 10, channels=2, levels=30)  # before: padding of three thousand million steps
    with pytest.raises(ConfigError, match=r"learner\.levels"):
        TCN((28, 28), 10, levels=0)
