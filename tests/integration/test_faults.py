"""What may go wrong around a run: no space, no permission, no memory, a clock that jumps, files that are damaged."""

import io
import json
import os
import resource
import shutil
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from cl import checkpoint, ledger
from cl.cli.commands.runs import age
from cl.cli.main import main
from cl.engine import Engine
from cl.errors import DataError
from cl.folder import RunFolder
from cl.live import read as read_live
from cl.report.terminal import show
from cl.results import Results

SMALL = [
    "stream=split_digits",
    "stream.samples_per_task=60",
    "stream.test_samples=20",
    "learner.hidden=[16]",
    "training.epochs=4",
    "training.batch_size=10",
    "threads=1",
    "measures=none",
    "tracker=files",
]


def train(folder, *words):
    return main(["train", *SMALL, f"output={folder}", *words])


def the_run(folder):
    (found,) = folder.glob("*/*/config.yaml")
    return found.parent


def same(one, two):
    a, b = (Results.load(the_run(folder)) for folder in (one, two))
    np.testing.assert_array_equal(a.accuracy, b.accuracy)
    np.testing.assert_array_equal(a.train_loss, b.train_loss)
    states = [checkpoint.read(the_run(f) / checkpoint.NEWEST)["strategy"] for f in (one, two)]
    assert all(t.equal(states[1][name]) for name, t in states[0].items())


def one_line(capsys, *texts):
    """The command said one line that begins with error, and no traceback."""
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    assert all(text in lines[0] for text in texts), lines


@pytest.fixture
def whole(tmp_path, capsys):
    """An undisturbed run."""
    assert train(tmp_path / "whole") == 0
    capsys.readouterr()
    return tmp_path / "whole"


@pytest.fixture
def mounted(tmp_path):
    """Mounts small file systems in memory: mounted(options) -> folder."""
    made = []

    def mount(options):
        place = tmp_path / f"mount{len(made)}"
        place.mkdir()
        if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place]).returncode:
            pytest.skip("needs the right to mount a file system")
        made.append(place)
        return place

    yield mount
    for place in made:
        subprocess.run(["umount", place], check=True)


def after_row(monkeypatch, row, act):
    """Do something once, when a run has measured row `row`."""
    record, acted = Engine.record_row, []

    def recorded(engine, k, *rest):
        record(engine, k, *rest)
        if k == row and not acted:
            acted.append(act())

    monkeypatch.setattr(Engine, "record_row", recorded)


@pytest.mark.filterwarnings("ignore:tracker Files stopped")
def test_full_disk_loses_nothing(mounted, monkeypatch, capsys, caplog, whole):
    place = mounted("size=600k")
    filler = place / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass

    after_row(monkeypatch, 3, fill)
    assert train(place) == 2
    one_line(capsys, "No space left on device", "resume=auto")
    assert "no checkpoint of" in caplog.text
    saved = checkpoint.read(the_run(place) / checkpoint.NEWEST)
    assert saved["task"] == 2  # the last one that could be written
    assert [e.state for e in ledger.runs(place)] == ["cut"]
    filler.unlink()
    assert train(place, "resume=auto") == 0
    same(whole, place)


@pytest.mark.filterwarnings("ignore:tracker Files stopped")
def test_limited_file_size_loses_nothing(tmp_path, monkeypatch, capsys, caplog, whole):
    """As a quota, and without being root: no file may grow beyond 2 KB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    after_row(monkeypatch, 3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1])))
    try:
        code = train(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    one_line(capsys, "File too large")
    assert "no checkpoint of" in caplog.text
    assert train(tmp_path / "run", "resume=auto") == 0
    same(whole, tmp_path / "run")


def test_no_space_at_the_beginning(mounted, capsys):
    place = mounted("size=8k")
    (place / "filler").write_bytes(b"x" * 8192)
    assert train(place) == 2
    one_line(capsys, "No space left on device")


def test_read_only_folder(mounted, capsys):
    place = mounted("size=2m")
    assert train(place) == 0
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    capsys.readouterr()
    for words in (["train", *SMALL, f"output={place}", "seed=1"], ["report", str(the_run(place))]):
        assert main(words) == 2
        one_line(capsys, "Read-only file system")
    assert main(["train", "--resume", str(the_run(place))]) == 0  # it is complete: nothing is to be written
    capsys.readouterr()
    assert main(["runs", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "complete"
    assert main(["compare", str(place)]) == 0


def test_folder_below_a_file(tmp_path, capsys):
    assert train(tmp_path / "runs") == 0
    (tmp_path / "file").touch()
    capsys.readouterr()
    for words in (["train", *SMALL, f"output={tmp_path / 'file' / 'x'}"], ["report", str(tmp_path / "runs"), "--out"]):
        assert main([*words, str(tmp_path / "file" / "x")] if words[-1] == "--out" else words) == 2
        one_line(capsys, "Not a directory")


def test_folder_without_permission(tmp_path, capsys):
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    assert train(tmp_path / "runs") == 2
    one_line(capsys, "Permission denied")


class Clock:
    """A clock that is set forward and back by hours at every look."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return 1.7e9 + (-1) ** self.calls * 3600 * self.calls


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, whole, capsys):
    saves = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: saves.append(1) or save(*a))
    assert train(tmp_path / "steady", "checkpoint.minutes=30") == 0
    expected = len(saves)
    monkeypatch.setattr(time, "time", Clock())
    assert train(tmp_path / "jumps", "checkpoint.minutes=30") == 0
    assert len(saves) == 2 * expected
    same(whole, tmp_path / "jumps")
    assert train(tmp_path / "jumps") == 0  # the folder is there already: what lies in it is moved away
    assert train(tmp_path / "jumps") == 0
    assert len(list((tmp_path / "jumps").glob("*/.replaced/*"))) == 2
    capsys.readouterr()
    assert main(["runs", str(tmp_path / "jumps")]) == 0
    assert "1 runs" in capsys.readouterr().out
    live = read_live(the_run(tmp_path / "jumps"))
    assert live.seconds >= 0
    live.status = "running"
    shown = io.StringIO()
    Console(file=shown, width=120).print(show(live, 80, now=live.last - 7200))
    assert "left" in shown.getvalue()
    assert "-" not in shown.getvalue().splitlines()[0].partition(": ")[2]  # no negative time
    assert age(-5.0) == "0 s"


def test_what_lies_in_a_folder_is_moved_away_within_one_second(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda fmt, *rest: "2026-01-01_00-00-00")
    folder = RunFolder(tmp_path / "run")
    for text in ("a", "b"):
        folder.write("results.json", text)
        folder.clear()
    folder.close()
    assert sorted(p.read_text() for p in tmp_path.glob(".replaced/*/results.json")) == ["a", "b"]


def test_lock_of_a_dead_process_or_of_the_future_holds_nobody_up(tmp_path, capsys):
    assert train(tmp_path) == 0
    lock = the_run(tmp_path) / ".lock"
    lock.write_text("1")
    os.utime(lock, (4e9, 4e9))
    status = the_run(tmp_path) / "status.json"
    status.write_text(json.dumps({"status": "running", "pid": 1, "host": "elsewhere"}))
    assert [e.state for e in ledger.runs(tmp_path)] == ["cut"]
    assert train(tmp_path, "resume=auto") == 0
    assert [e.state for e in ledger.runs(tmp_path)] == ["complete"]


def test_somebody_who_looks_keeps_nobody_from_writing(tmp_path):
    """`lethe runs` takes the lock for an instant."""
    import threading

    import filelock

    (tmp_path / "run").mkdir()
    looker = filelock.FileLock(tmp_path / "run" / ".lock", thread_local=False)
    looker.acquire()
    threading.Timer(0.2, looker.release).start()
    RunFolder(tmp_path / "run").close()


@pytest.mark.parametrize("name", ["results.npz", "results.json", "status.json", "checkpoint.pt"])
@pytest.mark.parametrize("cut", [True, False])
def test_damaged_files_of_a_complete_run_are_noticed(tmp_path, capsys, caplog, whole, name, cut):
    shutil.copytree(whole, tmp_path / "run")
    path = the_run(tmp_path / "run") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content[: len(content) // 2] if cut else content)
    assert train(tmp_path / "run", "resume=auto") == 0
    if name.startswith("results"):
        assert "truncated or changed" in caplog.text
    Results.load(the_run(tmp_path / "run"))
    if name != "checkpoint.pt":  # of a complete run it is not read
        same(whole, tmp_path / "run")


def test_damaged_results_and_checkpoint_are_measured_anew(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    for name in ("results.npz", "checkpoint.pt"):
        path = the_run(tmp_path / "run") / name
        path.write_bytes(path.read_bytes()[:100])
    assert train(tmp_path / "run", "resume=auto") == 0
    same(whole, tmp_path / "run")


@pytest.mark.parametrize("text", ["", "a: [", "seed: 0", "[1, 2]", "seed: !!python/object/apply:os.getpid []"])
def test_resume_of_a_damaged_configuration_says_so(tmp_path, capsys, text):
    (tmp_path / "config.yaml").write_text(text)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    one_line(capsys, "config.yaml", "whole configuration")


def test_a_run_folder_can_be_moved(tmp_path, monkeypatch, capsys, whole):
    """Cut, copied elsewhere (as to another machine), and gone on with there."""

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        after_row(patch, 2, stop)
        assert train(tmp_path / "here") == 130
    there = tmp_path / "there" / "group" / "renamed"
    shutil.copytree(the_run(tmp_path / "here"), there)
    shutil.rmtree(tmp_path / "here")
    assert yaml.safe_load((there / "config.yaml").read_text())["output"] == str(tmp_path / "here")
    assert main(["train", "--resume", str(there)]) == 0
    assert not (tmp_path / "here").exists()
    same(whole, tmp_path / "there")


def test_half_lines_of_progress_hide_nothing(tmp_path):
    from cl.trackers.files import read_events

    assert train(tmp_path) == 0
    path = the_run(tmp_path) / "progress.jsonl"
    before = len(read_events(path.parent))
    path.write_text(path.read_text()[:-9])  # the disk was full
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (path.parent / "status.json").write_text('{"status": "running"}')
        assert train(tmp_path, "resume=auto") == 0
    events = read_events(path.parent)
    assert [e["event"] for e in events].count("start") == 2
    assert len(events) == before - 1 + 2  # the half line is gone, a start and a finish came


def test_folders_with_any_name(tmp_path, monkeypatch, capsys):
    here = tmp_path / "it's (a), b=c [d] {e}"
    (here / "conf" / "strategy").mkdir(parents=True)
    (here / "conf" / "strategy" / "mine.yaml").write_text("_target_: strategies.naive.Naive\n")
    monkeypatch.chdir(here)
    assert main(["train", "-m", *SMALL, "hydra.launcher.n_jobs=1", "strategy=mine", "seed=0,1"]) == 0
    assert sorted(e.seed for e in ledger.runs(Path("runs"))) == [0, 1]


def test_data_swapped_between_a_cut_and_its_resume_are_refused(tmp_path, monkeypatch, capsys):
    def files(root, seed):
        for split in ("train", "t10k"):
            for kind, array in (("images-idx3", pixels(seed)), ("labels-idx1", np.arange(40, dtype=np.uint8) % 10)):
                path = root / "MNIST" / "raw" / f"{split}-{kind}-ubyte"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
                path.write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())

    def pixels(seed):
        return np.random.default_rng(seed).integers(0, 256, (40, 28, 28)).astype(np.uint8)

    def stop():
        raise KeyboardInterrupt

    small = ["learner.hidden=[8]", "training.epochs=1", "training.batch_size=4"]
    plain = ["threads=1", "tracker=none", "measures=none"]
    words = ["train", "stream=split_mnist", *small, *plain, f"data.root={tmp_path}", f"output={tmp_path / 'runs'}"]
    files(tmp_path, 0)
    with monkeypatch.context() as patch:
        after_row(patch, 2, stop)
        assert main(words) == 130
    capsys.readouterr()
    files(tmp_path, 1)
    assert main([*words, "resume=auto"]) == 2
    one_line(capsys, "stream (saved ", "resume=never")
    files(tmp_path, 0)
    assert main([*words, "resume=auto"]) == 0


def test_what_failed_is_repeated_only_when_asked(tmp_path, monkeypatch, capsys, whole):
    with monkeypatch.context() as patch:
        after_row(patch, 2, lambda: torch.empty(10**15))
        assert train(tmp_path / "run") == 1
    capsys.readouterr()
    assert train(tmp_path / "run", "resume=auto") == 1
    one_line(capsys, "out of memory", "resume=retry runs it again")
    assert train(tmp_path / "run", "resume=retry") == 0
    same(whole, tmp_path / "run")
    capsys.readouterr()
    for resume in ("auto", "retry"):
        assert train(tmp_path / "run", f"resume={resume}") == 0
        assert "complete before, not run again" in capsys.readouterr().out


def test_an_archive_that_lost_an_array_is_noticed(tmp_path):
    """A change in a zip's directory passes its own checksums."""
    accuracy = np.zeros((1, 3, 2))
    Results(accuracy, accuracy, [0], train_loss=np.ones((1, 5), np.float32)).save(tmp_path)
    np.savez_compressed(tmp_path / "results.npz", accuracy=accuracy, loss=accuracy)
    with pytest.raises(DataError, match=r"results\.npz does not match its checksum"):
        Results.load(tmp_path)
