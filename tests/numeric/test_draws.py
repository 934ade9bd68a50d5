"""Hot-path draws follow their laws, and are independent of each other over places, steps, purposes and seeds."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from cl.seeding import integers, normal, seeded, step_keys, uniform, uniforms

KEYS = step_keys(0, 0, 0, 3)
LEVEL = 1e-4  # the draws are fixed: a test of a right generator does not fail by chance


@pytest.mark.parametrize(("draw", "law"), [(uniform, stats.uniform), (normal, stats.norm)])
def test_draws_follow_their_law(draw, law):
    values = draw(KEYS[0], (200, 501), "a").numpy().ravel()
    assert stats.kstest(values, law.cdf).pvalue > LEVEL
    over_steps = np.array([float(draw(key, (1,), "a")) for key in step_keys(3, 1, 0, 3000)])
    assert stats.kstest(over_steps, law.cdf).pvalue > LEVEL


@pytest.mark.parametrize("draw", [uniform, normal])
def test_draws_are_independent(draw):
    """Box and Muller's transform gives two numbers with one radius: neither values nor squares may be correlated."""
    one = draw(KEYS[0], (40_000,), "a")
    first, second = one.chunk(2)
    others = [
        (first, second),
        (one[:-1], one[1:]),
        (one, draw(KEYS[1], (40_000,), "a")),
        (one, draw(KEYS[0], (40_000,), "b")),
        (one, draw(step_keys(1, 0, 0, 1)[0], (40_000,), "a")),
    ]
    for a, b in others:
        for power in (1, 2):
            assert stats.pearsonr(a.numpy() ** power, b.numpy() ** power).pvalue > LEVEL


@pytest.mark.parametrize("high", [2, 7, 1000])
def test_integers_are_uniform(high):
    counts = np.bincount(integers(KEYS[0], (50_000,), high, "a").numpy(), minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts).pvalue > LEVEL


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 3), (0, 3)])
def test_draws_have_the_shape_asked_for_and_are_the_same_under_vmap(draw, shape):
    together = vmap(lambda key: draw(key, shape, "a"))(KEYS)
    for key, values in zip(KEYS, together, strict=True):
        alone = draw(key, shape, "a")
        assert alone.shape == torch.Size(shape)
        assert torch.equal(values, alone)


def test_draws_taken_at_once_are_those_taken_one_by_one():
    keys, shapes, names = step_keys(3, 0, 0, 2), [(2, 3), (5,), (1, 7)], ["a", "b", "c"]
    alone = [[uniform(key, shape, name) for key in keys] for shape, name in zip(shapes, names, strict=True)]
    for own, found in zip(alone, vmap(lambda key: uniforms(key, shapes, names))(keys), strict=True):
        assert torch.equal(torch.stack(own), found)


def test_every_step_of_every_task_of_every_seed_has_a_key_of_its_own():
    """A part of a task's steps has the keys that these have in the whole of it."""
    keys = {(seed, task): step_keys(seed, task, 0, 50) for seed in range(3) for task in range(4)}
    assert len(torch.cat(list(keys.values())).unique()) == 3 * 4 * 50
    for (seed, task), whole in keys.items():
        assert torch.equal(step_keys(seed, task, 17, 20), whole[17:37])


def test_seeding_the_global_generator_ends_with_the_block():
    before = torch.get_rng_state()
    with seeded(0, "test", 1):
        inside = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(0, "test", 1):
        assert torch.equal(torch.rand(3), inside)
    with seeded(0, "test", 2):
        assert not torch.equal(torch.rand(3), inside)
