"""Whatever is typed, the command answers with one line and exit code 2, or runs."""

import contextlib
import io
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cl.cli.main import main
from cl.cli.places import conf_folder

SMALL = [
    "stream.samples_per_task=20",
    "stream.test_samples=10",
    "training.epochs=1",
    "learner.hidden=[8]",
    "tracker=none",
    "measures=none",
    "threads=1",
]
KEYS = [
    "seed",
    "replicas",
    "device",
    "precision",
    "threads",
    "deterministic",
    "name",
    "group",
    "tags",
    "resume",
    "checkpoint.minutes",
    "checkpoint.steps",
    "data.root",
    "optimizer.lr",
    "optimizer.betas",
    "optimizer._target_",
    "training.epochs",
    "training.steps",
    "training.batch_size",
    "training.optimizer_state",
    "training.clip_norm",
    "training.patience",
    "evaluation.every",
    "evaluation.samples",
    "evaluation.tasks",
    "evaluation.split",
    "stream.construction.n_tasks",
    "stream.construction.sizes",
    "stream.construction.class_order",
    "stream.scenario",
    "stream.validation",
    "stream.label_noise",
    "stream.imbalance",
    "stream.normalise",
    "stream.padding",
    "stream.augmentation",
    "learner.hidden",
    "learner.activation",
    "learner.dropout",
    "learner.head",
    "learner._target_",
    "strategy",
    "strategy.strength",
    "strategy._target_",
    "stream",
    "learner",
]
VALUES = [
    "0",
    "-1",
    "1",
    "3",
    "40",
    "0.5",
    "-0.5",
    "nan",
    "inf",
    "1e400",
    "null",
    "true",
    "abc",
    "''",
    "[]",
    "[1]",
    "[a]",
    "[-1]",
    "[[0,1]]",
    "{}",
    "{a:1}",
    "task",
    "class",
    "online",
    "ewc",
    "naive",
    "er",
    "os.system",
    "builtins.int",
    "torch.nn.Linear",
    "split_digits",
    "a,b",
    "${seed}",
    "${nothing}",
    "${oc.env:NOTHING}",
    "!!x",
    "../..",
    "\\",
    "[",
    "{",
    "'",
    '"',
    "=",
    "é",
    "\x00",
    "x" * 300,
]
WORDS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~", "-"]), st.sampled_from(KEYS), st.text(max_size=8)),
    st.text(max_size=20),
)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("fuzz"))
    yield
    os.chdir(before)


def answer(words):
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(["train", *words])
    return code, errors.getvalue()


def check(words):
    code, errors = answer([*SMALL, *words])
    assert code in (0, 1, 2), (words, code)
    if code != 0:
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, (words, errors)
        assert "Traceback" not in errors, words


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(WORDS, min_size=1, max_size=3))
def test_overrides(words):
    check(words)


@pytest.mark.parametrize("target", ["builtins.int", "os.system", "builtins.print", "torch.nn.Linear"])
def test_learners_that_are_none(target):
    check([f"learner._target_={target}"])


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(WORDS, min_size=1, max_size=3))
def test_many_overrides(words):
    check(words)


YAML = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(YAML.map(lambda node: yaml.safe_dump(node, allow_unicode=True)), st.text(max_size=40)))
def test_yaml_files(text):
    path = Path("conf/strategy/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    check(["strategy=mine"])


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch harmed']", "!!python/name:os.system ''"])
def test_yaml_tags_run_nothing(tag):
    path = Path("conf/strategy/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"_target_: strategies.naive.Naive\nfield: {tag}\n")
    code, errors = answer([*SMALL, "strategy=mine"])
    assert code == 2
    assert errors.startswith("error: ")
    assert not Path("harmed").exists()


def test_groups_named_here_exist():
    assert {k.split(".")[0] for k in KEYS} >= {"stream", "learner", "strategy"}
    assert (conf_folder() / "stream" / "split_digits.yaml").is_file()
