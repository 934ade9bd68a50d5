"""Classes of a user's own that err: one line that names the method, the rule and what was found, and exit code 2."""

import pytest

from cl.cli.main import main

HEAD = """
import torch
from cl.strategy import Strategy
from cl.learners.base import Learner
"""
# What stands in the class, and what the line says.
MISTAKES = {
    "loss that is None": ("def loss(self, batch): return None", "Own.loss to return a tensor of shape (), got None"),
    "loss of each sample": (
        "def loss(self, batch): return self.per_sample(self.logits(batch.x, batch.task), batch)",
        "Own.loss to return a tensor of shape (), got a tensor of shape (128,)",
    ),
    "loss that is a number": ("def loss(self, batch): return 1.0", "Own.loss to return a tensor of shape (), got 1.0"),
    "three results": (
        "def loss(self, batch): return super().loss(batch), {}, 3",
        "Own.loss to return a tensor of shape (), got tuple",
    ),
    "penalty that is None": ("def penalty(self): pass", "Own.penalty to return a tensor of shape (), got None"),
    "gradients that are None": (
        "def gradients(self, grads, batch, aux): pass",
        "Own.gradients to return a dict from parameter names to tensors, got None",
    ),
    "gradients that lack some": ("def gradients(self, grads, batch, aux): return {}", "for 'learner.blocks"),
    "gradients of another shape": (
        "def gradients(self, grads, batch, aux): return {k: v.sum() for k, v in grads.items()}",
        "got a tensor of shape ()",
    ),
    "scores that are None": ("def predict(self, x, task=None): pass", "Own.predict to return a tensor of"),
    "labels": (
        "def predict(self, x, task=None): return super().predict(x, task).argmax(1)",
        "rows of 10 outputs, got a tensor of shape (",
    ),
    "twice the outputs": (
        "def predict(self, x, task=None): return torch.cat([super().predict(x, task)] * 2, 1)",
        "rows of 10 outputs, got a tensor of shape (",
    ),
    "nan": (
        "def predict(self, x, task=None): return super().predict(x, task) * float('nan')",
        "Own.predict to return numbers, got nan on task 1, 0 tasks learned",
    ),
    "a loss without gradient": (
        "def loss(self, batch): return super().loss(batch).detach()",
        "Own.loss to return a loss that depends on the trainable parameters, got one without a gradient",
    ),
    "a constructor that stops at itself": (
        "def __init__(self, learner, info): self.rate = 0.1",
        "Own.__init__ to call super().__init__ before anything else, got no call",
    ),
    "no data": (
        "def training_data(self, stream, k): pass",
        "Own.training_data to return a cl.streams.data.TrainingData",
    ),
    "a step without a loss": (
        "vectorizable = 'own step'\n    def step(self, batch, update): update(self, batch)",
        "Own.step to return a tensor of shape (), got None",
    ),
    "other arguments": ("def end_task(self): pass", "Own.end_task to take (self, task), got end_task(self)"),
    "no method": ("end_task = 3", "Own.end_task to be a method, got 3"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user's folder; yields a function that writes a class's body and its yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "conf" / "strategy").mkdir(parents=True)

    def write(body: str, name: str) -> str:
        module = f"own_{abs(hash(name))}"
        (tmp_path / f"{module}.py").write_text(f"{HEAD}\nclass Own(Strategy):\n    {body}\n")
        (tmp_path / "conf" / "strategy" / "own.yaml").write_text(f"_target_: {module}.Own\n")
        return "strategy=own"

    return write


def lethe(capsys, *words: str) -> tuple[int, list[str]]:
    code = main(["train", "stream=split_digits", "training.epochs=1", "tracker=none", *words])
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("replicas", [1, 4])
def test_a_mistake_in_a_hook_is_one_line(name, replicas, here, capsys):
    """Also where replicas are trained as one program: what cannot be stacked runs alone, and says what is wrong."""
    body, said = MISTAKES[name]
    code, told = lethe(capsys, here(body, f"{name} {replicas}"), f"replicas={replicas}")
    assert code != 0
    assert any(said in line for line in told), told
    assert not any("Traceback" in line for line in told), told


@pytest.mark.parametrize(
    ("text", "said"),
    [("def x(:", "SyntaxError"), ("import sys; sys.exit(3)", "SystemExit: 3"), ("raise RuntimeError('no')", "no")],
)
def test_a_module_that_cannot_be_imported_is_one_line(text, said, here, tmp_path, capsys):
    name = f"broken_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    here("pass", "broken")
    (tmp_path / "conf" / "strategy" / "own.yaml").write_text(f"_target_: {name}.Own\n")
    code, told = lethe(capsys, "strategy=own")
    assert (code, len(told)) == (2, 1)
    assert said in told[0]


def test_a_name_close_to_a_hook_is_warned_of(here, caplog, capsys):
    lethe(capsys, here("def end_tasks(self, task): pass\n    def helper(self): pass", "misspelt"))
    said = [r.getMessage() for r in caplog.records if "no hook" in r.getMessage()]
    assert said == ["Own.end_tasks is no hook of a strategy (did you mean end_task?)"]


STATEFUL = """def __init__(self, learner, info):
        super().__init__(learner, info)
        self.old, self.{rest} = None, 0
    def end_task(self, task):
        self.old = [p.detach().clone() for p in self.learner.parameters()]
        self.{rest} += 1"""


def test_state_that_no_checkpoint_holds_is_warned_of(here, caplog, capsys):
    lethe(capsys, here(STATEFUL.format(rest="count"), "stateful"))
    said = [r.getMessage() for r in caplog.records if "checkpoint holds" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("Own changes old, count, which no checkpoint holds")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("[]", "self.kept.append(3)"),
        ("{}", "self.kept['a'] = torch.ones(2)"),
        ("torch.zeros(3)", "self.kept.add_(1)"),
        ("__import__('numpy').zeros(3)", "self.kept[0] = 1"),
        ("__import__('collections').deque()", "self.kept.append('x')"),
        ("{1}", "self.kept.add(2)"),
    ],
)
def test_every_plain_kind_of_state_is_seen(first, then, here, caplog, capsys):
    body = f"def __init__(self, learner, info):\n        super().__init__(learner, info)\n        self.kept = {first}"
    lethe(capsys, here(f"{body}\n    def end_task(self, task): {then}", first))
    assert [r for r in caplog.records if "Own changes kept, which no checkpoint holds" in r.getMessage()]


def test_what_cannot_be_compared_is_left_alone(here, caplog, capsys):
    """A loader is not run through, and objects that stay are not called changed."""
    body = """def __init__(self, learner, info):
        super().__init__(learner, info)
        self.loader = torch.utils.data.DataLoader(self)
    def __len__(self): return 3
    def __getitem__(self, i): raise AssertionError"""
    code, told = lethe(capsys, here(body, "loader"))
    assert (code, told) == (0, [])
    assert not [r for r in caplog.records if "checkpoint holds" in r.getMessage()]


def test_state_that_is_said_to_be_rebuilt_is_not(here, caplog, capsys):
    lethe(capsys, here("rebuilt = ('old', 'count')\n    " + STATEFUL.format(rest="count"), "rebuilt"))
    assert not [r for r in caplog.records if "checkpoint holds" in r.getMessage()]


def test_a_finished_run_of_another_version_of_the_class_is_warned_of(here, tmp_path, caplog, capsys):
    word = here("pass", "versions")
    lethe(capsys, word, "resume=auto")
    lethe(capsys, word, "resume=auto")
    assert not [r for r in caplog.records if "another version" in r.getMessage()]
    (file,) = tmp_path.glob("own_*.py")
    file.write_text(file.read_text() + "\n# another version\n")
    lethe(capsys, word, "resume=auto")
    assert [r for r in caplog.records if "another version of your classes" in r.getMessage()]


def test_a_yaml_with_the_name_of_a_shipped_one_is_refused(here, tmp_path, capsys):
    here("pass", "taken")
    (tmp_path / "conf" / "strategy" / "ewc.yaml").write_text("_target_: own.Own\n")
    code, told = lethe(capsys, "strategy=ewc")
    assert code == 2
    assert str(tmp_path / "conf" / "strategy" / "ewc.yaml") in told[0]
    assert "under a name of its own" in told[0]


def test_lists_show_the_user_s_own(here, capsys):
    here("pass", "listed")
    assert main(["list", "strategies"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["own", "(conf/strategy/own.yaml)"]


def test_dropout_that_ships_is_not_taken_for_lost_state(here, caplog, capsys):
    code, told = lethe(capsys, here("pass", "dropout"), "learner.dropout=0.5", "learner.input_dropout=0.2")
    assert (code, told) == (0, [])
    assert not [r for r in caplog.records if "checkpoint holds" in r.getMessage()]


def test_runs_of_different_versions_of_a_class_are_told_by_compare(here, tmp_path, capsys):
    word = here("pass", "compared")
    lethe(capsys, word, "seed=0", "group=versions", f"output={tmp_path}")
    assert main(["compare", str(tmp_path / "versions")]) == 0
    assert "different versions" not in capsys.readouterr().out
    (file,) = tmp_path.glob("own_*.py")
    file.write_text(file.read_text() + "\n# another version\n")
    lethe(capsys, word, "seed=1", "group=versions", f"output={tmp_path}")
    assert main(["compare", str(tmp_path / "versions")]) == 0
    assert "Made by different versions of your classes: own" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("group", ["learner", "stream"])
def test_a_part_of_one_s_own_that_does_not_fit_is_one_line(group, here, tmp_path, capsys):
    """Before a folder is made."""
    here("pass", "parts")
    (tmp_path / "parts.py").write_text(
        "from cl.learners.mlp import MLP\nfrom cl.streams import TaskStream\n"
        "class Short(MLP):\n    def forward(self, x, gates=None): return super().forward(x, gates)[:, :3]\n"
        "class Nameless(TaskStream):\n    def fingerprint(self): return None\n"
    )
    folder = tmp_path / "conf" / group
    folder.mkdir(parents=True)
    fields = "defaults: [split_digits]\n" if group == "stream" else ""
    name = {"learner": "Short", "stream": "Nameless"}[group]
    (folder / "own_part.yaml").write_text(f"{fields}_target_: parts.{name}\n")
    code, told = lethe(capsys, f"{group}=own_part", f"output={tmp_path / 'none'}")
    assert (code, len(told)) == (2, 1)
    said = {"learner": "Short to return logits (2, 10) of two samples, got (2, 3)", "stream": "Nameless.fingerprint"}
    assert said[group] in told[0]
    assert not (tmp_path / "none").exists()
