"""The Stream contract: an ordered sequence of tasks, a pure function of (specification, seed)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from cl.errors import AccessError
from cl.streams.data import Data, TrainingData, Transform
from cl.streams.transforms import Pipeline

SCENARIOS = ("task", "domain", "class", "online")


@dataclass(frozen=True)
class StreamInfo:
    """Facts of a stream that learners and strategies may know.

    Attributes:
        scenario: ``task``, ``domain``, ``class`` or ``online``.
        n_tasks: number of tasks K.
        n_classes: number of outputs C that the head needs.
        task_classes: for each task, the outputs that its labels use.
        input_shape: shape of one transformed sample.
        seed: the run's root seed, for a strategy's own host draws.
        shared_labels: True if all tasks use the same outputs (domain scenario).
        target: ``class``, ``steps`` or ``real``; see `cl.objectives`.
        sequence: True if a sample is a sequence: (T, D) float32 features, or (T,) int64 tokens where `vocabulary` > 0.
        vocabulary: number of different tokens, the padding token 0 included; 0 if inputs are float.
        padded: True if sequences differ in length. They are padded on the right: tokens by 0; float sequences by rows
            of zeros, and then the last of the D features is 1 at every real step and 0 at every padded one. Padded
            steps have no target (-100), and learners that read the whole sequence must leave them out.
        codes: where answers are given in bits, the bits of each output (None: never asked for); else None.
        augment: where the stream augments images and its tasks do not change them, what makes inputs of stored samples
            and augments inputs again; see `cl.memory.augmented`.
    """

    scenario: str
    n_tasks: int
    n_classes: int
    task_classes: tuple[tuple[int, ...], ...]
    input_shape: tuple[int, ...]
    seed: int
    shared_labels: bool
    target: str = "class"
    sequence: bool = False
    vocabulary: int = 0
    padded: bool = False
    codes: tuple[tuple[int, ...] | None, ...] | None = None
    augment: Pipeline | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Task:
    """What a strategy sees of a task: no test data.

    Attributes:
        index: position k in the stream, from 0.
        classes: outputs its labels use.
        train: training split.
        validation: validation split, or None.
    """

    index: int
    classes: tuple[int, ...]
    train: Data
    validation: Data | None


class Stream(ABC):
    """A sequence of tasks. Random access; no counters, no global randomness.

    Attributes:
        info: see `StreamInfo`.
        class_names: for each task and output, what the label means (for reports).
        language: True if every step asks for the next character of a text, so that the loss is told in bits as well.
    """

    info: StreamInfo
    class_names: tuple[tuple[str, ...], ...]
    language: bool = False

    def __len__(self) -> int:
        return self.info.n_tasks

    @abstractmethod
    def __getitem__(self, k: int) -> Task:
        """Return task k (negative counts from the end); raises IndexError outside."""

    def __iter__(self) -> Iterator[Task]:
        return (self[k] for k in range(len(self)))

    @abstractmethod
    def test(self, k: int) -> Data:
        """Return the test split of task k; for the evaluator alone."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of every label, index and transform of every split: equal streams, equal fingerprints."""


class TrainingView:
    """A stream as a strategy may see it during task k: no test data, and only the tasks it declared in `sees`.

    Args:
        stream: the stream.
        k: the present task.
        sees: ``current``, ``past`` or ``all``.
        who: name for error messages.
    """

    def __init__(self, stream: Stream, k: int, sees: str, who: str) -> None:
        self._stream, self._k, self._sees, self._who = stream, k, sees, who

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, k: int) -> Task:
        """Return task k.

        Raises:
            AccessError: the strategy did not declare that it sees this task.
        """
        low, high = {"current": (self._k, self._k), "past": (0, self._k), "all": (0, len(self) - 1)}[self._sees]
        if not low <= k <= high:
            raise AccessError(
                f"Expected {self._who} to touch tasks {low} to {high} only during task {self._k} "
                f"(`sees` = {self._sees!r}), got task {k}"
            )
        return self._stream[k]

    def later(self, k: int) -> Transform | None:
        """Return how samples that were kept of task k become inputs; see `Data.later`.

        Raises:
            AccessError: the task has not come yet.
        """
        if k > self._k:
            raise AccessError(f"Expected {self._who} to look at tasks up to {self._k} during that task, got task {k}")
        return self._stream[k].train.later

    def current(self, k: int) -> TrainingData:
        """Return the training split of task k as it stands."""
        return TrainingData([self[k].train])
