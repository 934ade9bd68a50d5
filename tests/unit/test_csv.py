"""Time series from csv files: windows by hand, and every way a table can be wrong."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cl.errors import ConfigError, DataError
from cl.streams import TaskStream
from cl.streams.constructions import Sequence
from cl.streams.sequences import Csv


def csv(path: Path, n: int = 100) -> None:
    lines = [f"{i},{2 * i},{'a' if i < n // 2 else 'b'},word" for i in range(n)]
    path.write_text("t,u,kind,text\n" + "\n".join(lines))


def test_csv_windows(tmp_path):
    csv(tmp_path / "s.csv")
    source = Csv("s.csv", ["u"], steps=4, horizon=2, segments=2, test_fraction=0.2)
    s = TaskStream(source, Sequence(), "domain", root=tmp_path, normalise="none")
    assert s.info.target == "real"
    assert s.info.input_shape == (4, 1)
    assert s.class_names[0] == ("u +1", "u +2")
    seen = torch.tensor([2.0 * i for i in [*range(40), *range(50, 90)]])

    def scaled(values):
        return (torch.tensor(values) - seen.mean()) / seen.std(unbiased=False)

    batch = next(iter(s[1].train.in_order(100)))
    assert len(batch.y) == 40 - 5
    torch.testing.assert_close(batch.x[0, :, 0], scaled([100.0, 102.0, 104.0, 106.0]))
    torch.testing.assert_close(batch.y[0], scaled([108.0, 110.0]))
    test = next(iter(s.test(0).in_order(100)))
    torch.testing.assert_close(test.x[0, 0, 0], scaled(80.0))


def test_csv_of_other_separators_and_decimal_marks(tmp_path):
    (tmp_path / "comma.csv").write_text(";a;b\n" + "".join(f"{i};{i},5;{-i}\n" for i in range(60)))
    table = Csv("comma.csv", steps=2, segments=2, separator=";", decimal=",").load(tmp_path, False)
    assert table.class_names == ("a +1", "b +1")  # the nameless first column numbers the rows
    with pytest.raises(DataError, match=r"as many fields in every row of .*comma\.csv.*`stream\.source\.separator`"):
        Csv("comma.csv").load(tmp_path, False)


@pytest.mark.parametrize(
    ("header", "row"),
    [("a,b", "1,2,"), ("t,a", "{i},{r},"), ("day,temp", "{i},{r},5"), ("day,temp,wind", "{i},{r},5,7,1")],
    ids=["constant first", "counter first", "decimal commas", "two decimal commas"],
)
def test_csv_whose_rows_have_more_fields_than_its_header(header, row, tmp_path):
    """pandas takes the first fields for names of rows, and every value stands in another column."""
    rows = [row.format(i=i, r=i % 5) for i in range(60)]
    (tmp_path / "more.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(DataError, match="take a comma off the ends"):
        Csv("more.csv", [header.split(",")[0]]).load(tmp_path, False)
    (tmp_path / "late.csv").write_text("\n".join([header, *["1" + ",1" * header.count(",")] * 5, *rows]))
    with pytest.raises(DataError, match="take a comma off the ends"):
        Csv("late.csv").load(tmp_path, False)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.1, 20.1])
def test_csv_columns_that_are_constant_in_training_keep_their_scale(constant, tmp_path):
    """Rounding gives them a deviation of 1e-17."""
    rows = [f"{i % 7},{constant if i % 100 < 80 else constant + 1}" for i in range(200)]
    (tmp_path / "flat.csv").write_text("\n".join(["a,b", *rows]))
    table = Csv("flat.csv", ["b"], steps=5, segments=2).load(tmp_path, False)
    np.testing.assert_allclose(table.train.y, 0, atol=1e-6)
    np.testing.assert_allclose(table.test.y, 1, atol=1e-6)


@pytest.mark.parametrize("name", ["x.csv.gz", "x.csv.xz", "x.csv.zip", "x.csv.tar", "x.csv.bz2"])
def test_damaged_compressed_csv_files_are_named(name, tmp_path):
    text = "a,b\n" + "1,2\n" * 5000
    pd.DataFrame({"a": range(5000)}).to_csv(tmp_path / name, index=False)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"a csv file with a header in .*{name}"):
        Csv(name).load(tmp_path, False)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"a csv file with a header in .*{name}"):
        Csv(name).load(tmp_path, False)


def test_csv_without_names_is_told(tmp_path, caplog):
    (tmp_path / "bare.csv").write_text("1.5,2\n" + "3,4\n" * 60)
    Csv("bare.csv", steps=2, segments=2).load(tmp_path, False)
    assert "the first row, numbers alone, is taken for the names" in caplog.text


@pytest.mark.parametrize(("value", "told"), [("", "got gaps in row 4"), ("inf", "got inf in row 4")])
def test_csv_gaps_and_infinities_have_their_row_and_column(value, told, tmp_path):
    rows = ["1,2"] * 60
    rows[3] = f"1,{value}"
    (tmp_path / "hole.csv").write_text("\n".join(["a,b", *rows]))
    with pytest.raises(DataError, match=f"every row of b of .*hole.csv, {told}"):
        Csv("hole.csv", steps=2, segments=2).load(tmp_path, False)


@pytest.mark.parametrize(
    ("value", "told"), [("oops", r"a number in every row of b of .*, got 'oops' in row 3"), ("1e300", "numbers below")]
)
def test_csv_with_one_value_that_is_wrong(value, told, tmp_path):
    rows = [f"{i},{i},mon" for i in range(60)]
    rows[2] = f"2,{value},mon"
    (tmp_path / "one.csv").write_text("\n".join(["a,b,day", *rows]))
    with pytest.raises(DataError, match=told):
        Csv("one.csv", steps=2, segments=2).load(tmp_path, False)
    assert Csv("one.csv", ["a"], steps=2, segments=2).load(tmp_path, False).class_names == ("a +1",)


def test_csv_by_group_and_errors(tmp_path):
    csv(tmp_path / "s.csv")
    table = Csv("s.csv", steps=4, group="kind").load(tmp_path, False)
    assert table.group_names == ("a", "b")
    assert table.train.x.shape[1:] == (4, 2)
    for fields, error in (
        ({"columns": ["text"]}, r"stream\.source\.columns"),
        ({"group": "nothing"}, r"stream\.source\.group"),
        ({"steps": 60}, r"stream\.source\.steps"),
    ):
        with pytest.raises(ConfigError, match=error):
            Csv("s.csv", **fields).load(tmp_path, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, about the mean of nothing
        with pytest.raises(ConfigError, match=r"stream\.source\.steps.*got 51"):
            Csv("s.csv", segments=700).load(tmp_path, False)
    (tmp_path / "hole.csv").write_text("t,kind\n1,a\n2,\n3,b\n")
    with pytest.raises(DataError, match=r"every row of kind .*gaps"):
        Csv("hole.csv", steps=1, group="kind").load(tmp_path, False)
    with pytest.raises(DataError, match=r"other\.csv"):
        Csv("other.csv").load(tmp_path, False)
    (tmp_path / "gap.csv").write_text("t\n1\n\n2\nnan\n")
    with pytest.raises(DataError, match="gaps"):
        Csv("gap.csv").load(tmp_path, False)
    s = Csv("s.csv", steps=2)
    with pytest.raises(ConfigError, match=r"stream\.scenario"):
        TaskStream(s, Sequence(), "class", root=tmp_path, normalise="none")
