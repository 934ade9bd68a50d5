"""W&B: what an offline file holds, what a server receives, and what happens when the server goes away."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb_server import Server

from cl.errors import ConfigError
from cl.metrics.base import measure, per_replica
from cl.results import Results
from cl.testing import TinyStream
from cl.testing.tiny import engine
from cl.trackers.base import RunFacts
from cl.trackers.wandb import Wandb, choose_mode
from strategies.naive import Naive


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path) -> Iterator[None]:
    """No key, no server, nothing written outside the test's folder; a client that reads the environment anew."""
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / "wandb-home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    found = Server()
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    yield found
    found.stop()


def run(folder: Path, tracker: Wandb, status: str = "complete", seed: int = 0) -> Results:
    """Train a tiny stream with the tracker on, three tasks of four steps, a curve point every two."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    running = engine(Naive, TinyStream(seed=seed), epochs=2)
    running.every = 2
    running.evaluator.fixed = running.evaluator.full
    running.trackers = [tracker]
    info = running.stream.info
    tracker.start(RunFacts(f"tiny-seed{seed}", "sweep", folder, {"strategy": {"strength": 0.5}}, info, ("a", "b")))
    running.run()
    tracker.finish(running.results(), status)
    return running.results()


def records(path: Path) -> Iterator[Any]:
    """Read an offline file: a LevelDB log of blocks of 32 KiB after a header of 7 bytes; records are protobuf."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def offline_file(folder: Path) -> Path:
    wandb.teardown()  # writes what is still on its way
    files = list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    return files[0]


def flat(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *above, name = item.nested_key or [item.key]
        place = found
        for key in above:
            place = place.setdefault(key, {})
        place[name] = json.loads(item.value_json)
    return found


def check_history(history: list[dict[str, Any]], results: Results) -> None:
    """Every number that the run measured is there, at its place on its axis, and no other."""
    rows = [line for line in history if "tasks_learned" in line]
    assert [line["tasks_learned"] for line in rows] == [0, 1, 2, 3]
    assert [line["step"] for line in rows] == [0, *np.cumsum(results.task_steps)]
    for k, line in enumerate(rows):
        for j in range(3):
            assert line[f"accuracy/task_{j + 1}"] == results.accuracy[0, k, j]
            assert line[f"loss/task_{j + 1}"] == results.loss[0, k, j]
            if j < k:
                assert line[f"drop/task_{j + 1}"] == results.accuracy[0, j + 1, j] - results.accuracy[0, k, j]
            else:
                assert f"drop/task_{j + 1}" not in line
    points = [line for line in history if "curve/task_1" in line]
    assert [line["step"] for line in points] == results.curve_step.tolist()
    for n, line in enumerate(points):
        seen = {int(key[-1]) - 1: v for key, v in line.items() if key.startswith("curve/")}
        expected = results.curve_accuracy[0, n]
        assert seen == {j: v for j, v in enumerate(expected) if np.isfinite(v)}
    losses = [line for line in history if "train/loss" in line]
    assert losses[-1]["step"] == sum(results.task_steps)
    assert [line["step"] for line in losses] == sorted(line["step"] for line in losses)


def check_summary(summary: dict[str, Any], results: Results) -> None:
    found = {key.split("/")[1]: value for key, value in summary.items() if key.startswith("measures/")}
    expected = {name: float(per_replica(v).mean()) for name, v in measure(results).items()}
    assert found == {name: pytest.approx(v) for name, v in expected.items() if np.isfinite(v)}
    assert {"average_accuracy", "forgetting", "stability_gap"} <= set(found)
    assert summary["costs/samples"] == results.costs["samples"]


def test_offline_file_holds_everything(tmp_path, capsys):
    results = run(tmp_path / "run", Wandb())  # auto: there is no key
    found: dict[str, list[Any]] = {}
    for record in records(offline_file(tmp_path / "run")):
        kind = record.WhichOneof("record_type")
        found.setdefault(kind, []).append(getattr(record, kind))

    started = found["run"][0]
    assert (started.project, started.run_group, started.display_name) == ("lethe", "sweep", "tiny-seed0")
    assert list(started.tags) == ["a", "b"]
    assert started.notes == f"run folder: {tmp_path / 'run'}"
    config = flat(started.config.update)
    assert config["strategy"] == {"strength": 0.5}
    assert config["run_folder"] == str(tmp_path / "run")

    axes = {metric.glob_name: metric.step_metric for metric in found["metric"] if metric.glob_name}
    assert axes == dict.fromkeys(("train/*", "accuracy/*", "loss/*", "curve/*"), "step") | dict.fromkeys(
        ("drop/*", "seen/*"), "tasks_learned"
    )
    history = [flat(h.item) for h in found["history"]]
    check_history(history, results)
    last = history[-1]
    assert last["tables/accuracy_matrix"]["nrows"] == 12
    picture = last.pop("pictures/accuracy_matrix")
    assert picture["_type"] == "image-file"
    assert picture["width"] > 200
    charts = {key: table for key, table in last.items() if key.startswith("charts/")}
    assert {key.split("/")[1].removesuffix("_table") for key in charts} == {
        "accuracy_matrix",
        "drop_by_task",
        "forgetting_curves",
    }
    panels: dict[str, Any] = {}
    for change in found["config"]:
        panels |= flat(change.update).get("_wandb", {}).get("visualize", {})
    matrix = panels["charts/accuracy_matrix"]["panel_config"]
    assert matrix["panelDefId"] == "wandb/confusion_matrix/v1"
    assert set(matrix["fieldSettings"].values()) == {"after task", "on task", "accuracy"}
    summary: dict[str, Any] = {}
    for change in found["summary"]:
        summary |= flat(change.update)
    check_summary(summary, results)
    assert summary["status"] == "complete"

    (artifact,) = (a for a in found["artifact"] if a.type == "results")
    assert {e.path for e in artifact.manifest.contents} == {"results.npz", "results.json", "config.yaml"}
    assert found["exit"][0].exit_code == 0
    said = capsys.readouterr().err
    assert f"wandb sync {offline_file(tmp_path / 'run').parent}" in said


def test_chart_tables_hold_the_matrix_and_the_curves(tmp_path):
    results = run(tmp_path / "run", Wandb())
    tables = {}
    for path in offline_file(tmp_path / "run").parent.rglob("*.table.json"):
        table = json.loads(path.read_text())
        tables[tuple(table["columns"])] = table["data"]
    matrix = tables["after_task", "task", "accuracy"]
    assert matrix == [[k, j + 1, results.accuracy[0, k, j]] for k in range(4) for j in range(3)]
    heat = tables["after task", "on task", "accuracy"]
    assert heat == [[str(k), str(j + 1), results.accuracy[0, k, j]] for k in range(4) for j in range(3)]
    lines = tables["step", "lineKey", "lineVal"]
    assert lines == [[k, f"task {j + 1}", results.accuracy[0, k, j]] for j in range(3) for k in range(4)]
    lost = tables["task", "drop"]
    drops = np.diagonal(results.accuracy[0, 1:]) - results.accuracy[0, -1]
    assert lost == [[f"task {j + 1}", pytest.approx(drops[j])] for j in range(3)]


def test_online_run_reaches_the_server(tmp_path, server, capsys):
    results = run(tmp_path / "run", Wandb())  # auto: there is a key
    ((ident, received),) = server.runs.items()
    check_history(received["history"], results)
    check_summary(received["summary"], results)
    assert received["exitcode"] == 0
    assert (received["name"], received["group"], received["tags"]) == ("tiny-seed0", "sweep", ["a", "b"])
    assert (tmp_path / "run" / "wandb" / "run_id").read_text() == ident
    assert f"/runs/{ident}" in capsys.readouterr().err
    assert {"name": f"results-{ident}", "type": "results"} in server.artifacts
    uploaded = {Path(path).name for path in server.files if path.startswith(f"/artifacts/results-{ident}/")}
    assert {"results.npz", "results.json", "config.yaml"} <= uploaded


def test_a_resumed_run_goes_on_under_its_id(tmp_path, server):
    run(tmp_path / "run", Wandb(artifact=False), "interrupted")
    run(tmp_path / "run", Wandb(artifact=False))
    assert len(server.runs) == 1


def test_two_runs_at_once_in_one_process_do_not_mix(tmp_path, server):
    """As the replicas of a population."""
    trackers = [Wandb(artifact=False), Wandb(artifact=False)]
    info = TinyStream().info
    for seed, tracker in enumerate(trackers):
        (tmp_path / str(seed)).mkdir()
        tracker.start(RunFacts(f"seed{seed}", "population", tmp_path / str(seed), {}, info))
    for seed, tracker in enumerate(trackers):
        tracker.row(0, 0, np.full(3, seed / 10), np.ones(3))
    for tracker in trackers:
        tracker.finish(Results(np.full((1, 4, 3), np.nan), np.full((1, 4, 3), np.nan), [0]), "failed")
    seen = {r["name"]: r["history"][0]["accuracy/task_1"] for r in server.runs.values()}
    assert seen == {"seed0": 0.0, "seed1": 0.1}
    assert {r["exitcode"] for r in server.runs.values()} == {1}


def test_an_offline_run_can_be_uploaded_with_the_command_that_was_printed(tmp_path, server, capsys):
    results = run(tmp_path / "run", Wandb(mode="offline", artifact=False))
    assert server.runs == {}
    command = capsys.readouterr().err.strip().rpartition(": ")[2].split()
    program = Path(sys.executable).with_name("wandb")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (received,) = server.runs.values()
    check_history(received["history"], results)


def test_no_server_at_the_start_means_offline(tmp_path, server, capsys):
    server.stop()
    results = run(tmp_path / "run", Wandb(mode="online", timeout=3))
    said = capsys.readouterr().err
    assert "W&B cannot be reached, the run goes on offline" in said
    assert "wandb sync" in said
    history = [flat(r.history.item) for r in records(offline_file(tmp_path / "run")) if r.HasField("history")]
    check_history(history, results)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["dies", "hangs", "fails"])
def test_a_server_in_trouble_in_the_middle_holds_nothing_up(tmp_path, server, trouble):
    """In a process of its own, whose end (where the client waits for its uploads) belongs to the test."""
    script = f"""
import sys, warnings
import numpy as np
from pathlib import Path
from cl.results import Results
from cl.testing import TinyStream
from cl.trackers.base import RunFacts
from cl.trackers.guard import Guarded
from cl.trackers.wandb import Wandb
tracker = Guarded(Wandb(timeout=5))
tracker.start(RunFacts("dies", "g", Path({str(tmp_path)!r}), {{}}, TinyStream().info))
print("started", flush=True)
sys.stdin.readline()
for step in range(200):
    tracker.progress(0, step, 200, 0.5)
print("trained", flush=True)
tracker.finish(Results(np.full((1, 4, 3), 0.5), np.ones((1, 4, 3)), [0]), "complete")
print("finished", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    if trouble == "dies":
        server.stop()
    elif trouble == "hangs":
        server.open.clear()  # for ever: who waits for an answer does not come to an end
    else:
        server.broken = True
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stdout.readline() == "trained\n"
    assert process.stdout.readline() == "finished\n"
    assert process.wait(timeout=120) == 0
    server.open.set()
    files = list(tmp_path.glob("wandb/run-*/*.wandb"))
    losses = [r for r in records(files[0]) if r.HasField("history") and "train/loss" in flat(r.history.item)]
    assert len(losses) == 200  # nothing is lost: it can be uploaded later


def test_off_does_nothing(tmp_path):
    run(tmp_path / "run", Wandb(mode="off"))
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_diverged_run_is_marked_failed(tmp_path):
    run(tmp_path / "run", Wandb(artifact=False), "failed")
    (end,) = [r.exit for r in records(offline_file(tmp_path / "run")) if r.HasField("exit")]
    assert end.exit_code == 1


@pytest.mark.parametrize(
    ("surrounding", "mode", "chosen"),
    [
        ({}, "auto", "offline"),
        ({"WANDB_API_KEY": "x" * 40}, "auto", "online"),
        ({"WANDB_API_KEY": "x" * 40}, "offline", "offline"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "disabled"}, "auto", "off"),
        ({"WANDB_MODE": "offline"}, "auto", "offline"),
        ({"WANDB_MODE": "offline"}, "online", "online"),
    ],
)
def test_mode(surrounding, mode, chosen, monkeypatch):
    for name, value in surrounding.items():
        monkeypatch.setenv(name, value)
    assert choose_mode(mode) == chosen


def test_a_key_in_the_netrc_file_counts(monkeypatch, tmp_path):
    path = tmp_path / ".netrc"
    path.write_text("machine wandb.example login user password x\n")
    path.chmod(0o600)
    assert choose_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert choose_mode("auto") == "online"


@pytest.mark.parametrize("wrong", [{"mode": "onlin"}, {"timeout": 0.0}, {"project": ""}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"tracker\.wandb\.{next(iter(wrong))}"):
        Wandb(**wrong)
