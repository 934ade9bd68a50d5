"""Hydra's joblib launcher, which tells how far a sweep is and keeps of a finished job only what a sweeper reads.

Hydra's own keeps the two configurations of every job to the end, 0.17 MB a job.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

from cl.apart import end_with_parent
from cl.workers import counting, workers


class CoresLauncher(JoblibLauncher):
    """Carries out jobs side by side in worker processes; takes the arguments of `joblib.Parallel`."""

    @cached_property
    def alone(self) -> Executor:
        """The one worker of a sweep without jobs side by side; sweepers that search launch again and again."""
        return workers(1)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry out all jobs of a batch."""
        from hydra_plugins.hydra_joblib_launcher._core import process_joblib_cfg
        from joblib import Parallel, delayed, effective_n_jobs

        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        options = {**self.joblib, "backend": "loky", "return_as": "generator_unordered"}
        process_joblib_cfg(options)
        state = Singleton.get_state()
        jobs = [
            partial(carry_out, initial_job_idx + i, list(o), self.hydra_context, self.config, self.task_function, state)
            for i, o in enumerate(job_overrides)
        ]
        ended: dict[int, JobReturn] = {}
        with counting("job", len(jobs), bar=False) as tick:  # the jobs print, too
            if effective_n_jobs(options["n_jobs"]) == 1:  # joblib would carry them out here, where one's death ends all
                found = self.alone.map(numbered, range(len(jobs)), jobs, [os.getpid()] * len(jobs))
            else:
                found = Parallel(**options)(delayed(numbered)(i, job, os.getpid()) for i, job in enumerate(jobs))
            for i, returned in found:
                ended[i] = returned
                tick()
        return [ended[i] for i in range(len(jobs))]


def numbered(i: int, job: Callable[[], JobReturn], launcher: int) -> tuple[int, JobReturn]:
    """Return a job's number and what it returns: jobs end in any order. The worker ends with process `launcher`."""
    end_with_parent(launcher)
    return i, job()


def carry_out(*arguments: Any) -> JobReturn:
    """Carry out one job in a worker and return it without its configurations."""
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    ended = execute_job(*arguments)
    ended.cfg = ended.hydra_cfg = None
    return ended
