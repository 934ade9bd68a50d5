"""The contract checks catch strategies that break the contract."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from cl.errors import expect
from cl.strategy import Strategy
from cl.testing import check_strategy, checks


class Decayed(Strategy):
    """A sound strategy: an L2 penalty."""

    neutral: ClassVar = {"strength": 0.0}

    def __init__(self, learner, info, strength=0.01):
        super().__init__(learner, info)
        expect(strength >= 0, "strategy.strength", ">= 0", strength)
        self.strength = strength

    def penalty(self):
        return self.strength * sum(p.square().sum() for p in self.learner.parameters())


class ForeignNoise(Strategy):
    """Draws from a generator that knows nothing of the seed."""

    def loss(self, batch):
        return super().loss(batch._replace(x=batch.x + float(np.random.normal(scale=0.01))))


class GlobalNoise(Strategy):
    """Draws from torch's global generator, which follows the seed but cannot be stacked."""

    def loss(self, batch):
        return super().loss(batch._replace(x=batch.x + 0.01 * torch.randn_like(batch.x)))


class HiddenCounter(Strategy):
    """Keeps state outside of buffers, so that a resumed run differs."""

    def __init__(self, learner, info):
        super().__init__(learner, info)
        self.steps = 0

    def loss(self, batch):
        self.steps += 1
        return super().loss(batch) / self.steps


class NotNeutral(Decayed):
    """Says that strength 0.1 is fine-tuning."""

    neutral: ClassVar = {"strength": 0.1}


class UsesTaskIds(Strategy):
    """Uses task ids that it must not know."""

    scenarios = ("domain",)

    def loss(self, batch):
        return super().loss(batch) * (1 + batch.task.float().mean())


class Frozen(Strategy):
    """Learns nothing."""

    def loss(self, batch):
        return super().loss(batch) * 0.0


class ClaimsProtection(Strategy):
    """Claims to protect and does not."""

    protects = True


class AcceptsAnything(Decayed):
    """Does not look at its numbers."""

    def __init__(self, learner, info, strength=0.01):
        super().__init__(learner, info, abs(strength))


class Boundaries(Strategy):
    """Needs boundaries and claims the online scenario."""

    def end_task(self, task):
        pass


class HiddenBytes(Strategy):
    """Hides what it stores."""

    def __init__(self, learner, info):
        super().__init__(learner, info)
        self.register_buffer("memory", torch.zeros(100))

    def stored_bytes(self):
        return {}


class OwnNames(Strategy):
    """Takes arguments of the names that the training of the checks has, too, and does not look at them."""

    def __init__(self, learner, info, epochs: int = 5, pause: float = 1.0):
        super().__init__(learner, info)
        expect(epochs > 0, "strategy.epochs", "> 0", epochs)


class Crashes(Strategy):
    """Raises what a user's mistake raises."""

    scenarios = ("class",)

    def end_task(self, task):
        return {}["missing"]


def test_fields_are_those_of_the_strategy_whatever_their_names():
    with pytest.raises(AssertionError, match=r"OwnNames: check_impossible_numbers: .*accepted pause"):
        check_strategy(OwnNames, epochs=50, pause=2.0)


def test_a_crash_inside_of_a_check_names_the_check():
    with pytest.raises(AssertionError, match=r"Crashes: check_same_seed: .*KeyError: .missing."):
        check_strategy(Crashes)


def test_sound_strategy_passes():
    check_strategy(Decayed, strength=0.001)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (ForeignNoise, "check_same_seed"),
        (GlobalNoise, "check_population"),
        (HiddenCounter, "check_resume"),
        (NotNeutral, "check_neutral"),
        (UsesTaskIds, "check_task_ids"),
        (Frozen, "check_learns"),
        (ClaimsProtection, "check_protects"),
        (AcceptsAnything, "check_impossible_numbers"),
        (Boundaries, "check_facts"),
        (HiddenBytes, "check_bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_broken_strategy_is_caught(broken, check):
    with pytest.raises(AssertionError, match=check):
        check_strategy(broken)


@pytest.mark.parametrize("name", ["check_same_seed", "check_resume", "check_unsaved"])
def test_draws_of_torchs_global_generator_are_allowed(name):
    (check,) = [c for c in checks() if c.__name__ == name]
    check(GlobalNoise, {})
