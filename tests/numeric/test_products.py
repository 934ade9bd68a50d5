"""Linear layers by oneDNN: against float64, with gradients of first and second order, and only where they belong."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cl import products
from cl.device import guarantees
from cl.products import LARGE, linear, wide_amd

SHAPES = [(64, 400, 400), (400, 64, 400), (33, 5000, 41), (4096, 64, 64)]
pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Count the products that oneDNN takes, on a processor that is said to gain from it."""
    monkeypatch.setattr(products, "helps", lambda: True)
    seen, plain = [], products._product
    monkeypatch.setattr(products, "_product", lambda *given: seen.append(1) or plain(*given))
    return seen


def drawn(n, i, o, bias=True):
    generator = torch.Generator().manual_seed(n)
    tensors = [torch.randn(size, generator=generator) / size[-1] ** 0.5 for size in ((n, i), (o, i), (o,))]
    return [t.requires_grad_() for t in tensors[: 3 if bias else 2]]


def close(found, right):
    for a, b in zip(found, right, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-6 * float(b.detach().abs().max()))


@pytest.mark.parametrize(("n", "i", "o"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_map_and_its_gradients_are_those_of_double_precision(calls, n, i, o, bias):
    given = drawn(n, i, o, bias)
    exact = [t.detach().double().requires_grad_() for t in given]
    out, right = linear(*given), F.linear(*exact)
    close([out], [right])
    weights = torch.randn(n, o, generator=torch.Generator().manual_seed(1))
    close(
        torch.autograd.grad((out * weights).sum(), given),
        torch.autograd.grad((right * weights.double()).sum(), exact),
    )
    assert len(calls) == 3
    with torch.inference_mode():
        close([linear(*given)], [right])
    assert len(calls) == 4


def test_gradients_that_are_expanded_or_transposed():
    given = drawn(64, 400, 400)
    exact = [t.detach().double().requires_grad_() for t in given]
    close(torch.autograd.grad(linear(*given).sum(), given), torch.autograd.grad(F.linear(*exact).sum(), exact))
    x, weight = drawn(400, 400, 400, bias=False)
    wide, half = x.double(), weight[:, :200]
    close([linear(x.T, weight.T)], [wide.T @ weight.double()])
    close([linear(x[:, ::2], half)], [wide[:, ::2] @ half.double().T])


@pytest.mark.parametrize("trained", range(3))
def test_one_of_the_three_is_trained_alone(calls, trained):
    given = [t.detach().requires_grad_(i == trained) for i, t in enumerate(drawn(64, 400, 400))]
    exact = [t.detach().double().requires_grad_(i == trained) for i, t in enumerate(given)]
    found = torch.autograd.grad(linear(*given).tanh().sum(), given[trained])
    close(found, torch.autograd.grad(F.linear(*exact).tanh().sum(), exact[trained]))
    assert calls


def test_what_does_not_fit_is_told_as_torch_does(calls):
    x, weight, bias = (t.detach() for t in drawn(64, 400, 400))
    for given in ((x[:, :399], weight, bias), (x, weight, bias[:7]), (x, weight.double(), bias)):
        with pytest.raises(RuntimeError):
            linear(*given)
    assert not calls


def test_gradients_of_gradients():
    given = drawn(64, 400, 400)
    exact = [t.detach().double().requires_grad_() for t in given]

    def second(f, tensors):
        first = torch.autograd.grad(f(*tensors).tanh().square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), tensors)

    close(second(linear, given), second(F.linear, exact))


def test_samples_of_several_dimensions(calls):
    x, weight, bias = torch.randn(4, 16, 400), torch.randn(400, 400), torch.randn(400)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
    assert len(calls) == 1


def test_all_others_are_left_to_torch(calls):
    x, weight, bias = drawn(64, 400, 400)
    assert x.numel() * 400 > LARGE
    linear(x[:8], weight, bias)  # small
    linear(x.double(), weight.double(), bias.double())
    linear(x.to("meta"), weight.to("meta"), bias.to("meta"))
    linear(x[:0], weight, bias)
    each = torch.func.vmap(lambda w: linear(x, w, bias))(torch.stack([weight, weight]))
    slope = torch.func.grad(lambda w: linear(x, w, bias).sum())(weight)
    _, tangent = torch.func.jvp(lambda w: linear(x, w, bias), (weight,), (weight,))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    assert not calls
    torch.testing.assert_close(each[1], F.linear(x, weight, bias))
    torch.testing.assert_close(slope, x.sum(0).expand(400, -1).contiguous())
    torch.testing.assert_close(tangent, x @ weight.T)


@pytest.mark.parametrize("helps", [True, False])
def test_a_run_on_a_processor_that_gains_takes_it_for_every_linear_layer_and_puts_torchs_back(
    calls, monkeypatch, helps
):
    monkeypatch.setattr(products, "helps", lambda: helps)
    plain, layer, x = nn.Linear.forward, nn.Linear(400, 400), torch.randn(64, 400)
    right = layer(x)
    with guarantees(torch.device("cpu"), None, deterministic=True):
        for one in (layer, copy.deepcopy(layer)):
            torch.testing.assert_close(one(input=x), right, rtol=1e-4, atol=1e-5)
    assert len(calls) == (2 if helps else 0)
    calls.clear()
    layer(x)
    assert nn.Linear.forward is plain
    assert not calls


@pytest.mark.parametrize(
    ("vendor", "family", "wide"),
    [
        ("AuthenticAMD", "26", True),
        ("AuthenticAMD", "25", False),
        ("GenuineIntel", "6", False),
        ("GenuineIntel", "26", False),
    ],
)
def test_processors_that_gain(vendor, family, wide):
    described = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 2\n\n"
    assert wide_amd(2 * described) is wide
    assert not wide_amd("")
