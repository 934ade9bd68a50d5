"""Whole runs on split MNIST against Avalanche (pip install avalanche-lib), with equal arithmetic."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cl.bench.options import Options
from cl.bench.runs import process
from cl.bench.table import Row, in_turns
from cl.results import Results

# One program for each method of Avalanche: MLP 784-400-400-10, one head, Adam 1e-3, batch 128, one epoch, all tasks
# evaluated after each.
PROGRAM = """
import sys, time, json, contextlib, io
import torch
name, root, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads); torch.manual_seed(0)
from avalanche.benchmarks.classic import SplitMNIST
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import SimpleMLP
from avalanche.training import EWC, LwF, Naive, Replay, SynapticIntelligence
from avalanche.training.plugins import EvaluationPlugin
stream = SplitMNIST(5, return_task_id=False, fixed_class_order=list(range(10)), dataset_root=root)
model = SimpleMLP(num_classes=10, hidden_size=400, hidden_layers=2, drop_rate=0)
options = dict(
    model=model, optimizer=torch.optim.Adam(model.parameters(), lr=0.001), criterion=torch.nn.CrossEntropyLoss(),
    train_mb_size=128, train_epochs=1, eval_mb_size=1000,
    evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
)
made = dict(
    naive=lambda: Naive(**options), er=lambda: Replay(mem_size=500, **options),
    ewc=lambda: EWC(ewc_lambda=100, **options), lwf=lambda: LwF(alpha=1, temperature=2, **options),
    si=lambda: SynapticIntelligence(si_lambda=1, **options),
)[name]()
started = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    for experience in stream.train_stream:
        made.train(experience)
        found = made.eval(stream.test_stream)
print(json.dumps([time.perf_counter() - started, sum(found.values()) / len(found)]))
"""
CASES = (("naive", 3.0, 6.0), ("ewc", 4.0, 7.0), ("er", 4.0, 7.0), ("lwf", 4.0, 7.0), ("si", 4.0, 7.0))
# Avalanche's EWC takes the gradients of the true labels, its LwF leaves out the factor T^2.
EQUAL = {"ewc": ["strategy.fisher=empirical"], "lwf": ["strategy.squared_temperature=false"]}
WORDS = (
    "stream=split_mnist",
    "stream.scenario=class",
    "learner.head=single",
    "learner.hidden=[400,400]",
    "training.batch_size=128",
    "training.epochs=1",
    "tracker=files",
    "measures=none",
)


def rows(options: Options) -> list[Row]:
    """Measure whole processes, and training plus evaluation inside them; no rows where Avalanche is not installed.

    The environment variable AVALANCHE_PYTHON names an interpreter that has it, where this one has not.
    """
    if options.clock != "wall":
        print("avalanche: left out (measured by --clock wall alone)")
        return []
    python = os.environ.get("AVALANCHE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import avalanche"], capture_output=True, check=False).returncode != 0:
        print("avalanche: left out (pip install avalanche-lib, or set AVALANCHE_PYTHON)")
        return []
    found = []
    for name, whole_bar, inside_bar in CASES:
        inside: dict[str, list[float]] = {"ours": [], "theirs": []}
        final: dict[str, float] = {}

        def ours(name: str = name, inside: dict[str, list[float]] = inside, final: dict[str, float] = final) -> float:
            with tempfile.TemporaryDirectory() as folder:
                words = [*WORDS, f"strategy={name}", *EQUAL.get(name, [])]
                words += [f"data.root={options.root}", f"output={folder}"]
                command = [sys.executable, "-m", "cl.cli.main", "train", *words, f"threads={options.threads}"]
                seconds, _ = process(command)
                results = Results.load(next(Path(folder).glob("*/*/results.npz")).parent)
            phases = ("seconds_train", "seconds_evaluate", "seconds_consolidate")
            inside["ours"].append(sum(float(results.costs[p]) for p in phases))
            final["ours"] = float(results.accuracy[0, -1].mean())
            return seconds

        def theirs(name: str = name, inside: dict[str, list[float]] = inside, final: dict[str, float] = final) -> float:
            seconds, out = process([python, "-W", "ignore", "-c", PROGRAM, name, options.root, str(options.threads)])
            spent, final["theirs"] = json.loads(out.splitlines()[-1])
            inside["theirs"].append(spent)
            return seconds

        seconds, reference = in_turns([ours, theirs], options.rounds, warm=False)
        note = f"accuracy {final['ours']:.3f}, theirs {final['theirs']:.3f}"
        found.append(Row("avalanche", f"{name}, process", "Avalanche", seconds, reference, whole_bar, True, note))
        found.append(
            Row("avalanche", f"{name}, inside", "Avalanche", inside["ours"], inside["theirs"], inside_bar, True)
        )
    return found
