"""Samples of tasks: right pictures, right labels, and nothing where there is no picture."""

from pathlib import Path

import numpy as np
import torch

from cl.report.samples import NAME, read_samples, section, task_samples, write_samples
from cl.streams.base import Task
from cl.streams.data import Data
from cl.testing import TinyStream


class Changed(TinyStream):
    """TinyStream whose inputs pass through a transform."""

    def __init__(self, transform) -> None:
        super().__init__("class")
        self.transform = transform

    def __getitem__(self, k: int) -> Task:
        task = super().__getitem__(k)
        d = task.train
        return Task(task.index, task.classes, Data(d.storage, d.index, d.labels, k, self.transform), None)


def test_pictures_are_the_inputs_of_the_network(tmp_path: Path) -> None:
    stream = TinyStream("class")
    write_samples(stream, tmp_path)
    found = read_samples(tmp_path / NAME)
    assert found is not None
    assert found.pixels.shape == (30, 4, 4, 3)
    np.testing.assert_array_equal(found.task, np.repeat([0, 1, 2], 10))
    assert found.label.tolist() == [str(c) for c in range(6) for _ in range(5)]
    data = stream[1].train
    place = (data.labels == 2).nonzero()[:, 0][0]
    expected = data.inputs(place[None])[0, 0].numpy()
    shown = found.pixels[10, :, :, 0]
    np.testing.assert_allclose(np.corrcoef(shown.ravel(), expected.ravel())[0, 1], 1, atol=1e-3)
    assert shown.min() >= 0
    assert found.pixels[10:20].max() == 255


def test_permuted_pixels_are_shown_permuted() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    plain, permuted = (
        task_samples(Changed(lambda x, key, f=f: f(x)))
        for f in (lambda x: x, lambda x: x.flatten(1)[:, order].view_as(x))
    )
    assert plain is not None
    assert permuted is not None
    np.testing.assert_array_equal(permuted.pixels.reshape(30, 16, 3), plain.pixels.reshape(30, 16, 3)[:, order])


def test_sequences_and_what_is_no_picture() -> None:
    steps = task_samples(Changed(lambda x, key: x.flatten(1)[:, :, None].expand(-1, -1, 3)))
    assert steps is not None
    assert steps.pixels.shape == (30, 3, 16, 3)  # three features high, sixteen steps long
    assert task_samples(Changed(lambda x, key: x.flatten(1).long())) is None


def test_section_embeds_one_picture_a_sample(tmp_path: Path) -> None:
    write_samples(TinyStream("class"), tmp_path)
    html = section([tmp_path / "missing", tmp_path])
    assert html.count("<img ") == html.count('src="data:image/png;base64,') == 30
    assert section([tmp_path / "missing"]) == ""
