"""Runs the jobs of a sweep as populations: jobs that differ only in seeds and numbers become one program.

Run folders, trackers and return values are as if each job had run alone, so that every sweeper works unchanged.
"""

import contextlib
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from cl.errors import LetheError, TrainingError

Config = dict[str, Any]
Ended = Any  # what became of a job: a list of outcomes, or the exception that it raised
# What replicas of a population may each have for themselves: seeds, and what nothing is computed with.
OWN = ("seed", "replicas", "output", "name", "group", "tags", "tracker", "choices")


class PopulationLauncher(Launcher):
    """Groups jobs and carries out each group as one population.

    Args:
        n_jobs: groups side by side, in processes; groups are split to fill them; -1 = as many as cores; None = one
            a GPU where jobs run on any GPU (``device=cuda``, or ``auto`` with one present), else 1. Several processes
            take the GPUs of the machine in turn.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry out all jobs of a batch, then report each to Hydra as its own.

        Raises:
            TypeError: the program is another than `lethe train`.
        """
        from cl.cli.sweep import configuration, job
        from cl.run import run

        if self.task_function is not job:
            raise TypeError("Expected `hydra/launcher=population` in a sweep of lethe, got another program")
        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        composed = [self._compose(list(o), initial_job_idx + i) for i, o in enumerate(job_overrides)]
        configs: dict[int, Config] = {}
        ended: dict[int, Ended] = {}
        for i, config in enumerate(composed):
            try:
                HydraConfig.instance().set_config(config)
                configs[i] = configuration(config)
            except Exception as error:  # told by `job` below, as if it had run alone
                ended[i] = error
        gpus = 0 if any(config.get("device") not in ("auto", "cuda") for config in configs.values()) else _gpus()
        processes = self._processes(gpus)
        again = repeated(configs)
        parts = split(groups({i: config for i, config in configs.items() if i not in again}), processes)
        outcomes_of = _side_by_side([[configs[i] for i in p] for p in parts], processes, gpus)
        for part, outcomes in zip(parts, outcomes_of, strict=True):
            ended.update(zip(part, outcomes, strict=True))
        returns = []
        for i, config in enumerate(composed):
            returns.append(
                run_job(
                    hydra_context=self.context,
                    task_function=functools.partial(
                        job, carry_out=run if i in again else functools.partial(_ended, ended[i])
                    ),
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
        return returns

    def _compose(self, overrides: list[str], number: int) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _processes(self, gpus: int) -> int:
        from joblib import cpu_count

        if self.n_jobs is None:
            return max(1, gpus)
        return cpu_count() if self.n_jobs < 0 else self.n_jobs


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _side_by_side(parts: list[list[Config]], processes: int, gpus: int) -> list[list[Ended]]:
    """Carry out parts in processes; part i uses GPU i modulo their number."""
    if processes == 1 or len(parts) <= 1:
        return [carry_out(part) for part in parts]
    from joblib import Parallel, delayed

    found: list[list[Ended]] = Parallel(n_jobs=processes, backend="loky")(
        delayed(_in_worker)(part, i % gpus if gpus else None, os.getpid()) for i, part in enumerate(parts)
    )
    return found


def _in_worker(part: list[Config], gpu: int | None, launcher: int) -> list[Ended]:
    """Carry out a part in a worker; if its process is killed, that is what became of its jobs, and of no others."""
    from cl.apart import end_with_parent, settled

    end_with_parent(launcher)
    try:
        return settled(lambda: carry_out(part, gpu))
    except TrainingError as error:
        return [error] * len(part)


def repeated(configs: dict[int, Config]) -> set[int]:
    """Return the jobs of which an earlier one has a run folder; they run after it, and alone."""
    from cl.replica import folders_of

    taken: set[Path] = set()
    found = set()
    for i, config in configs.items():
        with contextlib.suppress(LetheError):  # told when it is carried out
            folders = set(folders_of(config))
            if folders & taken:
                found.add(i)
            taken |= folders
    return found


def groups(configs: dict[int, Config]) -> list[list[int]]:
    """Return the jobs that can be one population: they differ in numbers of strategy and optimiser and in `OWN`."""
    found: dict[str, list[int]] = {}
    for i, config in configs.items():
        kind = {k: v for k, v in config.items() if k not in OWN}
        kind |= {group: _without_numbers(config[group]) for group in ("strategy", "optimizer")}
        found.setdefault(json.dumps(kind, sort_keys=True, default=str), []).append(i)
    return list(found.values())


def _without_numbers(node: Any) -> Any:
    """Return a configuration node without the numbers that a population can vary; in lists it can vary none."""
    if isinstance(node, dict):
        return {k: _without_numbers(v) for k, v in node.items()}
    return "a number" if isinstance(node, float) else node


def split(parts: list[list[int]], processes: int) -> list[list[int]]:
    """Cut groups so that `processes` have something to do, as evenly as it goes."""
    each = max(1, processes // max(1, len(parts)))
    return [piece for part in parts for piece in (part[i::each] for i in range(each)) if piece]


def carry_out(configs: list[Config], gpu: int | None = None) -> list[Ended]:
    """Run some jobs as one population; where that fails, one after another, so that each has its own error.

    Args:
        configs: resolved configurations.
        gpu: the GPU that a device without a number stands for in this process, or None.
    """
    if gpu is not None:
        import torch

        torch.cuda.set_device(gpu)
    from cl.run import run, run_together

    try:
        return list(run_together(configs))
    except Exception as error:
        if len(configs) == 1:
            return [error]
    ended: list[Ended] = []
    for config in configs:
        try:
            ended.append(run(config))
        except Exception as error:
            ended.append(error)
    return ended


def _ended(what: Ended, config: Config) -> Any:
    """Give what became of a job, in place of carrying it out."""
    if isinstance(what, Exception):
        raise what
    return what
