"""Hydra's joblib launcher, which tells how far a sweep is and keeps of a finished job only what a sweeper reads.

Hydra's own keeps the two configurations of every job to the end, 0.17 MB a job.
"""

import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

from cl.apart import end_with_parent
from cl.workers import Workers, counting


class CoresLauncher(JoblibLauncher):
    """Carries out jobs side by side in worker processes; takes the arguments of `joblib.Parallel`."""

    @cached_property
    def alone(self) -> Workers:
        """The one worker of a sweep without jobs side by side; sweepers that search launch again and again."""
        return Workers(1)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry out all jobs of a batch."""
        from hydra_plugins.hydra_joblib_launcher._core import process_joblib_cfg
        from joblib import Parallel, delayed, effective_n_jobs

        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        options = {**self.joblib, "backend": "loky", "return_as": "generator_unordered"}
        process_joblib_cfg(options)
        state, shared = Singleton.get_state(), (self.hydra_context, self.config, self.task_function)
        jobs = [
            partial(carry_out, os.getpid(), i, initial_job_idx + i, list(o), *shared, state)
            for i, o in enumerate(job_overrides)
        ]
        ended: dict[int, JobReturn] = {}
        with counting("job", len(jobs), bar=False) as tick:  # the jobs print, too
            if effective_n_jobs(options["n_jobs"]) == 1:  # joblib would carry them out here, where one's death ends all
                found = self.alone.map(lambda job: job(), jobs)
            else:
                found = Parallel(**options)(delayed(job)() for job in jobs)
            for i, returned in found:
                ended[i] = returned
                tick()
        return [ended[i] for i in range(len(jobs))]


def carry_out(launcher: int, i: int, *arguments: Any) -> tuple[int, JobReturn]:
    """Carry out job i in a worker, which ends with process `launcher`; return i and the job without configurations."""
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    end_with_parent(launcher)
    ended = execute_job(*arguments)
    ended.cfg = ended.hydra_cfg = None
    return i, ended
