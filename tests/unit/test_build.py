from collections.abc import Sequence
from typing import Literal

import pytest

from cl.build import as_hinted, check_type, construct, locate, unused
from cl.cli.compose import compose
from cl.errors import ConfigError


class Part:
    def __init__(self, size: int, rate: float = 0.5, kind: Literal["a", "b"] = "a", names: Sequence[str] = ()) -> None:
        if size < 0:
            raise ValueError("size is negative")
        self.size, self.rate, self.kind, self.names = size, rate, kind, names


class Whole:
    def __init__(self, part: Part, parts: Sequence[Part] = ()) -> None:
        self.part, self.parts = part, parts


PART = f"{__name__}.Part"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))


def node(**fields):
    return {"_target_": PART, **fields}


def test_builds_nested_targets_lists_and_partials():
    whole = construct({"_target_": f"{__name__}.Whole", "part": node(size=1), "parts": [node(size=2)]}, "whole")
    assert (whole.part.size, whole.parts[0].size) == (1, 2)
    later = construct(node(rate=1, _partial_=True), "part")
    assert later(size=3).rate == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": "x"}, ["part.size", "a whole number", "'x'"]),
        ({"size": True}, ["part.size", "True"]),
        ({"size": 1.5}, ["part.size", "1.5"]),
        ({"size": 1, "rate": "fast"}, ["part.rate", "a number", "'fast'"]),
        ({"size": 1, "kind": "c"}, ["part.kind", "['a', 'b']", "'c'"]),
        ({"size": 1, "names": ["a", 3]}, ["part.names", "a text"]),
        ({"size": 1, "rat": 3}, ["part.rat", "did you mean rate"]),
        ({}, ["part.size", "needs"]),
        ({"size": -1}, ["part", "Part", "ValueError: size is negative"]),
    ],
)
def test_mistakes_name_field_rule_and_value(fields, words):
    with pytest.raises(ConfigError) as caught:
        construct(node(**fields), "part")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "hint", "kind"),
    [
        (1, float, float),
        (1, float | None, float),
        (1, int | float, int),
        (1, float | Part, float),
        (True, float, bool),
        (1, int, int),
        ("1", float, str),
    ],
)
def test_whole_numbers_are_floats_where_a_float_is_asked_for(value, hint, kind):
    def target(x: hint, xs: Sequence[hint] = (), pair: tuple[hint, int] = (0, 0)):
        """Take values."""

    found = as_hinted({"x": value, "xs": [value, value], "pair": [value, 2], "y": 1}, target)
    assert found == {"x": value, "xs": [value, value], "pair": [value, 2], "y": 1}
    assert [type(v) for v in (found["x"], *found["xs"], *found["pair"], found["y"])] == [kind] * 4 + [int, int]


def test_whole_numbers_are_floats_at_any_depth():
    found = as_hinted({"a": [node(size=1, rate=2)], "b": {"_target_": "not.there", "rate": 2}})
    assert (found["a"][0]["size"], found["a"][0]["rate"], found["b"]["rate"]) == (1, 2.0, 2)
    assert isinstance(found["a"][0]["rate"], float)
    assert isinstance(found["b"]["rate"], int)


def test_target_that_does_not_exist_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean Part"):
        construct({"_target_": f"{__name__}.Prat"}, "part")


def test_target_must_take_what_the_program_gives():
    with pytest.raises(ConfigError, match="take the argument `learner`"):
        construct(node(size=1), "strategy", learner=object())


@pytest.mark.parametrize(
    ("value", "hint", "good"),
    [
        (1, float, True),
        (None, int | None, True),
        (None, int, False),
        ([1, 2], tuple[int, ...], True),
        ([1, "a"], tuple[int, ...], False),
        ([0.9, 0.999], tuple[float, float], True),
        ([0.9], tuple[float, float], False),
        ([1.5, 2.5], int | tuple[int, int] | list[int], False),
        (["a", "b"], int | tuple[int, int] | list[int], False),
        ([1, 2], int | tuple[int, int] | list[int], True),
        ({"a": 1}, dict[str, int], True),
        (float("nan"), float, False),
        (float("inf"), float | None, False),
        ([0.9, float("inf")], tuple[float, float], False),
        ("a", dict[str, int], False),
    ],
)
def test_types(value, hint, good):
    if good:
        check_type(value, hint, "x")
    else:
        with pytest.raises(ConfigError, match="Expected `x`"):
            check_type(value, hint, "x")


@pytest.mark.parametrize(
    ("learner", "fields", "named"),
    [
        *((name, {"embedding": 32}, "embedding") for name in ("tcn", "s4d", "ntm", "dnc", "conv_gru")),
        *(("conv_gru", {name: v}, name) for name, v in (("heads", 8), ("position", "alibi"), ("causal", True))),
        ("conv_gru", {"max_length": 500}, "max_length"),
        ("conv_transformer", {"max_length": 500}, "max_length"),
        ("transformer", {"feedforward": 32, "parameters": 50000}, "feedforward"),
    ],
)
def test_fields_of_sequence_learners_that_have_no_effect(learner, fields, named):
    config = compose([f"learner={learner}", "stream=row_mnist"])["learner"]
    kind = locate(config.pop("_target_"), "learner")
    assert unused(kind, config, "learner") == []
    (line,) = unused(kind, {**config, **fields}, "learner")
    assert line.startswith(f"learner.{named} has no effect with learner.")
