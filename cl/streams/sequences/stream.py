"""GeneratedStream: tasks drawn by rules, finite or endless."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.objectives import IGNORE
from cl.seeding import derive
from cl.streams.base import SCENARIOS, Stream, StreamInfo, Task
from cl.streams.constructions import Piece
from cl.streams.data import Data
from cl.streams.labels import labelling
from cl.streams.sequences.problem import Problem

Word = tuple[int, ...]


def as_drawn(x: Tensor, key: Tensor | None = None) -> Tensor:
    """Return stored samples as inputs: tokens as they are, anything else as float32 without scaling."""
    return x if x.dtype in (torch.int64, torch.float32) else x.to(torch.float32)


class _Endless(Data):
    """A split whose training batches are drawn anew at every step; everything else sees a fixed set of the same kind.

    Args:
        fixed: the fixed set.
        stream: draws the samples.
        k: task.
    """

    def __init__(self, fixed: Data, stream: "GeneratedStream", k: int) -> None:
        super().__init__(fixed.storage, fixed.index, fixed.labels, fixed.task, fixed.transform)
        self._stream, self._k = stream, k
        self._offset = derive(stream.info.seed, "sequence/endless", k)

    def batch(self, positions: Tensor, key: Tensor, augment: bool = True) -> Batch:
        """Return a new batch of the size of `positions` (B,) in training, else the fixed samples there."""
        if not augment:
            return super().batch(positions, key, augment)
        x, y = self._stream.draw(self._stream.problems[self._k], self._k, key + self._offset, len(positions))
        return Batch(as_drawn(x), y, self._task.expand(len(positions)), key)

    def subset(self, positions: Tensor) -> Data:
        """Return fixed samples at `positions` (n,)."""
        return Data(self.storage, self.index[positions], self.labels[positions], self.task, self.transform)


def own_bits(codes: tuple[Word | None, ...], outputs: int) -> tuple[Word | None, ...]:
    """Return the words of all outputs, in which tasks that have outputs of their own have bits of their own.

    Args:
        codes: the words of one task.
        outputs: number of outputs, a multiple of the words.
    """
    width = max(len(word) for word in codes if word is not None)
    tasks = outputs // len(codes)
    pads = [((0,) * (width * k), (0,) * (width * (tasks - 1 - k))) for k in range(tasks)]
    return tuple(None if word is None else (*before, *word, *after) for before, after in pads for word in codes)


class GeneratedStream(Stream):
    """A stream of generated sequence tasks. All tasks ask for the same symbols, so ``online`` shares its labels.

    Tasks that differ in length are padded to the longest and marked as `cl.streams.base.StreamInfo.padded` says.

    Args:
        problems: one problem a task; or one problem, of which every task is a variant (its own order).
        n_tasks: number of tasks K where one problem is given; None = as many as there are problems.
        scenario: ``task``, ``domain``, ``class`` or ``online``; regression has shared outputs alone.
        samples: training samples of a task (of an epoch, where they are endless).
        test_samples: test samples of a task.
        validation: validation samples of a task, drawn besides the training ones: a number, a fraction of `samples` in
            (0, 1), or None.
        endless: True draws new training samples at every step; no sample is ever seen twice.
        seed: root seed of the run.
        root, download: not used; the samples are made here.
        device: where samples live.

    Raises:
        ConfigError: problems do not go together.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        n_tasks: int | None = None,
        scenario: str = "domain",
        samples: int = 10000,
        test_samples: int = 1000,
        validation: float | int | None = None,
        endless: bool = False,
        *,
        seed: int = 0,
        root: str = "data",
        download: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        expect(scenario in SCENARIOS, "stream.scenario", f"in {list(SCENARIOS)}", scenario)
        expect(len(problems) > 0, "stream.problems", "a list of problems", list(problems))
        expect(n_tasks is None or n_tasks > 0, "stream.n_tasks", "> 0", n_tasks)
        k = len(problems) if n_tasks is None else n_tasks
        rule = f"null or {len(problems)}, as many as there are problems"
        expect(len(problems) in (1, k), "stream.n_tasks", rule, n_tasks)
        for name, value in (("samples", samples), ("test_samples", test_samples), ("validation", validation)):
            expect(value is None or value > 0, f"stream.{name}", "> 0", value)
        whole = validation is None or validation < 1 or float(validation).is_integer()
        expect(whole, "stream.validation", "a whole number, or a fraction in (0, 1)", validation)
        listed = list(problems) if len(problems) == k else [problems[0]] * k
        self.problems = [problem.fixed(seed, i) for i, problem in enumerate(listed)]
        self.samples, self.test_samples, self.endless = samples, test_samples, endless
        self.validation = validation if validation is None or validation >= 1 else max(1, round(validation * samples))
        self.device = torch.device(device)
        first = self.problems[0]
        for problem in self.problems[1:]:
            for name in ("target", "features", "vocabulary", "class_names", "codes"):
                a, b = getattr(first, name), getattr(problem, name)
                expect(a == b, "stream.problems", f"problems of one kind, with equal {name} ({a})", b)
        self.steps = max(problem.length for problem in self.problems)
        self.padded = any(problem.varies or problem.length < self.steps for problem in self.problems)
        pieces = [Piece(tuple(range(len(first.class_names)))) for _ in self.problems]
        labels = labelling(first.class_names, first.target, pieces, scenario, same_classes=True)
        self._labelling = {"cpu": labels, self.device.type: labels.to(self.device)}
        self.class_names = labels.names
        self.info = StreamInfo(
            scenario=scenario,
            n_tasks=k,
            n_classes=labels.n_outputs,
            task_classes=labels.task_outputs,
            input_shape=(self.steps,) if first.vocabulary else (self.steps, first.features + self.padded),
            seed=seed,
            shared_labels=labels.shared,
            target=first.target,
            sequence=True,
            vocabulary=first.vocabulary,
            padded=self.padded,
            codes=None if first.codes is None else own_bits(first.codes, labels.n_outputs),
        )
        self._kept: dict[tuple[str, int], Data] = {}

    def draw(self, problem: Problem, k: int, key: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Draw n padded samples of a problem: x (n, T, D) or (n, T), and y in the outputs of task k.

        A problem shorter than T keeps its length where padding could not be told from steps that are blank.
        """
        x, y, lengths = problem.draw(key, n)
        told = self.padded or problem.vocabulary > 0
        missing = max(self.steps - x.shape[1], 0) if told else 0
        real = torch.ones(x.shape[:2], device=x.device)
        if lengths is not None:
            real = (torch.arange(x.shape[1], device=x.device) < lengths[:, None]).to(torch.float32)
        if self.padded and not problem.vocabulary:
            x = torch.cat([x * real[..., None], real[..., None]], -1)
        if missing:
            x = torch.cat([x, x.new_zeros(n, missing, *x.shape[2:])], 1)
            if problem.target == "steps":
                y = torch.cat([y, y.new_full((n, missing), IGNORE)], 1)
        return x, self._labelling[x.device.type](y, k)

    def _fixed(self, problem: Problem, k: int, purpose: str, n: int) -> Data:
        """Return n samples drawn on the host, so that they are the same on every device."""
        key = torch.tensor(derive(self.info.seed, f"sequence/{purpose}", k))
        x, y = self.draw(problem, k, key, n)
        if not problem.vocabulary and bool(((x == 0) | (x == 1)).all()):
            x = x.to(torch.int8)
        return Data(x.to(self.device), torch.arange(n, device=self.device), y.to(self.device), k, as_drawn)

    def _split(self, purpose: str, k: int, n: int) -> Data:
        if (purpose, k) not in self._kept:
            self._kept[purpose, k] = self._fixed(self.problems[k], k, purpose, n)
        return self._kept[purpose, k]

    def __getitem__(self, k: int) -> Task:
        """Return task k."""
        k = self._place(k)
        train = self._split("train", k, self.samples)
        if self.endless:
            train = _Endless(train, self, k)
        validation = self._split("validation", k, int(self.validation)) if self.validation is not None else None
        return Task(k, self.info.task_classes[k], train, validation)

    def test(self, k: int) -> Data:
        """Return the test split of task k."""
        return self._split("test", self._place(k), self.test_samples)

    @property
    def counts(self) -> str | None:
        """What `at_distance` counts; None where a task's problem has no distance."""
        found = list(dict.fromkeys(problem.counts for problem in self.problems))
        named = [name for name in found if name is not None]
        return " or ".join(named) if len(named) == len(found) else None

    def at_distance(self, k: int, distance: int, n: int) -> Data:
        """Return n further test samples of task k with this distance between cue and use, also beyond what is trained.

        They ask for nothing but what was to be remembered. Sequences are as long as the distance needs; at least T of
        `info.input_shape` where padding is marked (`info.padded`, tokens).

        Raises:
            ConfigError: the problem has no distance, or not this one.
        """
        return self._fixed(self.problems[self._place(k)].at(distance), k, f"distance/{distance}", n)

    def _place(self, k: int) -> int:
        if not -len(self) <= k < len(self):
            raise IndexError(f"task {k} of a stream of {len(self)}")
        return k % len(self)

    def fingerprint(self) -> str:
        """Return a hash of the problems, the seed, the sizes, and 64 samples of every split."""
        facts = (self.info, self.problems, self.samples, self.validation, self.test_samples, self.endless)
        digest = hashlib.sha256(repr(facts).encode())
        for k, problem in enumerate(self.problems):
            for purpose in ("train", "validation", "test"):
                some = self._fixed(problem, k, purpose, 64)
                assert isinstance(some.storage, Tensor)
                for tensor in (some.storage, some.labels):
                    digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()
