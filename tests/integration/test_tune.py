"""Tuning sees validation data alone, picks what is better there, counts its budget, hands over to the final seeds."""

import json

import numpy as np
import pytest

from cl.cli.commands import tune
from cl.cli.compose import compose
from cl.cli.main import main
from cl.errors import ConfigError
from cl.results import Results
from cl.streams import TaskStream
from cl.testing import TinyStream
from cl.tuning import Protocol, Trial, ValidationStream, attempt, report

WORDS = ["stream=split_digits", "stream.samples_per_task=100", "learner.hidden=[16]", "tracker=files", "threads=1"]
WORDS += ["training.epochs=null", "training.steps=20"]


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    """Workers take seconds to start."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)


def test_the_test_split_is_out_of_reach(monkeypatch):
    def forbidden(self, k):
        raise AssertionError("test data was read")

    monkeypatch.setattr(TaskStream, "test", forbidden)
    rates = ["optimizer.lr=0.01", "optimizer.lr=1e-7"]
    settings = [((word,), compose([*WORDS, word])) for word in rates]
    trials = attempt(settings, Protocol(seeds=(7, 8), validation=0.2, tasks=2))
    good, bad = trials
    assert good.score > 0.8 > bad.score
    assert good.score == pytest.approx(np.mean(good.scores))
    assert [t.steps for t in trials] == [2 * 2 * 20] * 2  # tasks, seeds, steps
    found = report(trials, Protocol(seeds=(7, 8), validation=0.2, tasks=2))
    assert found["best"]["words"] == ["optimizer.lr=0.01"]
    assert (found["budget"]["settings"], found["budget"]["runs"], found["budget"]["steps"]) == (2, 4, 160)


def test_a_setting_that_fails_is_the_worst():
    settings = [((word,), compose([*WORDS, word])) for word in ("optimizer.lr=1e30", "optimizer.lr=0.0")]
    exploded, still = attempt(settings, Protocol(seeds=(0,), tasks=2))
    assert exploded.score == -np.inf
    assert 0 <= still.score <= 1
    assert report([exploded, still], Protocol(seeds=(0,)))["best"]["words"] == ["optimizer.lr=0.0"]


def test_numbers_and_texts_are_chosen_by_their_loss():
    """Less is better: of losses .5, .2 and one that is not finite the second, although all scores are below 0."""

    def tried(loss, **kind):
        results = Results(np.zeros((1, 2, 1)), np.full((1, 2, 1), loss), [0], **kind)
        return Trial((f"lr={loss}",), (float(results.score[0]),), 1, 1.0, kind=results.kind)

    kinds = ("regression", "minus squared error", 1.0), ("language", "minus bits per character", np.log(2))
    for kind, told, nats in kinds:
        trials = [tried(loss, **{kind: True}) for loss in (0.5, 0.2, np.nan)]
        found = report(trials, Protocol(seeds=(0,)))
        assert found["best"]["words"] == ["lr=0.2"]
        assert found["best"]["kind"] == told
        assert found["best"]["score"] == pytest.approx(-0.2 / nats)
        assert found["budget"]["failed"] == 1
    assert tried(0.5).score == 0.0  # accuracy


def test_validation_takes_the_place_of_test():
    stream = ValidationStream(TinyStream("task"), tasks=2)
    assert len(stream) == stream.info.n_tasks == 2
    assert stream.info.task_classes == ((0, 1), (2, 3))
    with pytest.raises(ConfigError, match=r"stream\.validation"):
        stream.test(0)  # the tiny stream holds nothing out
    with pytest.raises(ConfigError, match="tasks"):
        ValidationStream(TinyStream("task"), tasks=9)


def test_the_command_tunes_and_runs_the_final_seeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tune, "finals", _one_after_another)
    arguments = ["optimizer.lr=0.01,1e-7", f"output={tmp_path}", "--final", "0,1", "--tasks", "3", "--seeds", "5"]
    assert main(["tune", *WORDS, *arguments]) == 0
    text = capsys.readouterr().out
    assert "best accuracy on validation data: optimizer.lr=0.01" in text
    assert "budget: 2 settings, 2 runs, 120 steps" in text
    folders = sorted(tmp_path.glob("split_digits/*"))
    assert [f.name.split("-")[3] for f in folders] == ["seed0", "seed1"]
    record = json.loads((folders[0] / "tuning.json").read_text())
    assert record["protocol"] == {"seeds": [5], "validation": 0.1, "tasks": 3}
    assert record["final"]["seeds"] == [0, 1]
    assert Results.load(folders[0]).accuracy.shape == (1, 6, 5)  # all tasks, not only those tuned on


def test_an_impossible_setting_fails_alone_and_the_search_is_kept(tmp_path, capsys):
    arguments = ["optimizer.lr=-1.0,0.01", f"output={tmp_path}", "--final", "none", "--tasks", "1"]
    assert main(["tune", *WORDS, *arguments]) == 0
    text = capsys.readouterr().out
    assert "-inf  optimizer.lr=-1.0  (Expected `optimizer.lr` a number >= 0" in text
    assert "budget: 2 settings (1 failed), 1 runs, 20 steps" in text
    (file,) = tmp_path.glob(".tuning/*/tuning.json")
    record = json.loads(file.read_text())
    assert record["best"]["words"] == ["optimizer.lr=0.01"]
    assert record["final"] == {"seeds": [], "folders": []}
    assert "a number >= 0, got -1.0" in record["trials"][0]["message"]


def test_values_that_tie_and_the_end_of_a_grid_are_told(tmp_path, capsys):
    searched = ["optimizer.lr=1e-6,1e-5,0.01", "evaluation.batch_size=100,200", "training.optimizer_state=keep,reset"]
    assert main(["tune", *WORDS, *searched, f"output={tmp_path}", "--final", "none", "--tasks", "1"]) == 2  # evaluation
    capsys.readouterr()
    searched[1] = "checkpoint.minutes=5,6"
    assert main(["tune", *WORDS, *searched, f"output={tmp_path}", "--final", "none", "--tasks", "1"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: optimizer.lr=0.01 is the largest value tried; the best may lie beyond",
        "note: checkpoint.minutes changed nothing: its values tie",
        "note: training.optimizer_state changed nothing: its values tie",
    ]


def test_no_note_where_the_best_lies_inside(tmp_path, capsys):
    words = ["optimizer.lr=1e-7,0.01,10.0", f"output={tmp_path}", "--final", "none", "--tasks", "1"]
    assert main(["tune", *WORDS, *words]) == 0
    assert "note:" not in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_refused_before_the_search(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tune, "attempts", None)
    assert main(["tune", *WORDS, "optimizer.lr=0.1,0.2", f"output={tmp_path}/file", "--final", "none"]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_search_in_which_nothing_trains_leaves_no_folder(tmp_path, capsys):
    assert main(["tune", *WORDS, "optimizer.lr=-1.0,-2.0", f"output={tmp_path}", "--final", "none"]) == 2
    assert not list(tmp_path.glob(".tuning/*"))


def test_the_choices_of_a_glob_are_searched(capsys, tmp_path):
    assert main(["tune", *WORDS, f"output={tmp_path}", "strategy=glob(n*i*)", "--final", "none", "--tasks", "1"]) == 0
    assert "best accuracy on validation data: strategy=naive" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("evaluation.every=-3", "evaluation.every"),  # trials measure no curve
        ("tracker.console.every=-1", "tracker.console.every"),
        ("evaluation.split=validation", "stream.validation"),
    ],
)
def test_a_final_run_that_is_impossible_is_told_before_the_search(word, named, monkeypatch, capsys):
    def forbidden(*_):
        raise AssertionError("a setting was tried")

    monkeypatch.setattr("cl.tuning.carry_out", forbidden)
    words = [w for w in WORDS if w != "tracker=files"]
    assert main(["tune", *words, "optimizer.lr=0.1,0.2", word]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: Expected `{named}` ")
    assert text.count("\n") == 1


def test_what_optuna_asks_does_not_depend_on_the_cores(monkeypatch):
    pytest.importorskip("optuna")
    fixed, searched = tune.split([*WORDS, "optimizer.lr=interval(0.1,0.2)"])

    def asked(cores: int) -> list[list[tuple[str, ...]]]:
        batches = []

        def tried(settings, protocol, pool):
            batches.append([words for words, _ in settings])
            return iter([Trial(words, (float(words[0].partition("=")[2]),), 1, 0.0) for words, _ in settings])

        monkeypatch.setattr("cl.tuning.carry_out", tried)
        monkeypatch.setattr("joblib.cpu_count", lambda: cores)
        assert len(list(tune.search(fixed, searched, Protocol((5,)), None, 3, 2))) == 3
        return batches

    many = asked(7)
    assert [len(batch) for batch in many] == [2, 1]
    assert many == asked(1)


def test_accuracy_goes_by_the_split_that_was_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tune, "finals", _one_after_another)
    words = ["evaluation.split=validation", "stream.validation=0.2", "optimizer.lr=0.01,0.02", f"output={tmp_path}"]
    assert main(["tune", *WORDS, *words, "--final", "1", "--tasks", "1"]) == 0
    assert "validation accuracy of 1 final seeds" in capsys.readouterr().out


def _one_after_another(words, seeds):
    from cl.run import run

    return [outcome for seed in seeds for outcome in run(compose([*words, f"seed={seed}"]))]


def test_optuna_searches_an_interval(capsys, tmp_path):
    pytest.importorskip("optuna")
    word = "optimizer.lr=tag(log,interval(1e-5,1e-1))"
    assert main(["tune", *WORDS, word, f"output={tmp_path}", "--trials", "4", "--final", "none", "--tasks", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "optimizer.lr=" in line]
    rates = {float(line.partition("=")[2]) for line in lines}
    assert len(rates) == 4
    assert all(1e-5 <= r <= 1e-1 for r in rates)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy=naive"], "several values"),
        (["optimizer.lr=interval(0,1)"], "--trials"),
        (["optimizer.lr=0.1,0.2", "seed=3"], "--seeds"),
        (["optimizer.lr=0.1,0.2", "++seed=3"], "--seeds"),
        (["optimizer.lr=0.1,0.2", "seed=0,1"], "--seeds"),
        (["replicas=2,3"], "--seeds"),
        (["stream=split_digits,permuted_digits"], "one stream"),
        (["optimizer.lr=0.1,0.2", "--final", "0,0"], "different seeds"),
        (["optimizer.lr=0.1,0.2", "--seeds=-1"], ">= 0"),
        (["optimizer.lr=0.1,0.2", "--validation", "nan"], "--validation"),
        (["optimizer.lr=0.1,0.2", "--seeds", "1,1"], "different seeds"),
        (["optimizer.lr=0.1,0.2", "--final", "a"], "whole numbers"),
        (["optimizer.lr=0.1,0.2", "--validation", "0"], "validation"),
        (["optimizer.lr=0.1,0.2", "--validation", "0.999"], "leaves some to train on"),
        (["optimizer.lr=interval(1,0.1)", "--trials", "2"], "from a smaller number to a larger"),
        (["optimizer.lr=tag(log,interval(0,0.1))", "--trials", "2"], "> 0 where it is tagged log"),
        (["optimizer.lr=0.1,0.2", "--trials", "2", "--at-once", "0"], "--at-once"),
        (["optimizer.lr=-1.0,-2.0"], "none (optimizer.lr=-1.0: Expected `optimizer.lr`"),
        (["strategy=glob(zz*)"], "several values"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, capsys):
    assert main(["tune", *WORDS, *words]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert len([line for line in text.splitlines() if not line.startswith("setting ")]) == 1


class WithoutValidation(TinyStream):
    """A stream that holds nothing out of its training data."""

    def __init__(self, seed, root, download, device):
        super().__init__("task", seed)


def test_a_stream_that_cannot_hold_out_is_told_what_it_lacks(tmp_path, monkeypatch, capsys):
    (tmp_path / "conf/stream").mkdir(parents=True)
    (tmp_path / "conf/stream/mine.yaml").write_text(f"_target_: {__name__}.WithoutValidation\n")
    monkeypatch.chdir(tmp_path)
    words = ["stream=mine", "learner.hidden=[8]", "optimizer.lr=0.1,0.2", f"output={tmp_path}", "--final", "none"]
    assert main(["tune", *words]) == 2
    error = capsys.readouterr().err
    assert "Expected `stream` that takes the argument `validation` for tuning" in error
    assert error.splitlines()[-1].startswith("error: ")
