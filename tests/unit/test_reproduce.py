import numpy as np
import pytest
import yaml

from cl import reproduce
from cl.cli.compose import compose
from cl.cli.places import conf_folder
from cl.errors import ConfigError
from cl.results import Results

TABLES = sorted((conf_folder() / "reproduce").glob("*.yaml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_every_cell_of_every_table_composes(path):
    for cell in reproduce.read(path).cells:
        compose(cell.words)


def cell(mean=50.0, sd=1.0):
    return reproduce.Cell("r", "c", (), "average_accuracy", mean, sd, 1.5)


@pytest.mark.parametrize(
    ("values", "sd", "verdict"),
    [
        ((51.9, 51.9), 1.0, "reached"),
        ((52.1, 52.1), 1.0, "above"),
        ((48.4, 48.4), 0.1, "below"),
        ((48.6, 48.6), 0.1, "reached"),
        ((48.6,), None, "reached"),
        ((), 1.0, "failed"),
        ((54.0, 52.0), 1.0, "open"),
        ((47.1, 46.9), 1.0, "below"),
        ((54.0,), 1.0, "above"),
    ],
)
def test_verdict_is_two_deviations_or_the_tolerance_or_the_interval(values, sd, verdict):
    assert reproduce.Measured(cell(sd=sd), values).verdict == verdict


def table_of(folder, rows):
    """A table `x` of one column `c`, read from a file."""
    fields = {"source": "s", "quantity": "average_accuracy", "scale": 100, "seeds": 1, "tolerance": 1, "common": []}
    path = folder / "x.yaml"
    path.write_text("# x\n" + yaml.safe_dump({**fields, "columns": {"c": []}, "rows": rows}))
    return reproduce.read(path)


def test_a_cell_without_a_published_number_is_measured_all_the_same(tmp_path):
    cells = {"one": {"overrides": [], "c": {"mean": None}}, "two": {"overrides": [], "c": {"mean": 50}}}
    table = table_of(tmp_path, cells)
    measured = [reproduce.Measured(c, (50.0,)) for c in table.cells]
    assert [m.verdict for m in measured] == ["not published", "reached"]
    page = reproduce.markdown(table, measured, "lethe", "today")
    assert "| one | c | - | 50.00 | 1 | not published |" in page
    assert "1 of 1 cells" in page


def test_open_cells_are_counted_apart():
    table = reproduce.Table("t", "title", "source", "", 2, 100, (cell(),))
    page = reproduce.markdown(table, [reproduce.Measured(cell(), (54.0, 52.0))], "lethe", "today")
    assert "| 53.00 ± 12.71 | 2 | open |" in page
    fractions = reproduce.Table("t", "title", "source", "", 2, 1, (cell(0.94, 0.001),))
    row = reproduce.markdown(fractions, [reproduce.Measured(fractions.cells[0], (0.9394, 0.9396))], "lethe", "today")
    assert "| 0.94 ± 0.001 | 0.9395 ± 0.0013 | 2 | reached |" in row
    assert "0 of 1 cells within two published standard deviations or the tolerance; 1 open" in page
    small = reproduce.markdown(fractions, [reproduce.Measured(fractions.cells[0], (3e-8,))], "lethe", "today")
    assert "| 3.0e-08 |" in small


def test_interval_is_students_t():
    # t(.975, 3) = 3.18245; standard deviation of 1..4 is 1.29099
    measured = reproduce.Measured(cell(), (1.0, 2.0, 3.0, 4.0))
    assert measured.interval == pytest.approx(3.18245 * 1.29099 / 2, rel=1e-4)


def test_measure_reads_the_runs(tmp_path):
    accuracy = np.array([[[0.5, 0.5], [0.9, 0.5], [0.7, 0.8]]])
    Results(accuracy=accuracy, loss=accuracy, seeds=[0]).save(tmp_path)
    assert reproduce.measure(cell(), 100, [tmp_path, tmp_path]).values == pytest.approx((75.0, 75.0))


def test_section_replaces_itself_and_leaves_the_rest(tmp_path):
    page = tmp_path / "RESULTS.md"
    page.write_text("# Title\n\nkept\n")
    reproduce.insert(page, "one", "first\n")
    reproduce.insert(page, "two", "second\n")
    reproduce.insert(page, "one", "third\n")
    text = page.read_text()
    assert "first" not in text
    assert text.index("kept") < text.index("third") < text.index("second")


def test_cells_that_were_not_run_again_stay_with_their_command(tmp_path):
    cells = {name: {"overrides": [], "c": {"mean": 50}} for name in ("one", "two")}
    table = table_of(tmp_path, cells)
    one, two = table.cells
    second = reproduce.markdown(table, [reproduce.Measured(two, (50.0,))], "lethe reproduce x --row two", "monday")
    page = tmp_path / "page.md"
    reproduce.insert(page, "x", second)
    before = reproduce.section(page, "x")
    first = [reproduce.Measured(one, (10.0,))]
    both = reproduce.markdown(table, first, "lethe reproduce x --row one", "friday", before)
    assert both.index("--row two`, monday") < both.index("--row one`, friday")
    assert both.index("| one | c | 50 | 10.00 | 1 | below |") < both.index("| two | c | 50 | 50.00 | 1 |")
    assert "1 of 2 cells" in both
    more = reproduce.markdown(table, first, "lethe reproduce x --seeds 5 --row one --column c", "saturday", both)
    assert "friday" not in more
    assert "monday" in more
    other = reproduce.markdown(table, first, "lethe reproduce x --row one a=1", "tuesday", more)
    assert "saturday" not in other
    anew = [reproduce.Measured(c, (50.0,)) for c in table.cells]
    whole = reproduce.markdown(table, anew, "lethe reproduce x", "sunday", both)
    assert "2 of 2 cells" in whole
    assert "monday" not in whole
    assert "friday" not in whole


def test_unknown_key_is_an_error(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# x\n" + yaml.safe_dump({"rows": {}, "colums": {}}))
    with pytest.raises(ConfigError, match="colums"):
        reproduce.read(path)
