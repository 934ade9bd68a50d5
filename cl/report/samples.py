"""What the tasks look like: a few training samples of each as pictures, with their labels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cl.files import atomic_path
from cl.report.picture import png

if TYPE_CHECKING:
    from torch import Tensor

    from cl.streams.base import Stream

NAME = "samples.npz"
PER_TASK = 10
TASKS = 10
LARGEST = 48  # pixels of a side; larger pictures are thinned
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Samples:
    """Pictures of N samples.

    Attributes:
        pixels: (N, H, W, 3) uint8.
        task: (N,) the task (from 0) each is from.
        label: (N,) what its label means.
    """

    pixels: Pixels
    task: NDArray[np.int64]
    label: NDArray[np.str_]


def task_samples(stream: "Stream", per_task: int = PER_TASK, tasks: int = TASKS) -> Samples | None:
    """Return samples of up to `tasks` tasks, evenly spread over their classes, as the network sees them.

    Images (C, H, W) become pictures; sequences of numbers (T, D) or (T,) pictures with time from left to right. Each
    task is stretched from black to white by itself. None for a stream of another kind (tokens,
    targets that are no classes).
    """
    import torch

    if stream.info.target != "class":
        return None
    images: list[Pixels] = []
    task: list[int] = []
    label: list[str] = []
    shown = np.linspace(0, len(stream) - 1, min(tasks, len(stream))).round().astype(int).tolist()
    for k in sorted(set(shown)):
        data = stream[k].train
        labels = data.labels.cpu()
        classes = [c for c in stream[k].classes if bool((labels == c).any())]
        each = -(-per_task // max(len(classes), 1))
        chosen = [(labels == c).nonzero()[:each, 0] for c in classes][:per_task]
        place = torch.stack([row[i] for i in range(each) for row in chosen if i < len(row)])[:per_task]
        place = place[labels[place].argsort(stable=True)]
        x = data.inputs(place.to(data.device)).cpu()
        image = pixels(x) if x.is_floating_point() else None
        if image is None or (images and image.shape[1:] != images[0].shape[1:]):
            return None
        images.append(image)
        task += [k] * len(place)
        names = dict(zip(stream[k].classes, stream.class_names[k], strict=False))
        label += [str(names.get(int(c), int(c))) for c in labels[place]]
    return Samples(np.concatenate(images), np.array(task, np.int64), np.array(label)) if images else None


def pixels(x: "Tensor") -> Pixels | None:
    """Return (B, *input) as (B, H, W, 3) uint8, or None where it is no picture."""
    values = x.double().numpy()
    if values.ndim == 2:
        values = values[:, None, :]
    elif values.ndim == 3:
        values = values.transpose(0, 2, 1)
    elif values.ndim == 4 and values.shape[1] in (1, 3):
        values = values.transpose(0, 2, 3, 1)
    else:
        return None
    if values.ndim == 3:
        values = values[..., None]
    rows, columns = -(-values.shape[1] // LARGEST), -(-values.shape[2] // LARGEST)
    values = values[:, ::rows, ::columns]
    low, high = values.min(), values.max()
    scaled = np.round((values - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(scaled, (*scaled.shape[:3], 3)))


def write_samples(stream: "Stream", folder: Path) -> None:
    """Write ``samples.npz`` (pixels, task, label) into a run folder; nothing for a stream that cannot be pictured."""
    found = task_samples(stream)
    if found is not None:
        with atomic_path(folder / NAME) as path, path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **vars(found))


def read_samples(path: Path) -> Samples | None:
    """Read what `write_samples` wrote; None where there is nothing to read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Samples(arrays["pixels"], arrays["task"], arrays["label"])
    except (OSError, ValueError, KeyError):
        return None


def section(folders: Sequence[Path]) -> str:
    """Return the samples of the first of `folders` that has some, as HTML; "" where none has."""
    found = next((s for s in (read_samples(f / NAME) for f in folders) if s is not None), None)
    if found is None:
        return ""
    rows = ""
    for k in dict.fromkeys(found.task.tolist()):
        inside = found.task == k
        pictures = "".join(picture(p, str(n)) for p, n in zip(found.pixels[inside], found.label[inside], strict=True))
        rows += f'<div class="samples" data-task="{k}"><b>Task {k + 1}</b>{pictures}</div>'
    return (
        f'<figure class="chart"><h3>What the tasks look like</h3>{rows}<figcaption>Training samples as the network '
        "sees them (permuted, rotated, normalised), each task stretched from black to white, with what their labels "
        "mean. They are those of the first run; other seeds may draw other classes or permutations."
        "</figcaption></figure>"
    )


def picture(values: Pixels, label: str) -> str:
    """Return one picture (H, W, 3) with its label under it as HTML."""
    from PIL import Image

    image = Image.fromarray(values)
    if (values[..., :1] == values).all():
        image = image.convert("L")
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"<span>{png(file.getvalue(), f'sample of {label}')}<i>{escape(label)}</i></span>"
