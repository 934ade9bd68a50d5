"""Published results on sequences that fit in minutes of a CPU: floors without memory, and who gets below them."""

import pytest
import torch
import torch.nn.functional as F

from cl.learners.recurrent import GRU
from cl.seeding import seeded, step_keys
from cl.streams.sequences import Adding


def test_floor_of_the_adding_problem():
    """Always answering 1 costs the variance of the sum of two uniform numbers, 2 / 12; papers say .167 to .177."""
    _, y, _ = Adding(steps=20).draw(step_keys(0, 0, 0, 1)[0], 40000)
    error = (y - 1).square()
    assert abs(error.mean().item() - 1 / 6) < 4 * error.std().item() / 200
    assert abs(y.mean().item() - 1) < 4 * y.std().item() / 200


def train_gru(steps: int, updates: int, hidden: int, lr: float) -> float:
    """Train a GRU on the adding problem (Adam, clipped gradients, new samples at every step); return its test MSE."""
    problem = Adding(steps=steps)
    with seeded(0, "learner"):
        net = GRU((steps, 2), 1, hidden=hidden, target="real")
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for key in step_keys(0, 0, 0, updates):
        x, y, _ = problem.draw(key, 64)
        optimizer.zero_grad()
        F.mse_loss(net(x), y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    x, y, _ = problem.draw(step_keys(0, 1, 0, 1)[0], 1000)
    with torch.no_grad():
        return F.mse_loss(net(x), y).item()


def test_gru_solves_adding_over_20_steps():
    assert train_gru(20, 1000, 32, 5e-3) < 0.1767 / 20


@pytest.mark.slow
def test_gru_solves_adding_over_100_steps():
    """Published: 1e-4 and below for 200 to 600 steps, against a floor of .1767 (figure 2 of the paper)."""
    assert train_gru(100, 2000, 64, 2e-3) < 1e-3
