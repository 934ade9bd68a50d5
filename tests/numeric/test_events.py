"""Forgetting events of single samples, by hand and against the accuracy."""

import numpy as np

from cl.measures import events
from tests.numeric.test_measures import engine, values


def test_events_by_hand() -> None:
    history = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(events.events(history), [2, 1, 1, np.nan, 1])
    np.testing.assert_array_equal(events.first_event(history), [2, 3, 4, np.nan, 2])


def right_of(measure: events.ForgettingEvents, now: int, task: int) -> np.ndarray:
    return np.asarray(measure.state["right"][now][task].numpy().astype(bool))


def test_events_agree_with_the_accuracy() -> None:
    measure = events.ForgettingEvents(None)
    running = engine([measure])
    results = running.run()
    first = values(results, "first_forgotten")
    right = [r[0].numpy().astype(bool) for r in measure.state["right"]]
    lost_at_once = right[0] & ~right[1]
    assert lost_at_once.any()
    np.testing.assert_array_equal(first[0] == 2, lost_at_once)
    lost_later = right_of(measure, 1, 1) & ~right_of(measure, 2, 1)
    assert lost_later.any()
    np.testing.assert_array_equal(first[1] == 3, lost_later)
    index = values(results, "example_index")
    np.testing.assert_array_equal(index[1], running.stream[1].train.index)
    np.testing.assert_array_equal(values(results, "example_label")[1], running.stream[1].train.labels)
