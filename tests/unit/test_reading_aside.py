"""How samples are read is no part of what a run computes: it is in no hash, and makes no condition of its own."""

import pytest

from cl.folder import config_hash
from cl.groups import condition

SOURCE = {"path": "a", "workers": 2, "prefetch": 4}


def config(source, **more):
    return {"seed": 0, "stream": {"source": source, "tasks": 5}, "strategy": {"workers": 1}, **more}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"by": "rows", "source": s}])
@pytest.mark.parametrize("what", [config_hash, condition])
def test_workers_and_prefetch_are_aside(wrap, what):
    own = what(config(wrap(SOURCE)))
    assert own == what(config(wrap({**SOURCE, "workers": 8, "prefetch": 1})))
    assert own != what(config(wrap({**SOURCE, "path": "b"})))
    assert own != what(config(wrap(SOURCE), strategy={"workers": 2}))  # somebody's own field of that name counts


def test_other_hashes_stay_as_they_were():
    plain = {"seed": 3, "stream": {"source": {"path": "a"}}, "choices": {"stream": "x"}}
    assert config_hash(plain) == "be412c2e"


def test_trackers_are_aside_also_where_one_was_chosen():
    choices = {"stream": "split_digits", "strategy": "ewc"}
    plain = config_hash({"seed": 0, "choices": choices})
    assert config_hash({"seed": 0, "tracker": {}, "choices": {**choices, "tracker": "none"}}) == plain
    assert config_hash({"seed": 0, "choices": {**choices, "learner": "mlp"}}) != plain
