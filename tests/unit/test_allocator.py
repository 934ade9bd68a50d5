"""Freed memory that is kept: told by the pages that the system has to hand out, in processes of their own."""

import os
import subprocess
import sys

import pytest

from cl.allocator import OWN

STEPS, BYTES = 21, 64 << 20
PROGRAM = f"""
import resource, statistics, sys
import torch
from cl.allocator import give_back, keep_freed

def handed_out():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed() if sys.argv[1] == "keep" else None
def used():
    before = handed_out()
    torch.zeros({BYTES // 4}).add_(1)
    return handed_out() - before

# The heap grows at some of the steps, at which ones goes by the process's addresses: the median is not moved by them.
step = statistics.median_high(used() for _ in range({STEPS}))
give_back()
print(kept, step, used())
"""


def run(what: str, **environment: str) -> tuple[str, int, int]:
    """Return what `keep_freed` said, the pages of a step (median), and those of one after the memory was given back."""
    own = {name: value for name, value in os.environ.items() if name not in (*OWN, "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**own, **environment})
    kept, step, after = done.stdout.split()
    return kept, int(step), int(after)


@pytest.fixture(scope="module")
def plain() -> int:
    """Pages of a step with glibc as it comes."""
    return run("leave")[1]


def test_what_a_step_frees_is_there_for_the_next_one_until_it_is_given_back(plain: int) -> None:
    kept, step, after = run("keep")
    if kept == "False":
        pytest.skip("no glibc")
    assert step < plain / 10
    assert after > plain / 2


@pytest.mark.parametrize(
    "own", [{"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}, {"MALLOC_MMAP_THRESHOLD_": "131072"}]
)
def test_the_allocator_that_a_user_has_set_is_left_alone(plain: int, own: dict[str, str]) -> None:
    kept, step, _ = run("keep", **own)
    assert kept == "False"
    assert step > plain / 2
