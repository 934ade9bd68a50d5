"""Sweeps: Hydra's sweepers and launchers call `job` once for every combination."""

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
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from cl.apart import apart, useful
from cl.build import Config
from cl.cli.compose import hydra_session, mistakes, plain, quoted, search_path, settle
from cl.errors import ConfigError, LetheError, expect

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
    logging = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    # Jobs of a cluster are stopped and started again: they go on where they were.
    cluster = any(w in ("hydra/launcher=slurm", "hydra/launcher=ray_cluster") for w in words)
    chosen = any(w.startswith("hydra/launcher=") for w in words)
    common = [*search_path(words), *logging, *(["resume=auto"] if cluster else []), *words]
    with hydra_session() as hydra, mistakes(words):
        overrides = [*([] if chosen else ["hydra/launcher=cores"]), *common]
        composed = hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN)
        if not chosen and on_gpu(composed.device, words):  # one program for many seeds pays there
            overrides = ["hydra/launcher=population", *common]
            composed = hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN)
        check(composed, words, hydra.config_loader)
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


def on_gpu(device: str, words: Sequence[str]) -> bool:
    """Return True if the jobs of a sweep run on GPUs, without importing torch where the machine has none.

    Args:
        device: the setting, without what is swept.
        words: overrides.
    """
    if device != "auto":
        return device.startswith("cuda")
    if any(w.startswith("device=cuda") for w in words):  # device=cuda:0,cuda:1
        return True
    drivers = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd")
    if not any(Path(d).exists() for d in drivers) and shutil.which("nvidia-smi") is None:
        return False
    from cl.device import find

    return find(device).type == "cuda"


def check(composed: DictConfig, words: Sequence[str], loader: Any) -> None:
    """Refuse a sweep that cannot be carried out, and warn of one that chooses on test data.

    Raises:
        ConfigError: a number of jobs side by side is impossible, or two jobs are the same.
    """
    for part, few, rule in (("launcher", (-1,), "> 0, or -1 for as many as cores"), ("sweeper", (), "> 0")):
        jobs = composed.hydra[part].get("n_jobs")
        possible = jobs is None or jobs in few or (isinstance(jobs, int) and jobs > 0)
        expect(possible, f"hydra.{part}.n_jobs", f"a whole number {rule}", jobs)
    if composed.hydra.sweeper._target_.endswith(".BasicSweeper"):
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
        for override in (o for o in parsed if o.is_discrete_sweep()):
            values = list(override.sweep_string_iterator())
            twice = [v for i, v in enumerate(values) if v in values[:i]]
            expect(not twice, str(override.key_or_group), "different values, one job each", override.input_line)
            if override.key_or_group == "seed" and isinstance(composed.replicas, int):
                seeds, apart = sorted(int(v) for v in values if v.isdigit()), composed.replicas
                near = any(b - a < apart for a, b in itertools.pairwise(seeds))
                rule = f"seeds {apart} apart, as `replicas` takes as many from each"
                expect(not near, "seed", rule, override.input_line)
    elif composed.evaluation.get("split") != "validation":
        print(
            "warning: this sweep chooses by accuracy on test data; evaluation.split=validation, with "
            "stream.validation=0.1, or `lethe tune` does not",
            file=sys.stderr,
        )


def own(folder: Path) -> Path:
    """Make a folder that no other sweep has: two may start in the same second, and a clock may be set back."""
    for name in itertools.chain([folder.name], (f"{folder.name}-{i}" for i in itertools.count(1))):
        try:
            folder.with_name(name).mkdir(parents=True)
        except FileExistsError:
            if not folder.parent.is_dir():  # a file in the place of a folder, for good
                raise
        except FileNotFoundError as error:
            raise ConfigError(f"Expected `output` to be a folder that can be made, got {folder}") from error
        else:
            return folder.with_name(name)
    raise AssertionError("there is always another number")


def configuration(composed: DictConfig) -> Config:
    """Return the plain configuration of the present job."""
    hydra = HydraConfig.get()
    config = settle(plain(composed, hydra.runtime.choices))
    if config["threads"] is None:
        config["threads"] = threads_per_job(hydra.launcher)
    return config


def job(
    composed: DictConfig, carry_out: "Callable[[Config], list[Outcome]] | None" = None, at: str | None = None
) -> float | None:
    """Carry out one job of a sweep; returns the final average accuracy, None (for Optuna: failed) for one that failed.

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
        return None


def _job(composed: DictConfig, carry_out: "Callable[[Config], list[Outcome]]") -> float | None:
    from cl.replica import folders_of
    from cl.run import average

    hydra = HydraConfig.get()
    words = " ".join(hydra.overrides.task)
    try:
        config = configuration(composed)
        if _made(Path(hydra.sweep.dir), folders_of(config)):
            config["resume"] = "auto"
        outcomes = carry_out(config)
    except LetheError as error:
        _note(hydra, {"path": words, "status": "refused", "message": str(error)})
        return None
    except Exception as error:  # a defect in one job, of ours or of a user's class, does not end the others
        (Path(hydra.sweep.dir) / f"job-{hydra.job.num}.txt").write_text(traceback.format_exc())
        message = f"{type(error).__name__}: {error} (traceback in {hydra.sweep.dir})"
        _note(hydra, {"path": words, "status": "failed", "message": message})
        return None
    for outcome in outcomes:
        _note(hydra, {"path": str(outcome.path), "status": outcome.status, "message": outcome.message})
    return average(outcomes)


def _made(sweep: Path, folders: Sequence[Path]) -> bool:
    """Return True if an earlier job of the sweep has all these run folders: what it measured is the answer."""
    if not all(folder.exists() for folder in folders) or not (sweep / JOBS).exists():
        return False
    made = {json.loads(line)["path"] for line in (sweep / JOBS).read_text().splitlines()}
    return all(str(folder) in made for folder in folders)


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
