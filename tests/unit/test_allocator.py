"""Freed memory that is kept: told by the pages that the system has to hand out, in processes of their own."""

import os
import subprocess
import sys

import pytest

from cl.allocator import OWN

ROUNDS, BYTES = 10, 64 << 20
PROGRAM = f"""
import resource, sys
import torch
from cl.allocator import give_back, keep_freed

def handed_out():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed() if sys.argv[1] == "keep" else None
def use():
    torch.zeros({BYTES // 4}).add_(1)

for _ in range(5):  # until the heap is as large as it gets
    use()
before = handed_out()
for _ in range({ROUNDS}):
    use()
steps = handed_out() - before
give_back()
before = handed_out()
use()
print(kept, steps, handed_out() - before)
"""


def run(what: str, **environment: str) -> tuple[str, int, int]:
    """Return what `keep_freed` said, and the pages of ten steps, and of one after the memory was given back."""
    own = {name: value for name, value in os.environ.items() if name not in (*OWN, "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**own, **environment})
    kept, steps, after = done.stdout.split()
    return kept, int(steps), int(after)


@pytest.fixture(scope="module")
def plain() -> int:
    """Pages of ten steps with glibc as it comes."""
    return run("leave")[1]


def test_what_a_step_frees_is_there_for_the_next_one_until_it_is_given_back(plain: int) -> None:
    kept, steps, after = run("keep")
    if kept == "False":
        pytest.skip("no glibc")
    assert steps < plain / ROUNDS / 2  # less than one of the ten steps alone
    assert after > plain / ROUNDS / 2


@pytest.mark.parametrize(
    "own", [{"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}, {"MALLOC_MMAP_THRESHOLD_": "131072"}]
)
def test_the_allocator_that_a_user_has_set_is_left_alone(plain: int, own: dict[str, str]) -> None:
    kept, steps, _ = run("keep", **own)
    assert kept == "False"
    assert steps > plain / 2
