"""Runs on a second device (tests/support/elsewhere.cpp), which refuses to mix tensors of two devices as a GPU does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cl.results import Results

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "tests/support/elsewhere.py"
STRATEGIES = sorted(p.stem for p in (REPOSITORY / "conf/strategy").glob("*.yaml"))
SMALL = "stream=split_digits stream.samples_per_task=64 stream.test_samples=40 training.epochs=1 learner.hidden=[16]"
SHORT = "training.epochs=null training.steps=2 evaluation.batch_size=50"
SEQUENCE = f"stream=recall_distance stream.samples=32 stream.test_samples=16 {SHORT}"
BITS = f"stream=permuted_copy stream.samples=32 stream.test_samples=16 {SHORT}"
IMAGES = "stream=split_digits stream.samples_per_task=32 training.epochs=1"
# Why a population may train its replicas one by one; anything else is a kernel that does not take stacks.
ALONE = ("quadratic programme", "inner loop", "its own sequence")
RUNS = {
    "convolution": f"{IMAGES} learner=cnn strategy=ewc measures=full replicas=2",
    "residual": f"{IMAGES} learner=resnet18 learner.width=4 strategy=er",
    "vanilla": f"{SEQUENCE} learner=rnn learner.hidden=8 strategy=si measures=full",
    "lstm": f"{SEQUENCE} learner=lstm learner.hidden=8 strategy=ewc measures=[full,distance]",
    "lstms": f"{SEQUENCE} learner=lstm learner.hidden=8 strategy=ewc replicas=2",
    "gru": f"{SEQUENCE} learner=gru_attention learner.hidden=8 strategy=derpp",
    "transformer": f"{SEQUENCE} learner=transformer learner.width=16 strategy=lwf replicas=2",
    "convolutions over time": f"{SEQUENCE} learner=tcn strategy=mas",
    "state space": f"{BITS} learner=s4d strategy=mas replicas=2",
    "turing machine": f"{BITS} learner=ntm strategy=er",
    "neural computer": f"{BITS} learner=dnc strategy=agem",
    "hybrids": f"{IMAGES} learner=conv_gru strategy=rwalk",
    "numbers to say": f"stream=adding stream.samples=32 stream.test_samples=16 {SHORT} learner=gru strategy=er",
    "bits to say": f"{BITS} strategy=online_ewc replicas=2",
    "curves": f"{SMALL} strategy=er evaluation=curves evaluation.online=true replicas=2",
    "generated": f"{SMALL} strategy=dgr stream.scenario=class measures=full",
    "schedules": f"{SMALL} strategy=der optimizer=sgd scheduler=cosine training.clip_norm=1 replicas=2",
    "augmented": f"{IMAGES} stream.augmentation={{crop:1,flip:true}} strategy=icarl stream.scenario=class replicas=2",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The device, compiled; a minute."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the device is compiled for Linux, with g++ or clang++")
    folder = tmp_path_factory.mktemp("elsewhere")
    words = [sys.executable, str(PROGRAM), "build", str(folder), compiler]
    subprocess.run(words, check=True, capture_output=True, text=True)
    return folder / "elsewhere.so"


def carry_out(where, lines):
    """Return [exit code, output] of each command line, run in one process on a device."""
    words = [sys.executable, str(PROGRAM), *where]
    text = "\n".join(f"{line} tracker=files threads=1 seed=0" for line in lines)
    ended = subprocess.run(words, input=text, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def accuracies(folder):
    """Return the accuracy matrices of the runs in a folder, by seed."""
    found = [Results.load(p.parent) for p in sorted(folder.rglob("results.npz"))]
    return {seed: run.accuracy[i] for run in found for i, seed in enumerate(run.seeds)}


@pytest.fixture(scope="module")
def strategies(library, tmp_path_factory, request):
    """What came of every strategy: alone and two seeds at once there, two seeds on the CPU."""
    try:
        characters = f"data.root={request.getfixturevalue('data_root')}"
    except pytest.skip.Exception:
        characters = "strategy.meta_steps=0"
    own = {"oml": f"strategy.plastic=1 learner.hidden=[16,16] {characters}"}  # meta-trained on Omniglot
    folder = tmp_path_factory.mktemp("strategies")
    ended = {}
    for place, where in (("there", ["run", str(library)]), ("cpu", ["run"])):
        kinds = ("alone", "together") if place == "there" else ("together",)
        cases = [(name, kind) for name in STRATEGIES for kind in kinds]
        lines = []
        for name, kind in cases:
            words = f"{own.get(name, '')} {'replicas=2' if kind == 'together' else ''}"
            lines.append(f"train {SMALL} strategy={name} {words} output={folder / place / kind / name}")
        for (name, kind), result in zip(cases, carry_out(where, lines), strict=True):
            ended[place, kind, name] = result
    return folder, ended


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_on_a_second_device_as_on_the_first(strategies, name):
    folder, ended = strategies
    for key in (("there", "alone"), ("there", "together"), ("cpu", "together")):
        code, output = ended[(*key, name)]
        assert code == 0, (key, output)
        alone = [line for line in output.splitlines() if "replica by replica" in line]
        assert all(any(reason in line for reason in ALONE) for line in alone), alone
    reference = accuracies(folder / "cpu/together" / name)
    assert len(reference) == 2
    for kind, seeds in (("alone", 1), ("together", 2)):
        found = accuracies(folder / "there" / kind / name)
        assert len(found) == seeds
        for seed, matrix in found.items():
            assert np.nanmean(np.abs(matrix - reference[seed])) < 0.01, (kind, seed)


def test_learners_streams_and_measures_run_on_a_second_device(library, tmp_path):
    lines = [f"train {words} output={tmp_path / str(i)}" for i, words in enumerate(RUNS.values())]
    ended = dict(zip(RUNS, carry_out(["run", str(library)], lines), strict=True))
    failed = {name: result for name, result in ended.items() if result[0] != 0}
    assert not failed
    apart = {name: output for name, (_, output) in ended.items() if "replica by replica" in output}
    assert not apart


@pytest.mark.parametrize(
    "words", [f"{SMALL} strategy=derpp training.epochs=4", f"{SMALL} strategy=ewc replicas=2", RUNS["lstms"]]
)
def test_a_run_that_was_cut_on_a_second_device_ends_as_the_whole_one(library, tmp_path, words):
    whole, cut = (f"{words} output={tmp_path / name}" for name in ("whole", "cut"))
    lines = [f"train {whole}", f"cut train {cut}", f"train {cut} resume=auto"]
    codes = [code for code, _ in carry_out(["run", str(library)], lines)]
    assert codes == [0, 128 + 15, 0]
    found, wanted = accuracies(tmp_path / "cut"), accuracies(tmp_path / "whole")
    assert found.keys() == wanted.keys()
    for seed, matrix in wanted.items():
        np.testing.assert_array_equal(found[seed], matrix)


def test_the_second_device_refuses_what_a_gpu_refuses(library):
    words = [sys.executable, str(PROGRAM), "check", str(library)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
