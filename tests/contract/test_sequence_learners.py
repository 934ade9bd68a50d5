"""Every learner of sequences that ships, found by its yaml: inputs, padding, outputs a step, budgets, causality."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from cl.errors import ConfigError
from cl.learners.sequence import SequenceLearner
from cl.seeding import seeded

CONF = Path(__file__).parents[2] / "conf" / "learner"
T, D, C, V, B = 10, 3, 4, 7, 4


def shipped() -> dict[str, tuple[type[SequenceLearner], dict[str, Any]]]:
    found = {}
    for path in sorted(CONF.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text())
        module, _, name = fields.pop("_target_").rpartition(".")
        learner = getattr(importlib.import_module(module), name)
        if issubclass(learner, SequenceLearner):
            found[path.stem] = learner, fields
    return found


LEARNERS = shipped()
each = pytest.mark.parametrize("name", list(LEARNERS))


def build(name, shape=(T, D), n_classes=C, vocabulary=0, target="class", padded=False, **changes) -> SequenceLearner:
    learner, fields = LEARNERS[name]
    with seeded(0, "learner"):
        fields = fields | changes | {"vocabulary": vocabulary, "padded": padded, "target": target}
        return learner(shape, n_classes, **fields).eval()


def floats(b: int = B, t: int = T) -> torch.Tensor:
    return torch.randn(b, t, D, generator=torch.Generator().manual_seed(1))


def tokens(b: int = B, t: int = T) -> torch.Tensor:
    return torch.randint(1, V, (b, t), generator=torch.Generator().manual_seed(1))


LENGTHS = torch.tensor([T, 7, 4, 1])


def padded_floats() -> torch.Tensor:
    x = floats()
    real = (torch.arange(T) < LENGTHS[:, None])[..., None]
    return torch.cat([torch.where(real, x, 0.0), real.float()], 2)


def padded_tokens() -> torch.Tensor:
    return torch.where(torch.arange(T) < LENGTHS[:, None], tokens(), 0)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


@each
@pytest.mark.parametrize("reading", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("kind", ["floats", "tokens"])
def test_padding_never_changes_an_output(name, kind, reading):
    """A padded sample in a batch equals the sample alone at its own length, values and gradients."""
    if kind == "tokens":
        net = build(name, (T,), vocabulary=V, reading=reading)
    else:
        net = build(name, (T, D + 1), padded=True, reading=reading)
    x = padded_tokens() if kind == "tokens" else padded_floats()
    together = net(x)
    alone = [net(x[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
    same(together, torch.cat(alone))
    (full,) = torch.autograd.grad(together.square().sum(), [net.head.weight], retain_graph=True)
    (parts,) = torch.autograd.grad(torch.cat(alone).square().sum(), [net.head.weight], retain_graph=True)
    same(full, parts)
    if reading == "max":
        return  # rounding may choose another of two equal maxima
    blocks = [p for n, p in net.named_parameters() if n.startswith("blocks")]
    full = torch.autograd.grad(together.square().sum(), blocks, allow_unused=True)
    parts = torch.autograd.grad(torch.cat(alone).square().sum(), blocks, allow_unused=True)
    for a, b in zip(full, parts, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=5e-3, atol=1e-4)


@each
def test_padding_never_changes_the_outputs_of_real_steps(name):
    net = build(name, (T,), vocabulary=V, target="steps")
    x = padded_tokens()
    together = net(x)
    assert together.shape == (B, T, C)
    for i, n in enumerate(LENGTHS):
        same(together[i : i + 1, :n], net(x[i : i + 1, :n]))


@each
def test_tokens_differ_and_gradients_reach_their_embedding(name):
    net = build(name, (T,), vocabulary=V)
    x = tokens(1)
    net(x).square().sum().backward()
    used = net.embedding.weight.grad.abs().sum(1) > 0
    assert set(used.nonzero().flatten().tolist()) == set(x.flatten().tolist())
    with pytest.raises(ConfigError, match=r"learner\.vocabulary"):
        build(name)(x)


@each
@pytest.mark.parametrize("shape", [(12,), (12, 3), (2, 6, 4)])
def test_numbers_rows_and_images_are_read_as_sequences(name, shape):
    net = build(name, shape)
    assert net.length == {1: 12, 2: 12, 3: 6}[len(shape)]
    x = torch.rand(2, *shape)
    assert net(x).shape == (2, C)
    inner, real = net.read(x)
    assert inner.shape == (2, {1: 1, 2: 3, 3: 8}[len(shape)], net.length)
    assert real is None
    if len(shape) == 3:
        assert torch.equal(inner[0, :, 1], x[0, :, 1].flatten())


@each
def test_more_dimensions_are_refused(name):
    with pytest.raises(ConfigError, match=r"`stream` with samples of shape"):
        build(name, (2, 3, 4, 5))


@each
@pytest.mark.parametrize("target", ["steps", "class"])
def test_a_stack_of_copies_equals_a_loop(name, target):
    copies = [build(name, (T,), vocabulary=V, target=target) for _ in range(2)]
    with torch.no_grad():
        for p in copies[1].parameters():
            p.mul_(0.9)
    x = torch.stack([padded_tokens(), tokens()])
    parameters, buffers = stack_module_state(copies)
    out = vmap(lambda p, b, x: functional_call(copies[0], (p, b), (x,)))(parameters, buffers, x)
    for i, copy in enumerate(copies):
        same(out[i], copy(x[i]))


@each
def test_gates_act_on_units_at_every_step(name):
    net = build(name, target="steps")
    x = floats()
    gates = [torch.rand(B, w) for w in net.widths]
    same(net.activations(x, gates)[0], net.activations(x)[0] * gates[0][..., None])
    same(net(x, [torch.zeros(w) for w in net.widths]), net.head.bias.expand(B, T, C))


@each
def test_a_budget_of_parameters_is_met(name):
    for budget in (20_000, 70_000):
        net = build(name, (T, 28), 10, parameters=budget)
        assert abs(sum(p.numel() for p in net.parameters()) - budget) <= 0.02 * budget
        assert all(p.device.type == "cpu" for p in (*net.parameters(), *net.buffers()))
        assert net(torch.rand(2, T, 28)).shape == (2, 10)
    with pytest.raises(ConfigError, match=r"learner\.parameters"):
        build(name, parameters=3)


KINDS_OF_INPUT = {  # shape, outputs and facts
    "recall": ((31, 9), 4, {}),
    "rows": ((28, 28), 10, {}),
    "characters": ((100,), 60, {"vocabulary": 61, "target": "steps"}),
}


@each
@pytest.mark.parametrize("kind", list(KINDS_OF_INPUT))
def test_a_budget_is_met_whatever_is_read(name, kind):
    shape, outputs, facts = KINDS_OF_INPUT[kind]
    for budget in (20_000, 50_000, 70_000):
        net = build(name, shape, outputs, parameters=budget, **facts)
        assert abs(sum(p.numel() for p in net.parameters()) - budget) <= 0.02 * budget


@pytest.mark.parametrize("name", ["tcn", "s4d"])
def test_a_width_that_needs_no_projection_hides_no_other_size(name):
    """As wide as their input, these networks have fewer parameters than one unit narrower."""
    sizes = {}
    for width in (30, 31, 32):
        net = build(name, (20, 32), 4, **{"tcn": {"channels": width, "kernel": 2}, "s4d": {"width": width}}[name])
        sizes[width] = sum(p.numel() for p in net.parameters())
    assert name == "tcn" or sizes[31] > sizes[32]
    for count in sizes.values():
        net = build(name, (20, 32), 4, parameters=count, **({"kernel": 2} if name == "tcn" else {}))
        assert abs(sum(p.numel() for p in net.parameters()) - count) <= 0.02 * count


@each
def test_a_sequence_longer_than_in_training_is_read(name):
    assert build(name)(floats(t=2 * T)).shape == (B, C)


@each
def test_regression_of_a_number(name):
    assert build(name, n_classes=1, target="real")(floats()).shape == (B, 1)


@each
@pytest.mark.parametrize(("target", "outputs"), [("class", "steps"), ("real", "steps"), ("steps", "sequence")])
def test_outputs_that_do_not_suit_the_target_are_refused(name, target, outputs):
    with pytest.raises(ConfigError, match=r"`learner\.outputs` 'auto' or '(steps|sequence)' .*got '" + outputs):
        build(name, target=target, outputs=outputs)


@each
def test_later_inputs_change_no_earlier_output(name):
    """Causal: the output at a step is a function of the inputs up to that step."""
    net = build(name, target="steps", **({"causal": True} if "causal" in LEARNERS[name][1] else {}))
    x = floats().requires_grad_()
    step = 4
    (gradient,) = torch.autograd.grad(net(x)[:, step].square().sum(), x)
    size = gradient.abs().sum((0, 2))
    assert size[step + 1 :].max() < 1e-5 * size.max()  # not zero where a convolution goes through an FFT
    assert (size[: step + 1] > 1e-5 * size.max()).all()


@each
def test_every_parameter_gets_a_gradient_in_language_modelling(name):
    net = build(name, (T,), n_classes=V, vocabulary=V, target="steps").train()
    x = tokens(16)
    nn.functional.cross_entropy(net(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
