"""Squared errors: metrics by hand, from a run, and what the page and the comparison make of them."""

from pathlib import Path

import numpy as np
import pytest

from cl import comparison, groups, live, runs
from cl.cli.compose import compose
from cl.metrics import regression
from cl.metrics.matrix import average_loss
from cl.objectives import NEAR
from cl.report import content
from cl.report.write import write_report
from cl.results import Results
from cl.run import run
from tests.fake_runs import write

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


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed in range(2):
        write(tmp_path, "ewc", seed, regression=True)
        write(tmp_path, "naive", seed, kept=0.2, regression=True)
    return tmp_path


def test_page_tells_errors_and_orders_by_them(sweep: Path) -> None:
    found = groups.group([runs.load(f) for f in runs.find([sweep])])
    (block,) = content.blocks(found)
    items = {item.name: item for item in block.items}
    assert list(items)[:3] == ["mean_squared_error", "error_matrix", "error_gained"]
    assert f"every error is under {NEAR}." in items["mean_squared_error"].reading
    best = min(found, key=lambda g: float(np.mean([r.errors[0, -1].mean() for r in g.results()])))
    expected = np.mean([r.errors[0, -1].mean() for r in best.results()])
    assert content.headline(block).startswith(f"After 3 tasks {best.label} has a mean squared error of {expected:.3g} ")
    write_report([sweep], sweep)
    assert (sweep / "figures" / "error_matrix.png").stat().st_size > 0


def test_comparison_shows_errors(sweep: Path) -> None:
    table = comparison.tidy(groups.group([runs.load(f) for f in runs.find([sweep])]))
    assert comparison.default_metrics(table) == [*comparison.OF_NUMBERS, "average_accuracy"]
    assert {comparison.direction(name) for name in comparison.OF_NUMBERS} == {"lower"}


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
