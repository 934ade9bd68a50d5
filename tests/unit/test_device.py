"""What a run is guaranteed on its device."""

import pytest
import torch

from cl.device import guarantees


def tiny() -> bool:
    """Return whether half the smallest normal number is a number."""
    return bool(torch.tensor(torch.finfo(torch.float32).tiny) * 0.5 > 0)


@pytest.mark.parametrize("flushed", [False, True])
def test_numbers_that_slow_a_processor_down_are_zero_in_a_run_and_as_before_after_it(flushed: bool) -> None:
    if not torch.set_flush_denormal(flushed):
        pytest.skip("this processor has no such switch")
    try:
        with guarantees(torch.device("cpu"), None, deterministic=True):
            assert not tiny()
        assert tiny() != flushed
    finally:
        torch.set_flush_denormal(False)
