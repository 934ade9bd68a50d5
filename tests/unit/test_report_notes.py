"""What the page ranks strategies by, and what it tells of runs that failed or are damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from cl import comparison, groups, runs
from cl.report import content, failures
from cl.report.figure import Figure
from cl.report.lead import Lead, lead
from cl.report.svg import draw
from cl.results import Results
from tests.fake_runs import write
from tests.unit.test_watch import events

FLAGS = ("language", "regression")


def read(root: Path) -> list[groups.Group]:
    return groups.group([runs.load(f) for f in runs.find([root])])


def notes(root: Path) -> list[tuple[str, str]]:
    found = [runs.load(f) for f in runs.find([root])]
    return failures.notes(groups.group(found), found)


def at_odds(root: Path, flag: str) -> None:
    """Write runs whose loss is the better, the worse their accuracy is."""
    for seed in range(4):
        for strategy, kept in (("naive", 0.2), ("ewc", 0.5), ("er", 0.9)):
            folder = write(root, strategy, seed, kept=kept, **{flag: True})
            results = Results.load(folder)
            results.loss = results.accuracy.copy()
            results.save(folder)


@pytest.mark.parametrize("flag", FLAGS)
def test_streams_with_a_loss_are_ranked_by_it(tmp_path: Path, flag: str) -> None:
    at_odds(tmp_path, flag)
    found = read(tmp_path)
    (block,) = content.blocks(found)
    assert [m.label for m in block.members] == ["naive", "ewc", "er"]
    items = {item.name: item for item in block.items}
    differences = items["paired_differences"]
    assert block.lead.words in differences.y_label
    table = comparison.tidy(found)
    tested = comparison.pairs(table, comparison.default_metrics(table)[0])
    (er,) = (s for s in differences.panels[0].series if s.label == "er")
    (pair,) = (p for p in tested.to_dict("records") if {p["a"], p["b"]} == {"er", "naive"})
    sign = 1 if pair["a"] == "er" else -1
    assert er.y[0] == pytest.approx(sign * pair["difference"])
    assert er.y[0] > 0  # more of a loss
    ranks = items["average_ranks"]
    assert ranks.labels[int(np.argmin(ranks.ranks))] == "naive"
    assert block.lead.words in ranks.reading
    cost = items["pareto_seconds_train"]  # `er` takes the least time in these runs, `naive` the most
    assert (cost.title, cost.y_label) == (f"{block.lead.capital} against training time", block.lead.words)
    assert "Down and to the left" in cost.reading
    assert "any other: naive, ewc, er." in cost.reading


def test_accuracy_leads_elsewhere(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, "naive", seed, kept=0.2)
        write(tmp_path, "er", seed)
    (block,) = content.blocks(read(tmp_path))
    assert block.lead == lead(block.members) == Lead()
    items = {item.name: item for item in block.items}
    assert "any other: er." in items["pareto_seconds_train"].reading  # quicker, and better
    assert items["pareto_seconds_train"].panels[0].series[0].high.max() <= 1


def test_a_damaged_run_is_not_called_whole(tmp_path: Path) -> None:
    folder = write(tmp_path, "er", 0)
    (folder / "progress.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events(Results.load(folder))))
    assert notes(tmp_path) == []
    (folder / "results.npz").write_bytes(b"damaged")
    ((what, why),) = notes(tmp_path)
    assert what.endswith(": damaged")
    assert "results cannot be read" in why
    found = [runs.load(f) for f in runs.find([tmp_path])]
    assert found[0].results is not None
    assert "0 of 1 runs are complete." in failures.section(groups.group(found), found)


@pytest.mark.parametrize(
    ("message", "reached", "expected"),
    [
        ("Expected `lr` > 0, got -1", 3, "Expected `lr` > 0, got -1. It had finished 3 tasks. ("),
        ("Stopped.", 1, "Stopped. It had finished 1 task. ("),
        ("", 2, "It had finished 2 tasks. ("),
        ("boom", None, "boom. ("),
    ],
)
def test_reasons_are_sentences(tmp_path: Path, message: str, reached: int | None, expected: str) -> None:
    folder = write(tmp_path, "er", 0, status="failed", message=message)
    if reached is None:
        (folder / "results.npz").unlink()
    else:
        results = Results.load(folder)
        results.accuracy[:, reached + 1 :] = np.nan
        results.save(folder)
    ((_, why),) = notes(tmp_path)
    assert why.startswith(expected)


def layers(names: list[str], value: float) -> dict[str, object]:
    """Return a quantity of one value for each layer after each of three tasks."""
    facts = {
        "axes": ["after task", "layer"],
        "names": {"layer": names},
        "meaning": "",
        "better": "",
        "unit": "fraction",
    }
    return {"weight_drift_total": {"values": np.full((4, len(names)), value), "source": "", "summary": True, **facts}}


def test_strategies_of_different_layers_are_all_drawn(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, measures=layers(["first", "head"], 0.2))
    write(tmp_path, "progressive", 0, measures=layers(["first", "side", "head"], 0.4))
    (block,) = content.blocks(read(tmp_path))
    (figure,) = (item for item in block.items if item.name == "layers_weight_drift_total")
    assert set(figure.x_names) == {"first", "side", "head"}
    found = {s.label: s for s in figure.panels[0].series}
    for label, names, value in (("naive", ["first", "head"], 0.2), ("progressive", ["first", "side", "head"], 0.4)):
        assert [figure.x_names[round(x)] for x in found[label].x] == names
        np.testing.assert_allclose(found[label].y, value)


def test_long_names_below_an_axis_keep_their_ends(tmp_path: Path) -> None:
    names = ["blocks.0.attention.weight", "blocks.0.attention.bias"]
    write(tmp_path, "naive", 0, measures=layers(names, 0.2))
    (block,) = content.blocks(read(tmp_path))
    (figure,) = (item for item in block.items if item.name == "layers_weight_drift_total")
    page = draw(figure, "f")
    for name, short in zip(names, ("blocks.0.…n.weight", "blocks.0.…ion.bias"), strict=True):
        assert f'title="{name}">{short}</span>' in page


@pytest.mark.parametrize(("seeds", "told"), [(1, set()), (2, {"Bars", "Bands", "Bars and bands"})])
def test_what_bars_and_bands_are_is_told_where_there_are_any(tmp_path: Path, seeds: int, told: set[str]) -> None:
    for seed in range(seeds):
        for strategy in ("naive", "er"):
            write(tmp_path, strategy, seed, k=6, points=3)
    (block,) = content.blocks(read(tmp_path))
    captions = {item.name: item.caption for item in block.items if isinstance(item, Figure)}
    found = {name: c.removesuffix(" are 95 % intervals over seeds.") for name, c in captions.items() if "95 %" in c}
    assert {c.rsplit(". ", 1)[-1] for c in found.values()} <= told
    if seeds > 1:
        assert found["average_accuracy"].endswith("Bands")
        assert found["accuracy_drop"].endswith("Bars")
