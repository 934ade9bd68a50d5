"""Which Fisher information is taken where none is asked for."""

import pytest
import torch
from torch import nn

from cl.importance import fisher
from cl.learners.base import Learner
from cl.strategy import Strategy
from cl.streams.base import StreamInfo
from cl.streams.data import Data


@pytest.mark.parametrize(("steps", "kind"), [(5, "exact"), (200, "sampled")])
def test_auto_is_exact_unless_long_sequences_have_a_label_a_step(steps, kind):
    class Every(Learner):
        def __init__(self):
            super().__init__("single")
            self.head = nn.Linear(4, 3)

        def forward(self, x, gates=None):
            return self.head(x)

    torch.manual_seed(0)
    info = StreamInfo("domain", 1, 3, ((0, 1, 2),), (steps, 4), 0, True, "steps")
    strategy = Strategy(Every(), info).eval()
    data = Data(torch.rand(4, steps, 4), torch.arange(4), torch.randint(3, (4, steps)), 0)
    torch.testing.assert_close(fisher(strategy, data)["head.weight"], fisher(strategy, data, kind)["head.weight"])
    other = {"exact": "sampled", "sampled": "empirical"}[kind]
    assert not torch.allclose(fisher(strategy, data)["head.weight"], fisher(strategy, data, other)["head.weight"])
