"""Where a run is computed, and with which guarantees."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from cl.allocator import give_back, keep_freed
from cl.compiler import light_optimisers
from cl.errors import ConfigError, expect
from cl.products import quick_linear


def find(name: str) -> torch.device:
    """Return the device that a setting stands for.

    Args:
        name: ``auto`` (CUDA, else Apple's MPS, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigError: the name is unknown, or the device is not there.
    """
    known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is not None
    expect(known, "device", "in ['auto', 'cpu', 'cuda', 'cuda:N', 'mps']", name)
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(name[5:] or 0) if ":" in name else 0
        if index >= count:
            raise ConfigError(
                f"Expected `device` to be present, got {name!r} on a machine with {count} CUDA devices; "
                "use device=cpu or device=auto"
            )
    if name == "mps" and not mps:
        raise ConfigError("Expected `device` to be present, got 'mps' on a machine without it; use device=cpu")
    return torch.device(name)


@contextlib.contextmanager
def guarantees(device: torch.device, threads: int | None, deterministic: bool) -> Iterator[None]:
    """Set threads, deterministic kernels and how tiny numbers are treated inside the block, and put all back after it.

    Numbers below the smallest normal one (1.2e-38 in single precision) count as zero. The gradients of a recurrent
    network reach them some hundred steps back, and a CPU multiplies them about thirty times as slowly; no weight of
    ordinary size would notice them.

    On a CPU the process keeps the memory that a step frees for the next one (`cl.allocator`), from then on; at the end
    of the block what is free goes back to the system.
    """
    before, flushed = torch.get_num_threads(), _flushes()
    mode = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    kept = device.type == "cpu" and keep_freed()
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_flush_denormal(True)  # before other threads are started, which take it over
        if threads is not None:
            torch.set_num_threads(threads)
        # The same switch as `torch.use_deterministic_algorithms`, which imports torch's compiler: 2 s of start-up.
        torch.set_deterministic_debug_mode("error" if deterministic else "default")
        # Nothing here reads memory it has not written; filling it would cost time at every allocation.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        with light_optimisers(), quick_linear() if device.type == "cpu" else contextlib.nullcontext():
            yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        if kept:
            give_back()


def _flushes() -> bool:
    """Return whether this thread takes numbers below the smallest normal one for zero: torch has no call that tells."""
    return not bool(torch.tensor(torch.finfo(torch.float32).tiny) * 0.5 > 0)
