"""Squared errors: metrics by hand, from a run, and what the page and the comparison make of them."""

from pathlib import Path

import numpy as np

from cl import live
from cl.cli.compose import compose
from cl.metrics import regression
from cl.metrics.matrix import average_loss
from cl.results import Results
from cl.run import run

# Untrained 1; the first task is learned to .2 and rises to .5, then .6; the second from .3 to .25.
HAND = np.array([[[1.0, 1.0, 1.0], [0.2, 0.9, 0.8], [0.5, 0.3, 0.9], [0.6, 0.25, 0.1]]])


def test_metrics_by_hand() -> None:
    np.testing.assert_allclose(regression.mean_squared_error(HAND), [(0.6 + 0.25 + 0.1) / 3])
    np.testing.assert_allclose(regression.error_gained(HAND), [[0.4, -0.05, np.nan]])
    np.testing.assert_allclose(regression.error_learned(HAND), [(0.2 + 0.3 + 0.1) / 3])
    cut = HAND.copy()
    cut[:, 3] = np.nan
    np.testing.assert_allclose(average_loss(cut), [(0.5 + 0.3) / 2])
    np.testing.assert_allclose(regression.error_gained(cut), [[0.3, np.nan, np.nan]])


def test_errors_are_the_loss_of_regression_and_survive_the_disk(tmp_path: Path) -> None:
    Results(HAND, HAND, [0], regression=True).save(tmp_path)
    np.testing.assert_array_equal(Results.load(str(tmp_path)).errors, HAND)
    assert Results(HAND, HAND, [0]).errors.size == 0


def test_a_run_that_predicts_numbers_says_so(tmp_path: Path) -> None:
    words = ["stream=adding", "stream.problems.0.steps=5", "stream.samples=64", "stream.test_samples=20"]
    words += ["learner=rnn", "learner.hidden=4", "training.epochs=1", "measures=none", f"output={tmp_path}"]
    (outcome,) = run(compose(words))
    found = Results.load(outcome.path)
    assert found.regression
    np.testing.assert_array_equal(found.errors, found.loss)
    going_on = live.read(outcome.path).results(0)
    assert going_on is not None
    np.testing.assert_allclose(going_on.errors, found.errors)
