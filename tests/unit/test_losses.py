"""What the page and the comparison make of a loss that says more than an accuracy: of texts, and of numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from cl import comparison, groups, live, runs
from cl.objectives import NEAR
from cl.report import content, page
from cl.report.losses import KINDS, Kind
from cl.report.write import write_report
from cl.results import Results
from tests.fake_runs import write
from tests.unit.test_watch import events

FLAGS = {"bits": "language", "errors": "regression"}
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.field)


def sweep(root: Path, kind: Kind) -> list[groups.Group]:
    for seed in range(2):
        write(root, "ewc", seed, **{FLAGS[kind.field]: True})
        write(root, "naive", seed, kept=0.2, **{FLAGS[kind.field]: True})
    return read(root)


def read(root: Path) -> list[groups.Group]:
    return groups.group([runs.load(f) for f in runs.find([root])])


@each_kind
def test_page_tells_the_loss_and_orders_by_it(tmp_path: Path, kind: Kind) -> None:
    found = sweep(tmp_path, kind)
    (block,) = content.blocks(found)
    items = {item.name: item for item in block.items}
    assert list(items)[:3] == list(kind.names)
    heat = items[kind.names[1]]
    assert heat.low > heat.high  # less is brighter
    best = min(found, key=lambda g: float(np.mean([getattr(r, kind.field)[0, -1].mean() for r in g.results()])))
    expected = np.mean([getattr(r, kind.field)[0, 1:] for r in best.results()], axis=0)
    np.testing.assert_allclose(heat.means[heat.labels.index(best.label)], expected)
    said = content.headline(block)
    start = f"After 3 {kind.task}s {best.label} {kind.said.partition('{}')[0]}"
    assert said.startswith(f"{start}{expected[-1].mean():{kind.digits}} ")
    assert "(less is better)" in said
    level = {loss: int(page._cell(heat, loss, np.nan, False).split('"')[1].split()[0][1:]) for loss in (0.2, 0.6)}
    assert level[0.2] > level[0.6]
    write_report([tmp_path], tmp_path)
    assert (tmp_path / "figures" / f"{kind.names[1]}.png").stat().st_size > 0


def test_what_accuracy_means_of_numbers_is_told(tmp_path: Path) -> None:
    (block,) = content.blocks(sweep(tmp_path, KINDS[1]))
    assert f"every error is under {NEAR}." in block.items[0].reading


def test_small_errors_keep_a_digit(tmp_path: Path) -> None:
    (block,) = content.blocks(sweep(tmp_path, KINDS[1]))
    heat = block.items[1]
    assert [heat.told(v) for v in (0.0, 0.0004, 0.25, 12.5)] == [".00", "4e-4", ".25", "12.50"]


@pytest.mark.parametrize(("kind", "shown"), [(0, comparison.OF_TEXT), (1, comparison.OF_NUMBERS)])
def test_comparison_shows_the_loss(tmp_path: Path, kind: int, shown: tuple[str, ...]) -> None:
    table = comparison.tidy(sweep(tmp_path, KINDS[kind]))
    assert comparison.default_metrics(table) == [*shown, "average_accuracy"]
    assert {comparison.direction(name) for name in shown} == {"lower"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("flag", [*FLAGS.values(), None])
def test_a_run_whose_first_task_goes_on_has_a_page(tmp_path: Path, flag: str | None) -> None:
    """It has the row before training alone, of which no mean over learned tasks can be told."""
    folder = write(tmp_path, "er", 0)
    told = events(Results.load(folder))[:2]
    for name in ("results.npz", "results.json"):
        (folder / name).unlink()
    (folder / "status.json").write_text(json.dumps({"status": "running"}))
    lines = [json.dumps({**told[0], **({flag: True} if flag else {})}), json.dumps(told[1])]
    (folder / "progress.jsonl").write_text("\n".join(lines) + "\n")
    (block,) = content.blocks(read(tmp_path))
    assert content.headline(block) == "No task is learned yet."
    assert live.read(folder).done == 0
    write_report([tmp_path], tmp_path)


def test_a_run_whose_bits_are_not_known_is_left_out_of_the_headline(tmp_path: Path) -> None:
    """As of one that goes on, of an earlier version."""
    sweep(tmp_path, KINDS[0])
    write(tmp_path, "er", 0)
    (block,) = content.blocks(read(tmp_path))
    labels = [m.group.label for m in block.members]
    assert len(labels) == 3
    (er,) = [label for label in labels if label.startswith("er")]
    said = content.headline(block)
    assert "bits per character" in said
    assert er not in said.split()
