"""What a run measured: the accuracy matrix, losses, curves, costs; written as npz and json."""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl.errors import DataError
from cl.files import atomic_path

Array = NDArray[np.float64]
ACCURACY, ERROR, BITS = "accuracy", "minus squared error", "minus bits per character"  # of `Results.kind`


@dataclass
class Results:
    """Results of S replicas on K tasks.

    Attributes:
        accuracy: (S, K+1, K); row 0 before any training, row k after task k (1-based), column j = task j. NaN rows are
            tasks not reached.
        loss: (S, K+1, K), mean test loss in nats, or squared error of regression.
        language: True if the loss is that of predicting a text character by character, see `bits`.
        regression: True if numbers are predicted, see `errors`.
        seeds: the S root seeds.
        curve_step: (N,) steps since the beginning of the run at which the within-task curve was measured.
        curve_task: (N,) task in training at that step.
        curve_accuracy: (S, N, K) accuracy on a fixed test subset, NaN where not measured.
        task_steps: (K,) steps trained on each task.
        train_loss: (S, total steps) loss of every training batch.
        online_accuracy: (S, total steps) accuracy on every training batch before it was learned, or (S, 0).
        costs: name -> number: ``seconds_PHASE``, ``samples`` and ``steps`` trained on, ``passes_forward`` and
            ``passes_backward``, ``parameters_trained``, ``bytes_KIND`` stored beyond the learner, peak memory in bytes;
            see `cl.costs`.
        measures: name -> what a measure that needs the network saw: its array ``values`` and what the axes mean, see
            `cl.measures.base.Quantity`; saved as the array ``measures/NAME`` and the facts apart.
    """

    accuracy: Array
    loss: Array
    seeds: list[int]
    curve_step: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    curve_task: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    curve_accuracy: Array = field(default_factory=lambda: np.zeros((1, 0, 0)))
    task_steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    train_loss: NDArray[np.float32] = field(default_factory=lambda: np.zeros((1, 0), np.float32))
    online_accuracy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((1, 0), np.float32))
    costs: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)
    language: bool = False
    regression: bool = False

    @property
    def bits(self) -> Array:
        """Test loss in bits per character, (S, K+1, K); (S, 0, 0) where no text is predicted."""
        return np.asarray(self.loss / np.log(2)) if self.language else np.zeros((len(self.loss), 0, 0))

    @property
    def errors(self) -> Array:
        """Mean squared error on the test data, (S, K+1, K); (S, 0, 0) where no numbers are predicted."""
        return self.loss if self.regression else np.zeros((len(self.loss), 0, 0))

    @property
    def kind(self) -> str:
        """What the results are told in, and what a search maximises: see `score`."""
        return BITS if self.language else ERROR if self.regression else ACCURACY

    @property
    def score(self) -> Array:
        """What a search maximises, (S,): the mean over tasks at the end of accuracy, or of minus the error or bits."""
        return np.asarray({BITS: -self.bits, ERROR: -self.errors}.get(self.kind, self.accuracy)[:, -1].mean(1))

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return int(self.accuracy.shape[2])

    def save(self, folder: Path | str) -> None:
        """Write ``results.npz`` (arrays) and ``results.json`` (the rest) atomically into `folder`."""
        folder = Path(folder)
        arrays = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        arrays |= {f"measures/{name}": np.asarray(m["values"]) for name, m in self.measures.items()}
        with atomic_path(folder / "results.npz") as path, path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        rest = {k: v for k, v in vars(self).items() if not isinstance(v, np.ndarray)}
        rest["measures"] = {n: {k: v for k, v in m.items() if k != "values"} for n, m in self.measures.items()}
        rest["archive"] = _digest((folder / "results.npz").read_bytes())  # a zip checks not its directory
        with atomic_path(folder / "results.json") as path:
            path.write_text(json.dumps({**rest, "checksum": _checksum(rest)}, indent=1, allow_nan=True))

    @classmethod
    def load(cls, folder: Path | str) -> "Results":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no results.
            DataError: a file is truncated or changed.
        """
        folder = Path(folder)
        try:
            content = (folder / "results.npz").read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found: dict[str, Any] = {k: arrays[k] for k in arrays.files}
            rest = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            if rest.pop("checksum", None) not in (None, _checksum(rest)):  # None: written by an earlier version
                raise ValueError("results.json does not match its checksum")
            if rest.pop("archive", None) not in (None, _digest(content)):
                raise ValueError("results.npz does not match its checksum")
            for name, facts in rest["measures"].items():
                facts["values"] = found.pop(f"measures/{name}")
            return cls(**found, **rest)
        except FileNotFoundError:
            raise
        except Exception as error:  # a changed archive can raise nearly anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"Expected whole results in {folder}, got truncated or changed files: {reason}") from error


def _checksum(rest: dict[str, Any]) -> str:
    """Return a checksum of what the json file holds."""
    plain = json.loads(json.dumps(rest))  # as it will be read: keys are text
    return _digest(json.dumps(plain, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
