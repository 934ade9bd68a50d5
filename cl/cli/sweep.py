"""Sweeps: Hydra's sweepers and launchers call `job` once for every combination."""

import contextlib
import functools
import itertools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cl.apart import apart, useful
from cl.build import Config
from cl.cli.compose import hydra_session, mistakes, plain, quoted, search_path
from cl.errors import ConfigError, LetheError

if TYPE_CHECKING:
    from cl.replica import Outcome

JOBS = "jobs.jsonl"  # one line a finished job, in the sweep's folder


def sweep(words: Sequence[str]) -> list[tuple[Path, str, str]]:
    """Carry out a sweep and return (run folder, status, message) of every replica of every job.

    Args:
        words: overrides; values separated by commas give one job each.

    Raises:
        ConfigError: a word is not understood, or no job could be started at all.
    """
    chosen = any(w.startswith("hydra/launcher=") for w in words)
    # One program for many seeds pays on a GPU, one process a core on a CPU.
    best = "population" if any(w.startswith("device=cuda") for w in words) else "cores"
    launcher = [] if chosen else [f"hydra/launcher={best}"]
    logging = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    # Jobs of a cluster are stopped and started again: they go on where they were.
    cluster = any(w in ("hydra/launcher=slurm", "hydra/launcher=ray_cluster") for w in words)
    overrides = [*search_path(words), *launcher, *logging, *(["resume=auto"] if cluster else []), *words]
    with hydra_session() as hydra, mistakes(words):
        composed = hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN)
        folder = own(Path(composed.hydra.sweep.dir).absolute())
        trouble = ""
        # Ray starts its workers elsewhere; the paths on the command line are seen from here.
        task = functools.partial(job, at=os.getcwd()) if "ray" in composed.hydra.launcher else job
        try:
            placed = [*overrides, f"hydra.sweep.dir={quoted(str(folder))}"]
            hydra.multirun("config", task, placed, with_log_configuration=False)
        except Exception as error:
            if not (folder / JOBS).exists():  # nothing was started
                raise
            trouble = f"{type(error).__name__}: {error}; the same command with resume=auto does what is left"
    if not (folder / JOBS).exists():
        shutil.rmtree(folder)  # made by `own` for this sweep; Hydra has left its overrides there
        raise ConfigError(f"Expected overrides that give one job or more, got {list(words)}")
    lines = [json.loads(line) for line in (folder / JOBS).read_text().splitlines()]
    if all(line["status"] == "refused" for line in lines):
        raise ConfigError(lines[0]["message"])
    ended = [(Path(line["path"]), line["status"].replace("refused", "failed"), line["message"]) for line in lines]
    return [*ended, *([(folder, "failed", " ".join(trouble.split()))] if trouble else [])]


def own(folder: Path) -> Path:
    """Make a folder that no other sweep has: two may start in the same second, and a clock may be set back."""
    for name in itertools.chain([folder.name], (f"{folder.name}-{i}" for i in itertools.count(1))):
        with contextlib.suppress(FileExistsError):
            folder.with_name(name).mkdir(parents=True)
            return folder.with_name(name)
    raise AssertionError("there is always another number")


def configuration(composed: DictConfig) -> Config:
    """Return the plain configuration of the present job."""
    hydra = HydraConfig.get()
    config = plain(composed, hydra.runtime.choices)
    if config["threads"] is None:
        config["threads"] = threads_per_job(hydra.launcher)
    return config


def job(
    composed: DictConfig, carry_out: "Callable[[Config], list[Outcome]] | None" = None, at: str | None = None
) -> float:
    """Carry out one job of a sweep; returns the final average accuracy, NaN for a job that failed.

    A job that fails, or whose process is killed, does not end the sweep: the sweep's folder says what became of it.

    Args:
        composed: the job's configuration.
        carry_out: what runs it; default `cl.run.run`, in a process of its own in a worker of a sweep.
        at: folder in which the command was called, where the worker is in another.
    """
    if at is not None:
        os.chdir(at)
    import cl.run  # before a fork, so that every job finds it imported

    if os.getcwd() not in sys.path:  # a worker process does not come through the command
        sys.path.append(os.getcwd())
    if carry_out is not None or not useful():
        return _job(composed, carry_out or cl.run.run)
    try:
        return apart(lambda: _job(composed, cl.run.run))
    except LetheError as error:
        hydra = HydraConfig.get()
        _note(hydra, {"path": " ".join(hydra.overrides.task), "status": "failed", "message": str(error)})
        return float("nan")


def _job(composed: DictConfig, carry_out: "Callable[[Config], list[Outcome]]") -> float:
    from cl.run import average

    hydra = HydraConfig.get()
    words = " ".join(hydra.overrides.task)
    try:
        outcomes = carry_out(configuration(composed))
    except LetheError as error:
        _note(hydra, {"path": words, "status": "refused", "message": str(error)})
        return float("nan")
    except Exception as error:  # a defect in one job, of ours or of a user's class, does not end the others
        (Path(hydra.sweep.dir) / f"job-{hydra.job.num}.txt").write_text(traceback.format_exc())
        message = f"{type(error).__name__}: {error} (traceback in {hydra.sweep.dir})"
        _note(hydra, {"path": words, "status": "failed", "message": message})
        return float("nan")
    for outcome in outcomes:
        _note(hydra, {"path": str(outcome.path), "status": outcome.status, "message": outcome.message})
    return average(outcomes)


def _note(hydra: Any, line: dict[str, str]) -> None:
    with (Path(hydra.sweep.dir) / JOBS).open("a") as file:
        file.write(json.dumps(line) + "\n")


def threads_per_job(launcher: Any) -> int | None:
    """Return the cores divided by the jobs that run side by side; None where jobs run one after another."""
    jobs = launcher.get("n_jobs")
    if jobs is None:
        own: int | None = launcher.get("cpus_per_task")
        return own
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (cores if jobs < 0 else jobs))
