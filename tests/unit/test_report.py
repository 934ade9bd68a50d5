"""What the page says, read as a parser reads it; how it looks is tested in a browser."""

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cl import groups, runs
from cl.cli.commands import report
from cl.cli.compose import compose
from cl.report import content, timeline
from cl.report.defaults import changed
from cl.report.figure import Figure, Panel, Series, ticks
from cl.report.svg import draw
from cl.results import Results
from tests.fake_runs import matrix, write

VOID = {"meta", "link", "input", "path", "rect", "polyline", "polygon", "br", "img"}


class Checker(HTMLParser):
    """Collects text and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_places_of_a_logarithmic_figure_hold_the_smallest_values():
    y = 10.0 ** -np.arange(8.0)
    series = Series("a", 0, np.arange(8.0), y, y, y)
    page = draw(Figure("f", "f", "", "x", "y", (Panel("", (series,)),), y_range=(0.0, 1.1), log="y"), "f")
    found = re.search(r'class="line" points="([^"]+)"', page).group(1)
    places = np.array([[float(v) for v in pair.split(",")] for pair in found.split()])
    np.testing.assert_allclose((1000 - places[:, 1]) / 1000 * 1.1, y, rtol=0.01)


def test_strategies_with_one_and_the_same_result_are_drawn_beside_each_other(tmp_path: Path) -> None:
    for strategy in ("ewc", "mas", "naive"):  # the first two cost the same, too
        write(tmp_path, strategy, 0, accuracy=matrix(3, 0.8, 0))
    report.main([str(tmp_path), "--no-figures"])
    page = read(tmp_path / "report.html")
    places = [a["style"] for tag, a in page.tags if tag == "span" and (a.get("class") or "").startswith("name ")]
    assert len(places) == 6  # against time and against memory
    assert len(set(places[:3])) == len(set(places[3:])) == 3  # pushed apart, not one over the other


def test_page_stands_alone_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script>"
    for seed in range(2):
        write(tmp_path, "ewc", seed, points=5, fields={"note": nasty})
        write(tmp_path, "naive", seed, points=5, kept=0.2)
    write(tmp_path, "naive", 2, status="failed", message=f"Expected a finite loss, got nan {nasty}")
    report.main([str(tmp_path), "--no-figures", "--title", nasty])
    page = read(tmp_path / "report.html")
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    text = (tmp_path / "report.html").read_text()
    assert nasty not in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    assert any("Expected a finite loss, got nan" in t for t in page.text)
    identifiers = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))


def test_files_of_every_figure(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, "ewc", seed, points=5)
        write(tmp_path, "naive", seed, points=5, kept=0.2)
    report.main([str(tmp_path), "--out", str(tmp_path / "out")])
    made = {p.name for p in (tmp_path / "out" / "figures").iterdir()}
    names = {"average_accuracy", "forgetting_curves", "accuracy_drop", "stability_gap", "paired_differences"}
    names |= {"pareto_seconds_train", "pareto_bytes_stored", "accuracy_matrix", "retention"}
    assert made == {f"{n}.{kind}" for n in names for kind in ("png", "svg", "csv")} | {"measures.csv", "costs.csv"}
    with (tmp_path / "out" / "figures" / "accuracy_matrix.csv").open() as file:
        rows = [
            r
            for r in csv.DictReader(file)
            if (r["strategy"], r["tasks trained"], r["task tested"]) == ("ewc", "3", "1")
        ]
    expected = np.mean([matrix(3, 0.8, seed)[0, 3, 0] for seed in range(2)])
    np.testing.assert_allclose(float(rows[0]["accuracy"]), expected, rtol=1e-6)


def test_ranks_of_three_strategies_on_one_stream_and_on_two(tmp_path: Path) -> None:
    """Kept .9, .6 and .2: ranks 1, 2 and 3 on every seed, so no group of all three with four seeds."""
    for scenario in ("class", "domain"):
        for seed in range(4):
            for strategy, kept in (("er", 0.9), ("ewc", 0.6), ("naive", 0.2)):
                write(tmp_path, strategy, seed, kept=kept, scenario=scenario)
    report.main([str(tmp_path)])
    with (tmp_path / "figures" / "average_ranks.csv").open() as file:  # over both streams: 8 pairs
        rows = list(csv.DictReader(file))
    assert [(r["strategy"], float(r["average rank"])) for r in rows] == [("er", 1), ("ewc", 2), ("naive", 3)]
    np.testing.assert_allclose(float(rows[0]["critical difference"]), 2.3437 * np.sqrt(3 * 4 / (6 * 8)), atol=1e-3)
    assert [(r["group 1"], r["group 2"]) for r in rows] == [("1", "0"), ("1", "1"), ("0", "1")]
    page = read(tmp_path / "report.html")
    assert sum(attrs.get("class") == "ranks" for _, attrs in page.tags) == 3
    assert {p.suffix for p in tmp_path.glob("figures/*/average_ranks.*")} == {".png", ".svg", ".csv"}


def test_no_stability_gap_where_no_later_task_was_watched(tmp_path: Path) -> None:
    """As for joint training, whose one long task has points on the curve and whose other tasks have none."""
    write(tmp_path, "naive", 0)
    folder = write(tmp_path, "joint", 0, points=5)
    results = Results.load(folder)
    first = results.curve_task == 0
    accuracy = results.curve_accuracy[:, first]
    replace(results, curve_step=results.curve_step[first], curve_task=results.curve_task[first],
            curve_accuracy=accuracy).save(folder)  # fmt: skip
    report.main([str(tmp_path)])
    assert (tmp_path / "figures" / "forgetting_curves.csv").exists()
    assert not (tmp_path / "figures" / "stability_gap.csv").exists()


@pytest.mark.parametrize("k", [1, 2, 25])
def test_any_number_of_tasks_and_one_run(tmp_path: Path, k: int) -> None:
    write(tmp_path, "naive", 0, k=k)
    report.main([str(tmp_path), "--no-figures"])
    read(tmp_path / "report.html")


def test_only_failed_runs(tmp_path: Path) -> None:
    folder = write(tmp_path, "naive", 0, status="failed", message="boom")
    (folder / "results.npz").unlink()
    report.main([str(tmp_path)])
    assert any("boom" in t for t in read(tmp_path / "report.html").text)


def test_unequal_data_is_told(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, fingerprint="one")
    write(tmp_path, "ewc", 0, fingerprint="two")
    report.main([str(tmp_path), "--no-figures"])
    assert any("fingerprints of the stream differ" in t for t in read(tmp_path / "report.html").text)


def group(root: Path) -> groups.Group:
    return groups.group([runs.load(f) for f in runs.find([root])])[0]


def test_axis_counts_tasks(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, points=4)
    x, values = timeline.of_task(group(tmp_path), 1)
    np.testing.assert_allclose(x, [0, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3])
    accuracy = matrix(3, 0.8, 0)[0]
    np.testing.assert_allclose(values[0, :2], accuracy[:2, 1])
    np.testing.assert_allclose(values[0, 5], accuracy[2, 1])
    np.testing.assert_allclose(values[0, 7], (accuracy[2, 1] + accuracy[3, 1]) / 2 - 0.2)


def test_zoom_begins_before_the_switch(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, points=20)
    x, values = timeline.around_switch(group(tmp_path), 2)
    accuracy = matrix(3, 0.8, 0)[0]
    np.testing.assert_allclose(x[:3], [0, 5, 10])
    np.testing.assert_allclose(values[0, 0], accuracy[2, :2].mean())
    assert x[-1] < 100


def test_thinning_keeps_the_dip() -> None:
    y = np.ones(1000)
    y[637] = 0.1
    kept = timeline.thin(y, 20)
    assert 637 in kept
    assert {0, 999} <= set(kept)
    assert len(kept) <= 24


def test_order_and_headline(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, "naive", seed, accuracy=matrix(3, 0.0, seed, noise=0))
        write(tmp_path, "er", seed, accuracy=matrix(3, 1.0, seed, noise=0))
    (block,) = content.blocks(groups.group([runs.load(f) for f in runs.find([tmp_path])]))
    assert [m.label for m in block.members] == ["er", "naive"]
    assert content.headline(block) == (
        "After 3 tasks er reaches 0.950 ± 0.000 average accuracy and still has 0.950 on the first task; "
        "naive reaches 0.650 ± 0.000 and has 0.500 left."
    )


def test_unfinished_runs_are_not_in_the_headline_beside_finished_ones(tmp_path: Path) -> None:
    cut = matrix(3, 1.0, 0, noise=0)
    cut[:, 2:] = np.nan
    write(tmp_path, "er", 0, accuracy=cut, status="running")
    (alone,) = content.blocks(groups.group([runs.load(f) for f in runs.find([tmp_path])]))
    assert content.headline(alone).startswith("So far er [unfinished] reaches 0.9")
    write(tmp_path, "naive", 0, accuracy=matrix(3, 0.0, 0, noise=0))
    (both,) = content.blocks(groups.group([runs.load(f) for f in runs.find([tmp_path])]))
    assert len(both.members) == 2
    assert content.headline(both).startswith("After 3 tasks naive reaches 0.650 average")


def test_one_task_is_one_task(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, k=1, accuracy=matrix(1, 1.0, 0, noise=0))
    (block,) = content.blocks(groups.group([runs.load(f) for f in runs.find([tmp_path])]))
    assert content.headline(block).startswith("After 1 task naive reaches")


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0, 1), (-0.03, 0.41), (0, 123456), (5, 5.001)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 8
        assert min(found) >= low - 1e-9
        assert max(found) <= high + 1e-9


def test_what_was_asked_is_the_difference_to_the_chosen_files() -> None:
    config = compose(["strategy=ewc", "strategy.strength=7", "training.epochs=3", "measures=basic", "precision=bf16"])
    found = changed(config, config["choices"])
    assert found == {"strategy.strength": 7, "training.epochs": 3, "precision": "bf16"}
    assert changed(compose([]), compose([])["choices"]) == {}


def test_how_samples_are_read_is_not_told_as_a_change() -> None:
    config = compose(["stream=image_folder", "stream.source.path=x", "stream.source.workers=9"])
    found = changed(config, config["choices"])
    assert found["stream.source.path"] == "x"
    assert "stream.source.workers" not in found


def test_large_sweep_stays_below_a_megabyte(tmp_path: Path) -> None:
    axes, facts = ["task trained", "task"], {"meaning": "m.", "better": "higher", "source": "s", "unit": "fraction"}
    rng = np.random.default_rng(0)
    for strategy in range(10):
        for seed in range(5):
            seen = {
                name: {"values": rng.random((10, 10)), "axes": axes, "names": {}, **facts}
                for name in ("probe_all", "probe_task", "nearest_mean", "nll")
            }
            seen["task_confusion"] = {
                "values": rng.random((10, 10, 10)),
                "axes": [*axes, "predicted task"],
                "names": {},
            } | facts
            write(tmp_path, f"s{strategy}", seed, k=10, kept=0.09 * strategy, points=40, measures=seen)
    report.main([str(tmp_path), "--no-figures"])
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    page = read(tmp_path / "report.html")
    lines = [attrs for tag, attrs in page.tags if tag == "polyline" and attrs.get("class") == "line"]
    assert len(lines) >= 10 * (10 + 9 + 1)


def test_unfinished_runs_are_compared_with_none(tmp_path: Path) -> None:
    """The average of a run that was cut is of fewer tasks: no differences, ranks or tests with it."""
    for seed in range(4):
        cut = matrix(3, 1.0, seed)
        cut[:, 2:] = np.nan
        write(tmp_path, "ewc", seed, accuracy=cut, status="interrupted")
        for name, kept in (("er", 0.9), ("lwf", 0.6), ("naive", 0.1)):
            write(tmp_path, name, seed, accuracy=matrix(3, kept, seed))
    found = groups.group([runs.load(f) for f in runs.find([tmp_path])])
    (block,) = content.blocks(found)
    assert [m.label for m in block.members] == ["er", "lwf", "naive", "ewc [unfinished]"]
    items = {item.name: item for item in block.items}
    assert items["paired_differences"].x_names == ("lwf", "naive")
    assert set(items["average_ranks"].labels) == {"er", "lwf", "naive"}
