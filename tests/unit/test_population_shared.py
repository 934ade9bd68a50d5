"""Populations of strategies whose tensors stand in two places."""

import torch

from cl.strategy import Strategy
from tests.unit.test_population import both


class Shared(Strategy):
    """Two layers have one weight, and a scale of the outputs stands in two places."""

    def __init__(self, learner, info):
        super().__init__(learner, info)
        second, third = (block[0] for block in learner.blocks[1:])
        third.weight = second.weight
        self.register_buffer("scale", torch.ones(()))
        second.register_buffer("scale", self.scale)

    def logits(self, x, task):
        return super().logits(x, task) * self.learner.blocks[1][0].scale

    def after_step(self, batch, aux):
        self.scale.mul_(0.9)


def test_tensors_in_two_places_stay_one():
    population = both(strategy=Shared, learner={"hidden": (16, 16, 16)})
    for engine in population.engines:
        assert engine.strategy.scale == engine.strategy.learner.blocks[1][0].scale < 0.5
