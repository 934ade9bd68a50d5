"""Discovery and computation of metrics from results."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cl.errors import ConfigError
from cl.metrics import base
from cl.results import Results


def results(curve: bool) -> Results:
    accuracy = np.linspace(0, 1, 12).reshape(2, 3, 2)
    if not curve:
        return Results(accuracy, accuracy, seeds=[0, 1])
    return Results(
        accuracy,
        accuracy,
        seeds=[0, 1],
        curve_step=np.array([5, 10]),
        curve_task=np.array([0, 1]),
        curve_accuracy=np.full((2, 2, 2), 0.5),
        task_steps=np.array([5, 5]),
        online_accuracy=np.linspace(0, 1, 10 if curve else 0, dtype=np.float32)[None],
    )


def test_measure_computes_what_has_data() -> None:
    plain = base.measure(results(curve=False))
    assert "forgetting" in plain
    assert not {"stability_gap", "intransigence", "share_of_gap_closed"} & set(plain)
    with_curve = base.measure(results(curve=True))
    assert {"stability_gap", "min_accuracy", "recovery_time", "learning_curve_area"} <= set(with_curve)
    accuracy = results(curve=False).accuracy
    assert not {"bits_per_character", "mean_squared_error"} & set(with_curve)
    everything = replace(results(curve=True), language=True, regression=True)
    full = base.measure(everything, {"joint": accuracy, "naive": accuracy})
    assert set(full) == set(base.discover())
    np.testing.assert_allclose(full["bits_per_character"], full["average_accuracy"] / np.log(2))
    np.testing.assert_allclose(full["mean_squared_error"], full["average_loss"])


def test_unknown_metric_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Expected `metric` in .*forgetting.*, got 'forgeting'"):
        base.find(["forgeting"])


def test_metrics_are_read_without_torch() -> None:
    code = (
        "import sys; from cl.metrics.base import discover; discover(); "
        "heavy = {'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
