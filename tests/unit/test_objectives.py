"""Losses of stacked replicas are those of one network, in half precision too."""

import pytest
import torch
from torch.func import vmap

from cl.objectives import distillation_loss, per_sample_loss


@pytest.mark.parametrize("target", ["class", "steps"])
def test_losses_of_stacked_replicas_in_half_precision(target):
    """Autocast takes cross-entropy in float32 where it is one call; vmap takes it apart first."""
    torch.manual_seed(0)
    shape = (3, 8, 5) if target == "class" else (3, 8, 4, 5)
    logits, y = torch.randn(shape, dtype=torch.bfloat16), torch.randint(5, shape[:-1])
    with torch.autocast("cpu", torch.bfloat16):
        alone = torch.stack([per_sample_loss(a, b, target) for a, b in zip(logits, y, strict=True)])
        stacked = vmap(lambda a, b: per_sample_loss(a, b, target))(logits, y)
        taught = torch.stack([distillation_loss(a, a.flip(0), 2.0) for a in logits])
        taught_stacked = vmap(lambda a: distillation_loss(a, a.flip(0), 2.0))(logits)
    assert alone.dtype == stacked.dtype == taught_stacked.dtype == torch.float32
    torch.testing.assert_close(stacked, alone, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(taught_stacked, taught, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(alone, per_sample_loss_of_doubles(logits, y, target), rtol=1e-5, atol=1e-5)


def per_sample_loss_of_doubles(logits, y, target):
    found = torch.stack([per_sample_loss(a.double(), b, target) for a, b in zip(logits, y, strict=True)])
    assert found.dtype == torch.float64  # kept as it is given
    return found.float()
