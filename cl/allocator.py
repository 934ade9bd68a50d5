"""glibc's allocator, told to keep the memory that a step frees: the next step asks for as much again.

As it comes, glibc asks the system for every block above 32 MiB, gives it back when it is freed, and gives back what is
free at the end of the heap. The activations of a convolution or of a recurrent network are such blocks, and the system
fills every page of a new one with zeros: half the time of a convolutional network's step on a CPU.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST = 1 << 30  # bytes of a block that is kept
OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep_freed() -> bool:
    """Have this process keep freed blocks of up to a GiB, from now on; return False where nothing was changed.

    That is so without glibc (macOS, Windows, musl), and where the user set glibc's allocator by an environment variable
    of its own (`MALLOC_TRIM_THRESHOLD_`, `GLIBC_TUNABLES`...).
    """
    if any(name in os.environ for name in OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = _glibc("mallopt")
    if mallopt is None or not mallopt(TRIM_THRESHOLD, -1):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) or mallopt(MMAP_THRESHOLD, 32 << 20))  # older ones take no more


def give_back() -> None:
    """Give the memory that is free back to the system."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return a function of glibc, or None in a process that runs on another C library."""
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
