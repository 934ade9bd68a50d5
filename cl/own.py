"""Streams and learners of a user's own, looked at before they are trained: what does not fit becomes one line."""

import torch
from torch import Tensor, nn

from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.objectives import IGNORE
from cl.streams.base import Stream, StreamInfo
from cl.streams.data import Data


def ours(kind: type) -> bool:
    """Return True for classes of this project, which its tests look at."""
    return kind.__module__.partition(".")[0] in ("cl", "strategies")


def check_stream(stream: Stream) -> None:
    """Look at the facts of a stream, at all its labels and at one sample of every split.

    Raises:
        ConfigError: they do not fit together; the message names the stream's class and what.
    """
    name, info = type(stream).__name__, getattr(stream, "info", None)
    if not isinstance(info, StreamInfo):
        raise ConfigError(f"Expected {name}.info to be a cl.streams.base.StreamInfo, got {info!r}")
    for what, value in (("task_classes", info.task_classes), ("class_names", getattr(stream, "class_names", ()))):
        if len(value) != info.n_tasks:
            raise ConfigError(f"Expected {name} with {what} of each of its {info.n_tasks} tasks, got {len(value)}")
    if not isinstance(found := stream.fingerprint(), str):
        raise ConfigError(f"Expected {name}.fingerprint to return a string, got {found!r}")
    for k in range(info.n_tasks):
        task = stream[k]
        for split, data in (("training", task.train), ("validation", task.validation), ("test", stream.test(k))):
            if data is not None or split != "validation":
                _check_split(data, info, k, f"{name}, {split} split of task {k}")


def _check_split(data: object, info: StreamInfo, k: int, where: str) -> None:
    if not isinstance(data, Data) or len(data) == 0:
        given = "none" if isinstance(data, Data) else type(data).__name__
        raise ConfigError(f"Expected samples (a cl.streams.data.Data) in {where}, got {given}")
    if info.target != "real":
        foreign = set(torch.unique(data.labels).tolist()) - set(info.task_classes[k])
        foreign -= {IGNORE} if info.target == "steps" else set()
        if foreign or max(info.task_classes[k]) >= info.n_classes:
            classes = f"in the task's classes {list(info.task_classes[k])} of {info.n_classes} outputs"
            raise ConfigError(f"Expected labels {classes} in {where}, got {sorted(foreign) or 'too few outputs'}")
    x = data.batch(torch.zeros(1, dtype=torch.long, device=data.device), _key(data.device), augment=False).x
    kind = torch.long if info.vocabulary > 0 else torch.float32
    if tuple(x.shape[1:]) != tuple(info.input_shape) or x.dtype != kind:
        given = f"{tuple(x.shape[1:])} and {x.dtype}"
        raise ConfigError(f"Expected samples of shape {tuple(info.input_shape)} and {kind} in {where}, got {given}")


def _key(device: torch.device) -> Tensor:
    return torch.zeros((), dtype=torch.long, device=device)


def check_constructed(module: nn.Module) -> None:
    """Look whether the constructor of a module's class called that of its base.

    Raises:
        ConfigError: it did not.
    """
    if "_modules" not in vars(module):
        name = type(module).__name__
        raise ConfigError(f"Expected {name}.__init__ to call super().__init__ before anything else, got no call")


def check_learner(learner: object, info: StreamInfo) -> None:
    """Look at the parts of a learner and at what it answers to two samples of zeros.

    Raises:
        ConfigError: a part is missing, or the answer is of another shape than the stream's outputs ask for.
    """
    name = type(learner).__name__
    if not isinstance(learner, Learner):
        raise ConfigError(f"Expected `learner._target_` a subclass of cl.learners.base.Learner, got {name}")
    check_constructed(learner)
    for part, kind in (("blocks", nn.ModuleList), ("head", nn.Module), ("widths", tuple | list)):
        if not isinstance(getattr(learner, part, None), kind):
            raise ConfigError(f"Expected {name} to set `{part}` (see cl.learners.base.Learner), got none")
    if len(learner.widths) != len(learner.blocks):
        raise ConfigError(f"Expected {name}.widths of each of its {len(learner.blocks)} blocks, got {learner.widths}")
    x = torch.zeros(2, *info.input_shape, dtype=torch.long if info.vocabulary > 0 else torch.float32)
    modes = [(module, module.training) for module in learner.modules()]
    try:
        with torch.no_grad():
            out = learner.eval()(x)
    except Exception as error:
        shape = f"two samples of shape {tuple(info.input_shape)}"
        raise ConfigError(f"Expected {name} to answer {shape}, got {type(error).__name__}: {error}") from error
    finally:
        for module, mode in modes:
            module.training = mode
    steps = info.input_shape[:1] if info.target == "steps" else ()
    if not isinstance(out, Tensor) or tuple(out.shape) != (2, *steps, info.n_classes):
        given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(f"Expected {name} to return logits {(2, *steps, info.n_classes)} of two samples, got {given}")
