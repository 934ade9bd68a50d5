"""Bits per character: metrics by hand, and what the page and the comparison make of them."""

from pathlib import Path

import numpy as np
import pytest

from cl import comparison, groups, runs
from cl.metrics import language
from cl.report import content, page
from cl.report.write import write_report
from cl.results import Results
from tests.fake_runs import write

# Untrained 5 bits; the first text is learned to 2 and rises to 3, then 3.5; the second from 2.5 to 2.25.
HAND = np.array([[[5.0, 5.0, 5.0], [2.0, 4.0, 4.5], [3.0, 2.5, 4.0], [3.5, 2.25, 3.0]]])


def test_metrics_by_hand() -> None:
    np.testing.assert_allclose(language.bits_per_character(HAND), [(3.5 + 2.25 + 3) / 3])
    np.testing.assert_allclose(language.bits_lost(HAND), [[1.5, -0.25, np.nan]])
    np.testing.assert_allclose(language.bits_learned(HAND), [(2 + 2.5 + 3) / 3])


def test_an_unfinished_run_tells_of_the_texts_it_learned() -> None:
    cut = HAND.copy()
    cut[:, 3] = np.nan
    np.testing.assert_allclose(language.bits_per_character(cut), [(3 + 2.5) / 2])
    np.testing.assert_allclose(language.bits_lost(cut), [[1.0, np.nan, np.nan]])


def test_bits_are_nats_over_ln_2_and_survive_the_disk(tmp_path: Path) -> None:
    found = Results(HAND, np.log(2) * HAND, [0], language=True)
    np.testing.assert_allclose(found.bits, HAND)
    found.save(tmp_path)
    np.testing.assert_allclose(Results.load(tmp_path).bits, HAND)
    assert Results(HAND, HAND, [0]).bits.size == 0


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed in range(2):
        write(tmp_path, "ewc", seed, language=True)
        write(tmp_path, "naive", seed, kept=0.2, language=True)
    return tmp_path


def test_page_tells_bits_and_orders_by_them(sweep: Path) -> None:
    found = groups.group([runs.load(f) for f in runs.find([sweep])])
    (block,) = content.blocks(found)
    items = {item.name: item for item in block.items}
    assert list(items)[:3] == ["bits_per_character", "bits_matrix", "bits_lost"]
    heat = items["bits_matrix"]
    assert heat.low > heat.high  # less is brighter
    best = min(found, key=lambda g: float(np.mean([r.bits[0, -1].mean() for r in g.results()])))
    expected = np.mean([r.bits[0, 1:] for r in best.results()], axis=0)
    np.testing.assert_allclose(heat.means[heat.labels.index(best.label)], expected)
    said = content.headline(block)
    assert said.startswith(f"After 3 texts {best.label} needs {expected[-1].mean():.3f}")
    level = {text: int(page._cell(heat, text, np.nan, False).split('"')[1].split()[0][1:]) for text in (0.2, 0.6)}
    assert level[0.2] > level[0.6]
    write_report([sweep], sweep)
    assert (sweep / "figures" / "bits_matrix.png").stat().st_size > 0


def test_comparison_shows_bits(sweep: Path) -> None:
    table = comparison.tidy(groups.group([runs.load(f) for f in runs.find([sweep])]))
    assert comparison.default_metrics(table) == [*comparison.OF_TEXT, "average_accuracy"]
    assert {comparison.direction(name) for name in comparison.OF_TEXT} == {"lower"}


def test_a_run_whose_bits_are_not_known_is_left_out_of_the_headline(sweep: Path) -> None:
    """As of one that goes on, of an earlier version."""
    write(sweep, "er", 0)
    (block,) = content.blocks(groups.group([runs.load(f) for f in runs.find([sweep])]))
    labels = [m.group.label for m in block.members]
    assert len(labels) == 3
    (er,) = [label for label in labels if label.startswith("er")]
    said = content.headline(block)
    assert "bits per character" in said
    assert er not in said.split()
