"""Hydra's joblib launcher, which keeps of a finished job only what a sweeper reads.

Hydra's own keeps the two configurations of every job to the end, 0.17 MB a job.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher


class CoresLauncher(JoblibLauncher):
    """Carries out jobs side by side in worker processes; takes the arguments of `joblib.Parallel`."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry out all jobs of a batch."""
        from hydra_plugins.hydra_joblib_launcher._core import process_joblib_cfg
        from joblib import Parallel, delayed

        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        options = {**self.joblib, "backend": "loky"}
        process_joblib_cfg(options)
        state = Singleton.get_state()
        found: list[JobReturn] = Parallel(**options)(
            delayed(carry_out)(initial_job_idx + i, list(o), self.hydra_context, self.config, self.task_function, state)
            for i, o in enumerate(job_overrides)
        )
        return found


def carry_out(*arguments: Any) -> JobReturn:
    """Carry out one job in a worker and return it without its configurations."""
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    ended = execute_job(*arguments)
    ended.cfg = ended.hydra_cfg = None
    return ended
