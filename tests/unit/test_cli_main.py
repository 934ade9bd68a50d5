"""The dispatcher: what it finds, what it answers, and its exit codes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cl
from cl.cli import main as cli
from cl.errors import ConfigError

ROOT = Path(cl.__file__).parents[1]


def command(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text(f'"""Help of {name}.\n\nMore.\n"""\n{body}\n')


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Commands in a folder of their own: one that works, one for each way to end."""
    command(tmp_path, "works", "def main(argv): print(argv); return len(argv)")
    command(tmp_path, "two_words", "def main(argv): return 0")
    refusal = "from cl.errors import DataError\ndef main(argv): raise DataError('Expected\\n a file')"
    command(tmp_path, "refuses", refusal)
    command(tmp_path, "stopped", "def main(argv): raise KeyboardInterrupt")
    command(tmp_path, "broken", "import not_there")
    monkeypatch.setattr(cli, "COMMANDS", tmp_path)
    monkeypatch.setattr("cl.cli.commands.__path__", [str(tmp_path)])
    real = set(sys.modules)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("cl.cli.commands.") and n not in real]:
        del sys.modules[name]


def test_help_names_every_command_without_importing_it(fake, capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for name in ("works", "two-words", "refuses", "stopped", "broken"):
        assert f"  {name} " in out
        assert f"Help of {name.replace('-', '_')}." in out
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out == out


def test_arguments_and_exit_code_are_the_command_s(fake, capsys):
    assert cli.main(["works", "a=1", "--b"]) == 2
    assert capsys.readouterr().out == "['a=1', '--b']\n"
    assert cli.main(["two-words"]) == 0


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lethe {cl.__version__}\n"


def test_unknown_command_is_one_line_with_the_nearest(fake, capsys):
    assert cli.main(["wroks"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: Expected a command in [")
    assert lines[0].endswith("got 'wroks' (did you mean works?)")


def test_a_user_s_error_is_one_line_and_code_2(fake, capsys):
    assert cli.main(["refuses"]) == 2
    assert capsys.readouterr().err == "error: Expected a file\n"


def test_interrupt_is_130(fake):
    assert cli.main(["stopped"]) == 130


def test_a_fault_of_ours_is_not_hidden(fake):
    with pytest.raises(ModuleNotFoundError):
        cli.main(["broken"])


def test_a_user_s_module_in_the_current_directory_is_found_but_hides_nothing(fake, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.main(["works"]) == 0
    assert sys.path[-1] == str(tmp_path)


def test_every_command_has_a_help_line_and_a_main():
    found = sorted(cli.COMMANDS.glob("[!_]*.py"))
    assert found
    for file in found:
        assert 20 <= len(cli.summary(file)) <= 110, file
        functions = [n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)]
        assert "main" in functions, file


def run(*argv: str, code: str = "") -> subprocess.CompletedProcess:
    script = f"import sys; from cl.cli.main import main; code = main({list(argv)!r}); {code}; sys.exit(code)"
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("argv", [(), ("--help",), ("--version",), ("list",), ("list", "metrics"), ("nothing",)])
def test_answers_without_heavy_imports(argv):
    heavy = {"torch", "hydra", "pandas", "sklearn", "wandb", "matplotlib"}
    done = run(*argv, code=f"print(sorted({heavy!r} & set(sys.modules)))")
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.returncode == (2 if argv == ("nothing",) else 0)


def test_a_configuration_is_shown_without_importing_torch():
    assert run("train", "--cfg", code="print('torch' in sys.modules)").stdout.splitlines()[-1] == "False"


def test_a_closed_pipe_is_quiet():
    """As `lethe list | head -1`: the reader goes away first."""
    script = "import sys, time; from cl.cli.main import main; time.sleep(0.5); sys.exit(main(['list']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ("", ["hook"]),
        ("threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()", ["thread", "hook", "deleted"]),
        ("sys.modules['coverage'] = sys", ["hook", "deleted"]),
    ],
)
def test_what_waits_for_the_end_is_done_and_nothing_is_taken_apart_in_vain(before, last):
    script = f"""
import atexit, sys, threading, time
from cl.cli.main import entry

class Told:
    def __del__(self):
        print("deleted")

kept = Told()
atexit.register(print, "hook")
sys.argv[1:] = ["list", "nothing"]
{before}
entry()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (2, last)
    assert done.stderr.startswith("error: Expected ")


def test_unknown_kind_names_the_known_ones(capsys):
    assert cli.main(["list", "strategyes"]) == 2
    assert "(did you mean strategies?)" in capsys.readouterr().err


def test_lists_every_yaml_of_a_group_with_its_summary(capsys):
    for kind, group in (("strategies", "strategy"), ("strategy", "strategy"), ("trackers", "tracker")):
        assert cli.main(["list", kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        files = sorted((ROOT / "conf" / group).glob("*.yaml"))
        assert [line.split()[0] for line in lines] == [f.stem for f in files]
        for line, file in zip(lines, files, strict=True):
            first = file.read_text().splitlines()[0]
            assert first.startswith("# "), file
            assert line.endswith(first[2:])


def test_one_choice_is_told_with_the_meaning_of_its_fields_also_a_users_own(capsys, tmp_path, monkeypatch):
    assert cli.main(["list", "strategy=ewc"]) == 0
    assert capsys.readouterr().out == (ROOT / "conf/strategy/ewc.yaml").read_text()
    (tmp_path / "conf/strategy").mkdir(parents=True)
    (tmp_path / "conf/strategy/mine.yaml").write_text("# Mine\nstrength: 1.0  # > 0\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list", "strategy=mine"]) == 0
    assert capsys.readouterr().out.endswith("strength: 1.0  # > 0\n")
    assert cli.main(["list", "strategy=ewcc"]) == 2
    assert "got 'ewcc' (did you mean ewc?)" in capsys.readouterr().err
    assert cli.main(["list", "strategies=ewc"]) == 2
    assert "(did you mean strategy?)" in capsys.readouterr().err


def test_without_a_kind_every_group_has_a_heading(capsys):
    assert cli.main(["list"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert {"strategies:", "trackers:", "metrics:"} <= set(headings)


def test_lists_every_metric(capsys):
    from cl.metrics.base import discover

    assert cli.main(["list", "metrics"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(discover())


def test_error_class_survives_for_callers(fake):
    with pytest.raises(ConfigError):
        cli.dispatch(["nope"])


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["bench", "plain", "--threads", "0"], "--threads"),
        (["bench", "plain", "--rounds", "-1"], "--rounds"),
        (["bench", "plain", "--json", "not/there/table.json"], "--json"),
        (["train", "-m", "seed=0,1", "--cfg", "job"], "--cfg"),
    ],
)
def test_impossible_arguments_are_one_line(argv, named, capsys):
    assert cli.main(argv) == 2
    assert capsys.readouterr().err.startswith(f"error: Expected `{named}` ")


def test_hydra_s_way_to_ask_for_the_configuration_is_understood(capsys):
    assert cli.main(["train", "seed=3", "--cfg", "job"]) == 0
    assert "seed: 3\n" in capsys.readouterr().out
