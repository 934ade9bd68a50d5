"""Randomness as a pure function of (seed, purpose, indices): nothing to save, nothing to restore.

Two kinds of draws exist. *Host draws* (class orders, permutations, sample orders, initial weights) come from a
`torch.Generator` made for one purpose. *Hot-path draws* (memory slots, dropout masks, noise) come from a counter-based
hash of the step's key, written in plain tensor arithmetic, so that the same numbers appear in a plain loop, under
`torch.func.vmap`, on any device, and after a resume.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014: Fast splittable pseudorandom number generators), constants as signed 64-bit.
_GOLDEN = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def derive(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit number that depends on every argument and on nothing else.

    Args:
        seed: the root seed of a run; any integer, 0 included.
        purpose: what the number is for, e.g. ``"order"``.
        indices: task, epoch, step...

    >>> derive(0, "order", 1, 2) == derive(0, "order", 1, 2)
    True
    >>> derive(0, "order", 1, 2) == derive(0, "order", 2, 1)
    False
    """
    text = ":".join([str(int(seed)), purpose, *(str(int(i)) for i in indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return a CPU generator for host draws, seeded with `derive`."""
    return torch.Generator().manual_seed(derive(seed, purpose, *indices))


@contextlib.contextmanager
def seeded(seed: int, purpose: str, *indices: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and put its state back after it.

    For library code that takes no generator (`torch.nn.init`, module constructors).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose, *indices))
        yield


@contextlib.contextmanager
def drawing(device: torch.device) -> Iterator[None]:
    """Put the state of torch's global generators, of the CPU and of `device`, back after the block."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _mix(z: Tensor) -> Tensor:
    for shift, mask, factor in ((30, 0x3FFFFFFFF, _MIX_1), (27, 0x1FFFFFFFFF, _MIX_2)):
        z = (z >> shift).bitwise_and_(mask).bitwise_xor_(z).mul_(factor)  # in place: one pass less of new memory each
    return (z >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(z)


def step_keys(seed: int, task: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the keys of `count` steps of a task, from step `first` on: (count,) int64."""
    base = derive(seed, "step", task)
    return _mix((torch.arange(first, first + count, device=device) + 1) * _GOLDEN + base)


def _counter(count: int, device: torch.device) -> Tensor:
    counter = torch.arange(1, count + 1, device=device)
    if torch.compiler.is_compiling():  # or the compiler makes a range of huge steps of the product, which it rounds
        counter = counter & 0x7FFFFFFFFFFFFFFF
    return counter


def _bits(key: Tensor, shape: Sequence[int], purpose: str) -> Tensor:
    counter = _counter(math.prod(shape), key.device)
    return _mix(torch.add(_mix(key + derive(0, purpose)), counter, alpha=_GOLDEN)).reshape(tuple(shape))


def uniform(key: Tensor, shape: Sequence[int], purpose: str) -> Tensor:
    """Draw numbers uniform in [0, 1) from a step's key: `shape` float32.

    Args:
        key: () int64, `Batch.key`.
        shape: the shape wanted.
        purpose: a name; different names give independent draws of one step.

    >>> key = step_keys(0, 0, 0, 1)[0]
    >>> bool((uniform(key, (3,), "a") == uniform(key, (3,), "a")).all())
    True
    """
    return _fraction(_bits(key, shape, purpose) >> 40)


def uniforms(key: Tensor, shapes: Sequence[Sequence[int]], purposes: Sequence[str]) -> list[Tensor]:
    """Return what `uniform` draws for each of several shapes and purposes, at once, which small draws gain from."""
    counts = [math.prod(shape) for shape in shapes]
    starts = _mix(torch.stack([key + derive(0, purpose) for purpose in purposes])).unbind()
    start = torch.cat([s.expand(n) for s, n in zip(starts, counts, strict=True)])
    counter = torch.cat([_counter(n, key.device) for n in counts])
    found = torch.split(_fraction(_mix(torch.add(start, counter, alpha=_GOLDEN)) >> 40), counts)
    return [part.reshape(tuple(shape)) for part, shape in zip(found, shapes, strict=True)]


def _fraction(bits: Tensor) -> Tensor:
    """Return the lowest 24 bits as a fraction in [0, 1); the other bits are lost."""
    return bits.bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


def normal(key: Tensor, shape: Sequence[int], purpose: str) -> Tensor:
    """Draw standard normal numbers from a step's key by the Box-Muller transform, in pairs: `shape` float32."""
    count = math.prod(shape)
    bits = _bits(key, ((count + 1) // 2,), purpose)
    radius = _fraction(bits >> 40).neg_().log1p_().mul_(-2.0).sqrt_()
    angle = _fraction(bits >> 16).mul_(2.0 * math.pi)
    return torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)])[:count].reshape(tuple(shape))


def integers(key: Tensor, shape: Sequence[int], high: Tensor | int, purpose: str) -> Tensor:
    """Draw integers uniform in [0, high): `shape` int64. `high` may be a tensor, and 0 gives 0."""
    bits = (_bits(key, shape, purpose) >> 16) & 0x7FFFFFFFFFFF
    limit = torch.as_tensor(high, device=key.device).clamp_min(1)
    return bits % limit
