"""What a run costs besides seconds and stored bytes: passes through its networks, and memory at its peak.

A pass is one sample through one network of the strategy: the learner, a teacher or column that is a learner too, the
decoder of a generator. It is counted where the last block gives its output, so features count like logits; a backward
pass is counted where a gradient enters that output, so training a head on frozen blocks takes none.

Counted are the steps and what a strategy does before and after a task (Fisher information, exemplars); not evaluation
and measures. The passes of a step depend only on the task, the size of its batch and whether it is the last step on it
(hot-path code has no choices that depend on data), so the first step of each kind is counted, with a hook that is there
for this step alone, and the others are taken to be like it. Strategies with a reason not to be `vectorizable` have
every step counted. So the numbers are exact, except where a network is made and used within one call of a host-path
method: it is not seen.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from cl.generative import VAE
from cl.learners.base import Learner
from cl.transform import transformed

_RESET_PEAK = "5"  # proc(5), clear_refs: begin anew with the peak of the resident memory


@dataclass
class Passes:
    """Passes of samples through networks.

    Attributes:
        forward: forward passes.
        backward: backward passes.
    """

    forward: int = 0
    backward: int = 0

    def add(self, other: "Passes") -> None:
        """Add the passes of `other` to these."""
        self.forward += other.forward
        self.backward += other.backward


class _Pass(torch.autograd.Function):
    """The identity on (B, ...), which counts `rows` passes forward and, when a gradient comes back, backward."""

    @staticmethod
    def forward(x: Tensor, passes: Passes, kind: str, rows: int) -> Tensor:
        setattr(passes, kind, getattr(passes, kind) + rows)
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Passes, str, int], output: Tensor) -> None:
        _, ctx.passes, _, ctx.rows = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _marked(grad, ctx.passes, "backward", ctx.rows), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, passes: Passes, kind: str, rows: int) -> Any:
        """Count for all replicas, or samples, that `torch.func.vmap` takes at once."""
        return _marked(x, passes, kind, rows * info.batch_size), in_dims[0]


class _PlainPass(torch.autograd.Function):
    """The same in torch's older form, which knows no transforms and is called in a sixth of the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: Passes, kind: str, rows: int) -> Tensor:
        ctx.passes, ctx.rows = passes, rows
        setattr(passes, kind, getattr(passes, kind) + rows)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _marked(grad, ctx.passes, "backward", ctx.rows), None, None, None


def _marked(x: Tensor, passes: Passes, kind: str, rows: int) -> Tensor:
    marked: Tensor = (_Pass if transformed() else _PlainPass).apply(x, passes, kind, rows)
    return marked


@contextlib.contextmanager
def counted(strategy: nn.Module) -> Iterator[Passes]:
    """Count the passes through the networks of a strategy inside the block; nothing that is computed changes."""
    passes = Passes()
    learners = {id(_end(m.blocks)) for m in strategy.modules() if isinstance(m, Learner)}
    decoders = {id(m.decoder) for m in strategy.modules() if isinstance(m, VAE)}

    def mark(module: nn.Module, args: tuple[Any, ...], out: Any) -> Tensor | None:
        if id(module) in learners:
            return _marked(out, passes, "forward", out.shape[0])
        if id(module) in decoders:  # (..., D): evidence decodes several codes a sample
            return _marked(out, passes, "forward", out.numel() // out.shape[-1])
        return None

    # Not hooks of the modules themselves: a strategy may copy its learner meanwhile, and the copy would keep them.
    handle = register_module_forward_hook(mark)  # type: ignore[arg-type]  # torch takes a new output, its stub does not
    try:
        if "torch._dynamo" in sys.modules:  # compiled steps are counted as they were written
            with torch.compiler.set_stance("force_eager"):
                yield passes
        else:
            yield passes
    finally:
        handle.remove()


def _end(module: nn.Module) -> nn.Module:
    """Return the last module of nested sequences: what a block that is walked layer by layer calls last, too."""
    while isinstance(module, nn.Sequential | nn.ModuleList):
        module = module[-1]
    return module


class StepPasses:
    """The passes of the steps of one task.

    Args:
        every: True counts every step; False the first one of each kind.
        known: the passes of a step by its kind, where they are known already.
    """

    def __init__(self, every: bool, known: dict[int, Passes] | None = None) -> None:
        self.every = every
        self.known = known or {}

    def take(
        self, strategy: nn.Module, kind: int, step: Callable[[], Tensor], replicas: int = 1
    ) -> tuple[Tensor, Passes]:
        """Take a step of some replicas; return its outcome, and the passes of one replica.

        Args:
            strategy: one replica, or what stands for all.
            kind: samples of the batch, negative where other steps on the same batch follow.
            step: takes it.
            replicas: how many take it at once.
        """
        if kind in self.known:
            return step(), self.known[kind]
        with counted(strategy) as passes:
            out = step()
        passes = Passes(passes.forward // replicas, passes.backward // replicas)
        if not self.every:
            self.known[kind] = passes
        return out, passes


def watch_memory(device: torch.device) -> None:
    """Begin anew with the peaks that `peak_memory` tells."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # Linux alone has it; elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the largest memory in bytes since `watch_memory`.

    ``peak_resident_bytes`` is what the process held in main memory: Python, libraries and data of all replicas included
    (where the system cannot begin anew, since the process began). ``peak_device_bytes``, on CUDA, is what torch's
    allocator gave out. A resumed run tells the peaks of its last process.
    """
    found = {"peak_resident_bytes": _peak_resident()}
    if device.type == "cuda":
        found["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def _peak_resident() -> int:
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
