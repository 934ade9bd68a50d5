"""Time series from a csv file."""

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from cl.build import Conditions
from cl.errors import DataError, expect
from cl.streams.sources.base import Samples, Source, Table, missing

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
LARGEST = 1e30  # of which float32 still holds the square of a scaled difference


class Csv(Source):
    """Windows of a table of numbers, rows in the order of time: the next values are asked for.

    Groups are stretches of time of equal length, or the values of a column. Of every group the last part is held out
    for testing, the part before it for validation where that is asked for (windows that reach into it are dropped), and
    columns are scaled to mean 0 and variance 1 over the training rows.

    Args:
        path: csv file with a header, absolute or relative to the data folder.
        columns: columns to read and to predict; None for all columns of numbers that have a name.
        steps: rows T of a window.
        horizon: next rows asked for.
        stride: rows from one window to the next.
        segments: number of groups where `group` is None.
        group: column that says which group a row belongs to, or None.
        test_fraction: part of each group held out, in (0, 1).
        separator: what stands between two fields, one character.
        decimal: decimal mark of the numbers, ``.`` or ``,``.
    """

    only_with: ClassVar[Conditions] = {"segments": {"group": (None,)}}

    def __init__(
        self,
        path: str,
        columns: Sequence[str] | None = None,
        steps: int = 50,
        horizon: int = 1,
        stride: int = 1,
        segments: int = 5,
        group: str | None = None,
        test_fraction: float = 0.2,
        separator: str = ",",
        decimal: str = ".",
    ) -> None:
        for name, value in (("steps", steps), ("horizon", horizon), ("stride", stride), ("segments", segments)):
            expect(value > 0, f"stream.source.{name}", "> 0", value)
        expect(0 < test_fraction < 1, "stream.source.test_fraction", "in (0, 1)", test_fraction)
        distinct = columns is None or len(set(columns)) == len(columns)
        expect(distinct, "stream.source.columns", "a list of different names, or null", columns)
        expect(len(separator) == 1, "stream.source.separator", "one character", separator)
        expect(decimal in (".", ","), "stream.source.decimal", "'.' or ','", decimal)
        expect(
            decimal != separator, "stream.source.decimal", "another character than `stream.source.separator`", decimal
        )
        self.separator, self.decimal = separator, decimal
        self.path, self.columns = path, None if columns is None else [str(c) for c in columns]
        self.steps, self.horizon, self.stride = steps, horizon, stride
        self.segments, self.group, self.test_fraction = segments, group, test_fraction

    def load(self, root: Path, download: bool) -> Table:
        """Return the data.

        Raises:
            DataError: the file is missing or is not a table of numbers.
            ConfigError: it has not the columns asked for, or a group is too short for a window.
        """
        path = root / Path(self.path).expanduser()
        if not path.exists():
            raise missing(path, "give the path of a csv file in `stream.source.path`", self.path)
        frame, numbers = self._read(path)
        columns = [c for c in numbers if not c.startswith("Unnamed: ")] if self.columns is None else self.columns
        for column in columns:
            expect(column in numbers, "stream.source.columns", f"in {numbers}, the columns of numbers", column)
        expect(len(columns) > 0, "stream.source.columns", "at least one column of numbers", columns)
        values = frame[columns].to_numpy(np.float64)
        if len(bad := np.argwhere(~np.isfinite(values))) > 0:
            row, column = bad[0]
            found = "gaps" if np.isnan(values[row, column]) else f"{values[row, column]}"
            where = f"{columns[column]} of {path}"
            raise DataError(
                f"Expected a number in every row of {where}, got {found} in row {row + 1}; put a number there"
            )
        if not (np.abs(values) < LARGEST).all():
            raise DataError(f"Expected numbers below {LARGEST:g} in {path}, got {np.abs(values).max():g}")
        if self.group is None:
            bounds = np.linspace(0, len(values), self.segments + 1).astype(int)
            parts = {f"rows {a} to {b - 1}": values[a:b] for a, b in pairwise(bounds.tolist())}
        else:
            expect(self.group in frame.columns, "stream.source.group", f"in {list(frame.columns)}", self.group)
            if bool(frame[self.group].isna().any()):
                raise DataError(f"Expected a value in every row of {self.group} of {path}, got gaps; fill them")
            keys = frame[self.group].astype(str)
            parts = {name: values[(keys == name).to_numpy()] for name in dict.fromkeys(keys)}
        return self._windows(parts, columns)

    def _read(self, path: Path) -> tuple["pd.DataFrame", list[str]]:
        """Return the table of a file and the names of its columns of numbers, without the group's.

        Raises:
            DataError: it is not a table, or one value spoils a column of numbers.
        """
        import pandas as pd

        try:
            # Where rows have more fields than the header, pandas takes the first ones for names of rows, and all values
            # stand in another column. Read without a header, the same two lines are an error.
            pd.read_csv(path, sep=self.separator, header=None, nrows=2, dtype=str)
            frame = pd.read_csv(path, sep=self.separator, decimal=self.decimal)
        except MemoryError:
            raise
        except pd.errors.ParserError as error:
            raise DataError(
                f"Expected as many fields in every row of {path} as names in its header, got more "
                f"({' '.join(str(error).split())}); see "
                "`stream.source.separator` and `stream.source.decimal`, or take a comma off the ends of the rows"
            ) from error
        except Exception as error:  # of the reader, or of whatever unpacks a compressed file
            raise DataError(f"Expected a csv file with a header in {path}, got {error}") from error
        if pd.to_numeric(frame.columns.to_series(), errors="coerce").notna().all():
            log.warning(f"{path}: the first row, numbers alone, is taken for the names of the columns")
        numbers = [str(c) for c in frame.select_dtypes("number").columns if c != self.group]
        asked = [c for c in frame if c != self.group and (self.columns is None or c in self.columns)]
        for column in (c for c in asked if pd.api.types.is_string_dtype(frame[c])):
            bad = pd.to_numeric(frame[column], errors="coerce").isna() & frame[column].notna()
            if bad.mean() < 0.5:
                row = int(bad.to_numpy().argmax())
                found = f"{frame[column][row]!r} in row {row + 1}; or leave it out by `stream.source.columns`"
                raise DataError(f"Expected a number in every row of {column} of {path}, got {found}")
        return frame, numbers

    def _windows(self, parts: dict[str, NDArray[np.float64]], columns: list[str]) -> Table:
        cuts = {name: int(len(rows) * (1 - self.test_fraction)) for name, rows in parts.items()}
        window = self.steps + self.horizon
        for name, rows in parts.items():
            for split, count in (("train", cuts[name]), ("test", len(rows) - cuts[name])):
                rule = f"+ `stream.source.horizon` <= {count}, the {split} rows of {name}"
                expect(window <= count, "stream.source.steps", rule, window)
        training = np.concatenate([rows[: cuts[name]] for name, rows in parts.items()])
        mean, std = training.mean(0), training.std(0)
        std[training.max(0) == training.min(0)] = 1  # rounding gives some constants a deviation that is not quite 0
        splits = []
        for split in ("train", "test"):
            xs, ys, groups = [], [], []
            for g, (name, rows) in enumerate(parts.items()):
                own = (rows[: cuts[name]] if split == "train" else rows[cuts[name] :]) - mean
                own /= std
                starts = range(0, len(own) - window + 1, self.stride)
                xs += [own[s : s + self.steps] for s in starts]
                ys += [own[s + self.steps : s + self.steps + self.horizon].reshape(-1) for s in starts]
                groups += [g] * len(starts)
            x, y = (torch.from_numpy(np.stack(v).astype(np.float32)) for v in (xs, ys))
            splits.append(Samples(x, y, torch.tensor(groups), -(-window // self.stride) - 1))
        names = tuple(f"{column} +{h + 1}" for h in range(self.horizon) for column in columns)
        every = tuple(range(len(names)))
        return Table(
            splits[0],
            splits[1],
            names,
            groups=tuple(every for _ in parts),
            group_names=tuple(parts),
            peak=1.0,
            target="real",
            sequence=True,
        )
