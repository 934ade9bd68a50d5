"""TaskStream: source x construction x scenario."""

import copy
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.build import Conditions, warn_once
from cl.errors import ConfigError, expect
from cl.seeding import generator
from cl.streams.base import SCENARIOS, Stream, StreamInfo, Task
from cl.streams.constructions import Construction, Piece
from cl.streams.data import Data
from cl.streams.inputs import Inputs
from cl.streams.labels import Labelling, labelling
from cl.streams.remote import Remote
from cl.streams.selection import SELECTIONS, TAILS, held_of, hold_out, hold_out_last, limit, long_tail, noisy
from cl.streams.sources.base import Samples, Source
from cl.streams.transforms import augmentation_of


class TaskStream(Stream):
    """A stream cut from a source.

    What the four scenarios mean for the labels (`cl.streams.labels`):

    - ``task``: every task has outputs of its own (its own head), and the task is told at test time.
    - ``domain``: all tasks use the same outputs; in a split, label i is the i-th class of the task.
    - ``class``: every task has outputs of its own, and all of them compete at test time.
    - ``online``: nobody tells where tasks begin and end. Labels are those of ``class`` where tasks have classes of
      their own (a split, a sequence of data sets), shared where all tasks show the same classes (permuted, rotated).

    Args:
        source: where samples come from.
        construction: how tasks are cut from it.
        scenario: ``task``, ``domain``, ``class`` or ``online``.
        validation: fraction (0, 1) or number of samples a task held out of the training data, stratified by class and
            drawn by the seed; None for none.
        samples_per_task: samples kept of each task for training and validation together, or None for all.
        test_samples: test samples kept of each task, or None for all.
        selection: which samples are kept: ``drawn`` by the seed, or the ``first`` as stored.
        label_noise: probability that a training label is replaced by another of its task; validation and test stay
            clean.
        imbalance: samples of the most frequent class over samples of the rarest, >= 1 (long-tailed, Cui et al. 2019).
        imbalance_order: which classes are rare: later ones (``fixed``), or ``shuffled`` by the seed.
        normalise: ``none``, ``unit``, ``standard`` or {"mean", "std"}; see `cl.streams.transforms.normalisation`.
        padding: black pixels added on each side of an image.
        augmentation: arguments of `cl.streams.transforms.Augmentation`, or None; training only.
        cache: keep normalised float inputs in memory (``on``), normalise every batch (``off``), or ``auto``: on for
            accelerators up to 1 GiB, off for the CPU, where making the copy costs more than it saves.
        seed: root seed of the run.
        root: data folder.
        download: True may fetch missing files.
        device: where samples live.

    Raises:
        ConfigError: a value is impossible, or does not fit the source.
        DataError: a data file is missing, corrupt or cannot be fetched.
    """

    only_with: ClassVar[Conditions] = {"imbalance_order": {"imbalance": "> 1"}}

    def __init__(
        self,
        source: Source,
        construction: Construction,
        scenario: str = "task",
        validation: float | int | None = None,
        samples_per_task: int | None = None,
        test_samples: int | None = None,
        selection: str = "drawn",
        label_noise: float = 0.0,
        imbalance: float = 1.0,
        imbalance_order: str = "shuffled",
        normalise: str | Mapping[str, Sequence[float]] = "unit",
        padding: int = 0,
        augmentation: Mapping[str, Any] | None = None,
        cache: str = "auto",
        *,
        seed: int = 0,
        root: str | Path = "data",
        download: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        expect(scenario in SCENARIOS, "stream.scenario", f"in {list(SCENARIOS)}", scenario)
        expect(selection in SELECTIONS, "stream.selection", f"in {list(SELECTIONS)}", selection)
        expect(imbalance_order in TAILS, "stream.imbalance_order", f"in {list(TAILS)}", imbalance_order)
        expect(0 <= label_noise <= 1, "stream.label_noise", "in [0, 1]", label_noise)
        expect(imbalance >= 1, "stream.imbalance", ">= 1", imbalance)
        if selection != "drawn" and samples_per_task is None and test_samples is None:
            warn_once(f"stream.selection={selection} has no effect without samples_per_task or test_samples")
        self.construction, self.scenario, self.validation = construction, scenario, validation
        self.samples_per_task, self.test_samples, self.selection = samples_per_task, test_samples, selection
        self.label_noise, self.imbalance, self.imbalance_order = label_noise, imbalance, imbalance_order
        self.device = torch.device(device)
        self.table = source.load(Path(root), download)
        self.language = self.table.language
        if self.table.target != "class" and (label_noise > 0 or imbalance > 1):
            raise ConfigError(
                f"Expected `stream.label_noise` 0 and `stream.imbalance` 1 for target {self.table.target!r}"
            )
        made = augmentation_of(augmentation)
        self.inputs = Inputs(self.table, normalise, padding, made, cache, self.device)
        self._cut(seed)

    def _cut(self, seed: int) -> None:
        """Draw what depends on the seed."""
        self.seed = seed
        shape = tuple(self.inputs.train.shape[1:])
        pieces = self.construction.pieces(self.table, shape, seed)
        self.labelling: Labelling = labelling(
            self.table.class_names, self.table.target, pieces, self.scenario, self.construction.same_classes
        )
        self._pieces = [self._placed(piece) for piece in pieces]
        self.class_names = self.labelling.names
        self.info = StreamInfo(
            scenario=self.scenario,
            n_tasks=len(pieces),
            n_classes=self.labelling.n_outputs,
            task_classes=self.labelling.task_outputs,
            input_shape=shape,
            seed=seed,
            shared_labels=self.labelling.shared,
            target=self.table.target,
            sequence=self.table.sequence,
            vocabulary=self.table.vocabulary,
            padded=self.table.padded,
            augment=self.inputs.augmenting if all(piece.change is None for piece in pieces) else None,
        )
        self._indices: deque[tuple[Tensor, Tensor]] = deque(maxlen=6)
        self._tasks: dict[int, Task] = {}
        self._tests: dict[int, Data] = {}
        order = list(dict.fromkeys(c for piece in pieces for c in piece.classes))
        if self.imbalance_order == "shuffled":
            drawn = torch.randperm(len(order), generator=generator(seed, "imbalance order")).tolist()
            order = [order[i] for i in drawn]
        self._rank = {c: r for r, c in enumerate(order)}

    def _placed(self, piece: Piece) -> Piece:
        change = piece.change.to(self.device) if piece.change is not None else None
        return Piece(piece.classes, change, piece.group)

    def with_seed(self, seed: int) -> "TaskStream":
        """Return the same stream for another seed; the stored samples are shared, not copied."""
        other = copy.copy(self)
        other.__dict__.pop("_fingerprint", None)
        other._cut(seed)
        return other

    def __getitem__(self, k: int) -> Task:
        """Return task k."""
        k = self._place(k)
        if k not in self._tasks:
            train, validation = self._training(k)
            self._tasks[k] = Task(k, self.info.task_classes[k], train, validation)
        return self._tasks[k]

    def _place(self, k: int) -> int:
        if not -len(self) <= k < len(self):
            raise IndexError(f"task {k} of a stream of {len(self)}")
        return k % len(self)

    def _rows(self, split: Samples, k: int) -> Tensor:
        """Return the rows of a split that belong to task k, as stored: (n,)."""
        piece = self._pieces[k]
        if piece.group is not None and split.group is not None:
            return (split.group == piece.group).nonzero()[:, 0]
        if self.table.target != "class" or len(piece.classes) == self.table.n_classes:
            return torch.arange(len(split.y))
        wanted = torch.zeros(self.table.n_classes, dtype=torch.bool)
        wanted[list(piece.classes)] = True
        return wanted[split.y].nonzero()[:, 0]

    def _training(self, k: int) -> tuple[Data, Data | None]:
        split = self.table.train
        rows, held = self._rows(split, k), None
        n, name = self.samples_per_task, "stream.samples_per_task"
        if self.validation is not None:
            if split.reach is not None:
                rows, held = hold_out_last(split.group, rows, self.validation, split.reach)
            else:
                rows, held = hold_out(split.y, rows, self.validation, self.seed)
            if n is not None:
                few = held_of(n, self.validation)
                held, n = limit(held, few, self.selection, self.seed, "held", k, name), n - few
        rows = long_tail(split.y, rows, self._rank, self.imbalance, self.seed, k)
        rows = limit(rows, n, self.selection, self.seed, "samples", k, name)
        labels = self.labelling(split.y[rows], k)
        labels = noisy(labels, self.info.task_classes[k], self.label_noise, self.seed, k)
        train = self._data(self.inputs.train, rows, labels, k, augment=True)
        if held is None:
            return train, None
        return train, self._data(self.inputs.train, held, self.labelling(split.y[held], k), k)

    def test(self, k: int) -> Data:
        """Return the test split of task k."""
        k = self._place(k)
        if k not in self._tests:
            split = self.table.test
            rows = self._rows(split, k)
            rows = limit(rows, self.test_samples, self.selection, self.seed, "test", k, "stream.test_samples")
            self._tests[k] = self._data(self.inputs.test, rows, self.labelling(split.y[rows], k), k)
        return self._tests[k]

    def _data(self, storage: Tensor | Remote, rows: Tensor, labels: Tensor, k: int, augment: bool = False) -> Data:
        if len(rows) == 0:
            what = "test" if storage is self.inputs.test else "training and validation"
            raise ConfigError(f"Expected `stream` to have {what} samples in every task, got none in task {k + 1}")
        pipeline = self.inputs.pipeline(self._pieces[k].change, augment)
        return Data(storage, self._moved(rows), self._moved(labels), k, pipeline)

    def _moved(self, tensor: Tensor) -> Tensor:
        """Return an index on the device; equal ones are kept once, so that permuted tasks cost nothing each."""
        for known, moved in self._indices:
            if torch.equal(known, tensor):
                return moved
        self._indices.append((tensor, tensor.to(self.device)))
        return self._indices[-1][1]

    def fingerprint(self) -> str:
        """Return a hash of the stored samples (every byte), labels, rows and transforms of every split."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.inputs.digest)
        digest.update(repr((self.info.scenario, self.info.n_classes, self.info.task_classes)).encode())
        for k, piece in enumerate(self._pieces):
            digest.update((piece.change.describe() if piece.change is not None else "-").encode())
            task = self[k]
            for data in (task.train, task.validation, self.test(k)):
                if data is not None:
                    for tensor in (data.index, data.labels):
                        digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()
