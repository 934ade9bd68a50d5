"""Reference runs on request: made beside the runs that lack them, once, and used by the measures that need them."""

import csv
import io
from pathlib import Path

import pytest
import yaml

from cl.cli.commands import compare
from cl.cli.compose import compose
from cl.cli.references import missing
from cl.groups import group
from cl.run import run
from cl.runs import find, load

TINY = ["stream=split_digits", "stream.samples_per_task=40", "learner.hidden=[8]", "training.epochs=1", "tracker=files"]
TINY += ["device=cpu", "threads=1", "measures=none"]


def groups(folder: Path):
    return group([load(f) for f in find([folder])])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for words in (
        ["strategy=l2", "seed=0"],
        ["strategy=l2", "strategy.strength=9", "seed=0"],
        ["strategy=l2", "seed=1"],
        ["strategy=naive", "seed=1"],
        ["strategy=naive", "seed=0", "optimizer.lr=0.5"],  # unlike the others
    ):
        run(compose([*TINY, f"output={root}", "group=mine", *words]))
    return root / "mine"


def test_missing_references_are_made_beside_the_runs_and_only_once(sweep: Path, capsys) -> None:
    before = set(find([sweep]))
    wanted = [(c["choices"]["strategy"], c["seed"]) for c, _ in missing(groups(sweep))]
    assert wanted == [("joint", 0), ("joint", 1), ("naive", 0)]  # two settings of a strategy share theirs

    def rows() -> list[dict[str, str]]:
        metrics = "intransigence,share_of_gap_closed"
        assert compare.main([str(sweep), "--references", "--metric", metrics, "--csv", "--runs"]) == 0
        return list(csv.DictReader(line for line in io.StringIO(capsys.readouterr().out) if "reference" not in line))

    found = rows()
    made = set(find([sweep])) - before
    assert len(made) == 3
    assert {p.parent for p in made} == {sweep.resolve()}
    for path in made:
        config = yaml.safe_load((path / "config.yaml").read_text())
        assert config["learner"]["hidden"] == [8]
        assert config["stream"]["samples_per_task"] == 40
        assert config["optimizer"]["lr"] != 0.5
    values = {(r["seed"], r["metric"]): r["value"] for r in found if r["strategy"] == "l2"}
    assert all(values[seed, "intransigence"] not in ("", "nan") for seed in "01")
    assert missing(groups(sweep)) == []
    rows()
    assert set(find([sweep])) - before == made


def test_a_reference_that_cannot_be_made_is_said(tmp_path: Path, capsys) -> None:
    run(compose([*TINY, f"output={tmp_path}", "strategy=er", "stream.scenario=online", "seed=0"]))
    compare.main([str(tmp_path), "--references"])
    printed = capsys.readouterr().out
    assert "no reference" in printed
    assert "stream.scenario" in printed
