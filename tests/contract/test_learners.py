"""Every learner that ships, found by its yaml, is held to the Learner contract."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from cl.errors import ConfigError
from cl.learners.base import FACTS, Learner, stream_facts
from cl.learners.dropout import Dropout
from cl.seeding import seeded, step_keys
from cl.streams.base import StreamInfo

CONF = Path(__file__).parents[2] / "conf" / "learner"
SHAPE, CLASSES, B = (2, 8, 8), 6, 5


def shipped() -> dict[str, tuple[type[Learner], dict[str, Any]]]:
    found = {}
    for path in sorted(CONF.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text())
        module, _, name = fields.pop("_target_").rpartition(".")
        found[path.stem] = getattr(importlib.import_module(module), name), fields
    return found


LEARNERS = shipped()
each = pytest.mark.parametrize("name", list(LEARNERS))


def build(name: str, seed: int = 0, **changes: Any) -> Learner:
    learner, fields = LEARNERS[name]
    with seeded(seed, "learner"):
        return learner(input_shape=SHAPE, n_classes=CLASSES, **(fields | changes))


def inputs(b: int = B, seed: int = 1) -> torch.Tensor:
    return torch.rand(b, *SHAPE, generator=torch.Generator().manual_seed(seed))


def info(scenario: str = "task", shared: bool = False) -> StreamInfo:
    return StreamInfo(scenario, 3, CLASSES, ((0, 1), (2, 3), (4, 5)), SHAPE, 0, shared)


@each
def test_yaml_lists_every_field_with_a_comment(name):
    learner, fields = LEARNERS[name]
    constructor = inspect.signature(learner).parameters
    given = {n for n in constructor if n not in FACTS}
    assert set(fields) == given
    lines = (CONF / f"{name}.yaml").read_text().strip().split("\n")
    assert lines[0].startswith("# ")
    assert [line for line in lines[2:] if "  # " not in line] == []


@pytest.mark.parametrize("learner", list(dict.fromkeys(c for c, _ in LEARNERS.values())), ids=lambda c: c.__name__)
def test_defaults_are_those_of_one_yaml(learner):
    """Presets of one class (irnn is an RNN) may differ from the defaults of its constructor, but not all of them."""
    defaults = {n: p.default for n, p in inspect.signature(learner).parameters.items()}
    presets = [fields for found, fields in LEARNERS.values() if found is learner]
    lists = {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()}
    assert any(all(lists[n] == v for n, v in fields.items()) for fields in presets)


@pytest.mark.parametrize("name", [n for n, (_, fields) in LEARNERS.items() if "head_bias" in fields])
def test_outputs_without_biases(name):
    net = build(name, head_bias=False)
    (head,) = [n for n, p in net.named_parameters() if n.startswith("head.")]
    assert head == "head.weight"
    assert build(name).head.bias is not None


@each
def test_shapes_of_blocks_features_and_logits(name):
    learner = build(name).eval()
    x = inputs()
    outputs = learner.activations(x)
    assert len(outputs) == len(learner.blocks) == len(learner.widths)
    assert [tuple(o.shape[:2]) for o in outputs] == [(B, w) for w in learner.widths]
    features = learner.features(x)
    assert features.dim() == 2
    assert learner(x).shape == (B, CLASSES)
    assert isinstance(learner.head, nn.Linear)
    torch.testing.assert_close(learner.head(features), learner(x))
    torch.testing.assert_close(learner.pool(outputs[-1]), features)


@each
@pytest.mark.parametrize("per_sample", [False, True])
def test_gates_multiply_units(name, per_sample):
    learner = build(name).eval()
    x = inputs()
    g = torch.Generator().manual_seed(2)
    plain = learner.activations(x)[0]
    gates = [torch.rand((B, w) if per_sample else (w,), generator=g) for w in learner.widths]
    gated = learner.activations(x, gates)
    wide = gates[0].expand(B, -1).reshape(B, -1, *(1 for _ in plain.shape[2:]))
    torch.testing.assert_close(gated[0], plain * wide)
    torch.testing.assert_close(learner(x, [torch.ones(w) for w in learner.widths]), learner(x))
    closed = [torch.zeros(w) for w in learner.widths]
    torch.testing.assert_close(learner(x, closed), learner.head.bias.expand(B, -1))


@each
def test_a_closed_unit_reaches_nothing(name):
    """With a gate of zero, a unit of any block changes no gradient before it."""
    learner = build(name)
    x = inputs()
    for block in range(len(learner.widths)):
        gates = [torch.ones(w) for w in learner.widths]
        gates[block] = torch.zeros(learner.widths[block])
        assert not learner.activations(x, gates)[block].any()


@each
def test_one_seed_one_network_and_the_global_generator_untouched(name):
    before = torch.get_rng_state()
    one, two, other = build(name), build(name), build(name, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@each
@pytest.mark.parametrize("training", [True, False])
def test_a_stack_of_copies_equals_a_loop(name, training):
    copies = [build(name, seed).train(training) for seed in range(3)]
    x = torch.stack([inputs(seed=seed) for seed in range(3)])
    parameters, buffers = stack_module_state(copies)
    base = build(name).train(training).to("meta")
    stacked = vmap(lambda p, b, x: functional_call(base, (p, b), (x,)))(parameters, buffers, x)
    for i, copy in enumerate(copies):
        # Batch norm over a few samples enlarges rounding.
        torch.testing.assert_close(stacked[i], copy(x[i]), rtol=1e-4, atol=3e-5)
    for n in copies[0].state_dict():
        if n in buffers:  # running statistics moved alike
            torch.testing.assert_close(buffers[n], torch.stack([c.state_dict()[n] for c in copies]))


@each
def test_gradients_of_single_samples_equal_a_loop(name):
    """The Fisher information per sample: vmap over samples of a gradient, in evaluation mode."""
    learner = build(name).eval()
    parameters = {n: p.detach() for n, p in learner.named_parameters()}
    x, y = inputs(3), torch.tensor([0, 3, 5])

    def loss(p, x, y):
        return nn.functional.cross_entropy(functional_call(learner, p, (x[None],)), y[None])

    together = vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(3):
        learner.zero_grad()
        nn.functional.cross_entropy(learner(x[i : i + 1]), y[i : i + 1]).backward()
        for n, p in learner.named_parameters():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(together[n][i], expected, rtol=1e-3, atol=1e-5)


@each
def test_every_parameter_gets_a_gradient(name):
    learner = build(name)
    nn.functional.cross_entropy(learner(inputs(16)), torch.arange(16) % CLASSES).backward()
    dead = [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@each
def test_evaluation_of_a_sample_does_not_depend_on_its_batch(name):
    learner = build(name).eval()
    x = inputs()
    torch.testing.assert_close(learner(x)[:2], learner(x[:2]), rtol=1e-4, atol=1e-5)


@each
def test_impossible_numbers_name_the_field(name):
    learner, fields = LEARNERS[name]
    for field, value in fields.items():
        if isinstance(value, bool) or field.endswith("_bias"):  # any number is a bias
            continue
        wrong = {int: -1, float: -0.5, str: "no such thing", list: [0], type(None): -1}[type(value)]
        with pytest.raises(ConfigError, match=rf"Expected `learner\.{field}`"):
            learner(input_shape=SHAPE, n_classes=CLASSES, **(fields | {field: wrong}))


@each
def test_dropout_masks_follow_the_key(name):
    _, fields = LEARNERS[name]
    chances = {f: 0.5 for f in fields if f.endswith("dropout")}
    if not chances:
        pytest.skip("has no dropout")
    learner = build(name, **chances).train()
    found = [m for m in learner.modules() if isinstance(m, Dropout)]
    assert len(found) >= len(chances)

    def run(step: int) -> torch.Tensor:
        for i, module in enumerate(found):
            module.begin_step(step_keys(0, 0, step, 1)[0] + i)
        return learner(inputs())

    assert torch.equal(run(0), run(0))
    assert not torch.allclose(run(0), run(1))
    learner.eval()
    assert torch.equal(run(0), run(1))


@each
def test_the_head_in_force(name):
    for scenario, kind in {"task": "multi", "class": "growing", "online": "single"}.items():
        assert build(name).head_for(info(scenario)) == kind
    assert build(name).head_for(info("domain", shared=True)) == "single"
    assert build(name, head="multi").head_for(info("class")) == "multi"
    with pytest.raises(ConfigError, match=r"learner\.head"):
        build(name, head="multi").head_for(info("domain", shared=True))


@each
def test_takes_the_facts_of_a_stream(name):
    learner, fields = LEARNERS[name]
    facts = stream_facts(learner, info())
    assert facts["input_shape"] == SHAPE
    assert learner(**facts, **fields)(inputs()).shape == (B, CLASSES)


@each
def test_half_precision_gives_the_same_answer_roughly(name):
    learner = build(name).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = learner(inputs())
    full = learner(inputs())
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max().clamp_min(0.5)


@each
def test_half_precision_trains(name):
    learner = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(learner(inputs(16)).float(), torch.arange(16) % CLASSES)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)
