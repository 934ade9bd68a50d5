"""Tables over many runs, and the command that prints them."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from cl.cli.commands import compare
from cl.errors import ConfigError
from cl.metrics.matrix import average_accuracy
from tests.fake_runs import matrix, write


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed in range(3):
        write(tmp_path, "naive", seed, kept=0.3)
        write(tmp_path, "ewc", seed, kept=0.9, fields={"strength": 10})
    return tmp_path


def table(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, str]]:
    assert compare.main(list(argv)) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_means_and_intervals(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, str(sweep), "--csv", "--by", "strategy,strategy.strength", "--metric", "average_accuracy")
    values = np.array([average_accuracy(matrix(3, 0.9, seed))[0] for seed in range(3)])
    (row,) = [r for r in rows if r["strategy"] == "ewc"]
    assert (row["strategy.strength"], row["runs"]) == ("10", "3")
    np.testing.assert_allclose(float(row["mean"]), values.mean())
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(float(row["high"]) - float(row["mean"]), half)


def test_one_row_a_run(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, str(sweep), "--csv", "--runs", "--metric", "forgetting,cost.seconds_train")
    assert len(rows) == 2 * 3 * 2
    assert {r["value"] for r in rows if r["strategy"] == "naive" and r["metric"] == "cost.seconds_train"} == {"7.0"}


def test_forms(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(sweep), "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| label | runs | average_accuracy |")
    assert lines[1].count("---") == lines[0].count("|") - 1
    compare.main([str(sweep), "--latex"])
    latex = capsys.readouterr().out
    assert r"average\_accuracy" in latex
    assert latex.count(r"\\") == 3
    compare.main([str(sweep)])
    shown = capsys.readouterr().out
    assert "ewc" in shown
    assert "Paired differences of average accuracy" in shown


def test_costs_are_shown_when_asked_for(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(sweep)])
    assert "Costs of a run" not in capsys.readouterr().out
    compare.main([str(sweep), "--costs"])
    shown = capsys.readouterr().out
    assert "Costs of a run" in shown
    assert "38,400" in next(line for line in shown.splitlines() if "samples" in line)  # 12800 in each of 3 tasks
    rows = table(capsys, str(sweep), "--costs", "--csv")
    assert {r["mean"] for r in rows if r["label"] == "ewc" and r["metric"] == "cost.bytes_memory"} == {"3000.0"}


def test_unknown_names_are_errors(sweep: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected `metric` in .*'forgetting'.* got 'forgeting'"):
        compare.main([str(sweep), "--metric", "forgeting"])
    with pytest.raises(ConfigError, match=r"Expected `by` in .* got 'strategy.strenght'"):
        compare.main([str(sweep), "--by", "strategy.strenght"])


def test_an_unfinished_run_is_tested_against_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        cut = matrix(3, 1.0, seed)
        cut[:, 2:] = np.nan
        write(tmp_path, "ewc", seed, accuracy=cut, status="interrupted")
        write(tmp_path, "er", seed, accuracy=matrix(3, 0.9, seed))
        write(tmp_path, "naive", seed, accuracy=matrix(3, 0.1, seed))
    compare.main([str(tmp_path)])
    means, _, tests = capsys.readouterr().out.partition("Paired differences")
    assert "ewc" in means
    assert "er - naive" in tests
    assert not re.search(r"ewc.* - |- ewc", tests)


def test_strategies_of_which_every_run_failed_are_named(tmp_path, capsys):
    for seed in (0, 1):
        write(tmp_path, "naive", seed)
        failed = write(tmp_path, "ewc", seed, status="failed", message="Expected a finite loss, got nan")
        for file in failed.glob("results.*"):
            file.unlink()
    assert compare.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 run(s) left out" in out
    assert "Without any result: ewc" in out
