"""Windows of a series: what is held out shares no row with what is trained on, and comes last in time."""

import numpy as np
import pandas as pd
import pytest

from cl.errors import ConfigError
from cl.streams import TaskStream
from cl.streams.constructions import Sequence
from cl.streams.sequences.table import Csv


@pytest.fixture
def series(tmp_path):
    """The number of the row itself, so that a window says which rows it holds."""
    pd.DataFrame({"row": np.arange(600.0)}).to_csv(tmp_path / "s.csv", index=False)
    return tmp_path


def rows_of(table, data, steps):
    """The rows of the file that the windows of some data hold, inputs and answers."""
    train = table.train
    number = np.round(train.x[data.index][..., 0].numpy() * SPREAD + MEAN).astype(int)
    answer = np.round(train.y[data.index].numpy() * SPREAD + MEAN).astype(int)
    return np.concatenate([number, answer], axis=1)


TRAINING = np.concatenate([np.arange(0, 240), np.arange(300, 540)])  # four fifths of each of two segments
MEAN, SPREAD = TRAINING.mean(), TRAINING.std()


@pytest.mark.parametrize(("steps", "horizon", "stride"), [(10, 1, 1), (10, 3, 4), (5, 1, 6), (8, 2, 10)])
def test_no_row_is_shared(series, steps, horizon, stride):
    source = Csv("s.csv", steps=steps, horizon=horizon, stride=stride, segments=2)
    stream = TaskStream(source, Sequence(), scenario="domain", validation=0.2, root=series)
    for k in range(2):
        train = rows_of(stream.table, stream[k].train, steps)
        held = rows_of(stream.table, stream[k].validation, steps)
        assert train.shape[1] == steps + horizon
        assert not set(train.ravel()) & set(held.ravel())
        assert train.max() < held.min()
        every = len(range(0, 240 - steps - horizon + 1, stride))
        assert len(held) == round(0.2 * every)
        dropped = every - len(held) - len(train)
        assert dropped == -(-(steps + horizon) // stride) - 1
        if dropped:  # and no more than needed
            assert held.min() - train.max() <= stride


def test_windows_that_leave_nothing_to_train_on(series):
    source = Csv("s.csv", steps=50, segments=2)
    with pytest.raises(ConfigError, match=r"stream\.validation.*50 of which are dropped, to train on, got 0\.8"):
        TaskStream(source, Sequence(), scenario="domain", validation=0.8, root=series)[0]
