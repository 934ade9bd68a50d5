"""Tracker to Weights & Biases: online, offline (nothing leaves the machine) or off."""

import contextlib
import io
import netrc
import os
import shlex
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from cl.errors import expect
from cl.results import Results
from cl.trackers.base import RunFacts
from cl.trackers.board import Array, Board, matrix_rows, summary

if TYPE_CHECKING:
    import wandb as api
    from PIL.Image import Image

MODES = ("auto", "online", "offline", "off")
EXIT = {"complete": 0, "failed": 1, "interrupted": 130}
DESCRIBES = ("config.yaml", "environment.json", "fingerprint.txt")


class Wandb(Board):
    """One W&B run a replica, in the group of its sweep.

    Everything within training is drawn against ``step`` (steps since the beginning of the run), everything measured
    after a task against ``tasks_learned``. A server that cannot be reached costs `timeout` seconds once: the run then
    goes on offline and the command that uploads it later is printed. One that goes away later holds up no training, but
    the end: by the client's own 20 seconds and `timeout`. A resumed run goes on under its id.

    Args:
        project: name of the project.
        entity: user or team, or None for the key's own.
        mode: ``auto`` (environment variable WANDB_MODE if given; else online with a key, offline without), ``online``,
            ``offline`` or ``off``.
        timeout: seconds to wait for the server at the start, and for the rest of the upload at the end, > 0.
        artifact: True uploads results and configuration as an artifact.

    Raises:
        ConfigError: an impossible value.
    """

    def __init__(
        self,
        project: str = "lethe",
        entity: str | None = None,
        mode: str = "auto",
        timeout: float = 30.0,
        artifact: bool = True,
    ) -> None:
        expect(mode in MODES, "tracker.wandb.mode", f"in {list(MODES)}", mode)
        expect(timeout > 0, "tracker.wandb.timeout", "> 0", timeout)
        expect(bool(project), "tracker.wandb.project", "a name", project)
        self.project, self.entity, self.mode, self.timeout, self.artifact = project, entity, mode, timeout, artifact
        self._run: api.Run | None = None
        self._facts: RunFacts | None = None

    def begin(self, facts: RunFacts) -> None:
        """Begin a W&B run and define its axes."""
        self._facts = facts
        mode = choose_mode(self.mode)
        if mode == "off":
            return
        self._run = self._init(facts, mode)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("tasks_learned", hidden=True)
        for within in ("train/*", "accuracy/*", "loss/*", "curve/*"):
            self._run.define_metric(within, step_metric="step")
        for after in ("drop/*", "seen/*"):
            self._run.define_metric(after, step_metric="tasks_learned")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log values."""
        if self._run is not None:
            self._run.log({"step": step, **values})

    def finish(self, results: Results, status: str) -> None:
        """Log tables, charts, all measures and the artifact, and end the W&B run."""
        run, self._run = self._run, None
        if run is None or self._facts is None:
            return
        kept = run.offline
        try:
            run.summary.update({"status": status, **summary(results)})
            run.log(_charts(results))
            if self.artifact:
                self._log_artifact(run, self._facts, results)
        except Exception:  # tables and artifacts ask the server, which may have gone away since
            kept = True
            raise
        finally:
            run.finish(exit_code=EXIT[status])
            if kept:
                _say(f"W&B run kept offline; to upload it: wandb sync {shlex.quote(str(Path(run.dir).parent))}")

    def _init(self, facts: RunFacts, mode: str) -> "api.Run":
        import wandb

        def attempt(mode: Any) -> "api.Run":
            return wandb.init(
                project=self.project,
                entity=self.entity,
                name=facts.name,
                group=facts.group,
                tags=facts.tags,
                notes=f"run folder: {facts.folder}",
                config={**facts.config, "run_folder": str(facts.folder)},
                dir=facts.folder,
                id=_run_id(facts.folder) if mode == "online" else None,
                resume="allow" if mode == "online" else None,
                reinit="create_new",  # never log into a run that an earlier job of this process left open
                mode=mode,
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    init_timeout=self.timeout,
                    finish_timeout=self.timeout,
                    login_timeout=self.timeout,
                ),
            )

        if mode == "offline":
            return attempt("offline")
        try:
            run = attempt("online")
        except (wandb.Error, OSError, TimeoutError) as error:
            reason = " ".join(str(error).split())
            _say(f"W&B cannot be reached, the run goes on offline: {reason}")
            return attempt("offline")
        _say(f"W&B run: {run.url}")
        return run

    @staticmethod
    def _log_artifact(run: "api.Run", facts: RunFacts, results: Results) -> None:
        import wandb

        artifact = wandb.Artifact(f"results-{run.id}", type="results", metadata={"run_folder": str(facts.folder)})
        with tempfile.TemporaryDirectory() as folder:
            results.save(Path(folder))
            for file in sorted(Path(folder).iterdir()):
                artifact.add_file(str(file))
        for name in DESCRIBES:
            if facts.folder is not None and (facts.folder / name).is_file():
                artifact.add_file(str(facts.folder / name))
        run.log_artifact(artifact)


def choose_mode(mode: str) -> str:
    """Return ``online``, ``offline`` or ``off`` for a mode that may be ``auto``."""
    asked = os.environ.get("WANDB_MODE", "")
    if mode != "auto":
        return mode
    if asked:
        return {"disabled": "off", "dryrun": "offline"}.get(asked, asked)
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Return True if a key for the W&B server lies where its own client looks: the environment, or the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    servers = {os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url}
    if "WANDB_BASE_URL" not in os.environ:
        servers.add("https://api.wandb.ai")
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc(os.environ.get("NETRC")).hosts
        return any(urlsplit(server).netloc in found for server in servers)
    return False


def _run_id(folder: Path | None) -> str | None:
    """Return the id under which a run folder is known there; W&B's sweep agent gives its own."""
    if folder is None or "WANDB_RUN_ID" in os.environ:
        return None
    path = folder / "wandb" / "run_id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text()


def _charts(results: Results) -> dict[str, Any]:
    """Return the accuracy matrix as table, heat map and picture, the drop as bars, the forgetting curves as lines."""
    import wandb

    accuracy = results.accuracy[0]
    tasks = [f"task {j + 1}" for j in range(results.n_tasks)]
    table = wandb.Table(columns=["after_task", "task", "accuracy"], data=matrix_rows(accuracy))
    learned = [j for j in range(results.n_tasks) if np.isfinite(accuracy[j + 1]).all()]
    charts: dict[str, Any] = {
        "tables/accuracy_matrix": table,
        "charts/accuracy_matrix": wandb.plot_table(
            "wandb/confusion_matrix/v1",  # every server has this heat map; one of our own would need an account
            wandb.Table(columns=["after task", "on task", "accuracy"], data=_in_order(accuracy)),
            {"Actual": "after task", "Predicted": "on task", "nPredictions": "accuracy"},
            {"title": "Accuracy on each task (column) after each task learned (row)"},
        ),
        "pictures/accuracy_matrix": wandb.Image(_heat_map(accuracy)),
    }
    if not learned:
        return charts
    last = accuracy[learned[-1] + 1]
    lost = np.diagonal(accuracy[1:]) - last
    drops = wandb.Table(columns=["task", "drop"], data=[(tasks[j], float(lost[j])) for j in learned])
    charts["charts/drop_by_task"] = wandb.plot.bar(drops, "task", "drop", title="Accuracy drop by task")
    after = list(range(learned[-1] + 2))
    charts["charts/forgetting_curves"] = wandb.plot.line_series(
        xs=after,
        ys=[accuracy[: len(after), j].tolist() for j in learned],
        keys=[tasks[j] for j in learned],
        title="Accuracy of every task after each task",
        xname="tasks learned",
    )
    return charts


def _in_order(accuracy: Array) -> list[Iterable[str | float]]:
    """Return the rows of an accuracy matrix (K+1, K) with names of tasks that sort as text as the tasks do."""
    width = len(str(accuracy.shape[1]))
    return [[f"{k:0{width}}", f"{j:0{width}}", value] for k, j, value in matrix_rows(accuracy)]


def _heat_map(accuracy: Array) -> "Image":
    """Return the accuracy matrix (K+1, K) as a picture."""
    from PIL import Image

    from cl.report.figure import HeatMap
    from cl.report.paper import draw_heat

    heat = HeatMap(
        name="accuracy_matrix",
        title="Accuracy matrix",
        reading="Row k: accuracy on every task after task k.",
        labels=("accuracy",),
        styles=(0,),
        means=(accuracy,),
        spreads=(np.zeros_like(accuracy),),
    )
    buffer = io.BytesIO()
    draw_heat(heat).savefig(buffer, format="png", dpi=150)
    return Image.open(buffer)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
