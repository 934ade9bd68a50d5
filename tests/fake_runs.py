"""Run folders with made-up results, for tests of everything that reads runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cl.results import Results


def matrix(k: int, kept: float, seed: int, noise: float = 0.01) -> np.ndarray:
    """Return an accuracy matrix (1, K+1, K): .5 untrained, .95 when learned, then decaying to .5 by factor `kept`."""
    rng = np.random.default_rng(seed)
    accuracy = np.full((k + 1, k), 0.5)
    for row in range(1, k + 1):
        for j in range(row):
            accuracy[row, j] = 0.5 + 0.45 * kept ** (row - 1 - j)
    return np.clip(accuracy + noise * rng.standard_normal(accuracy.shape), 0, 1)[None]


def curve(accuracy: np.ndarray, points: int, steps: int) -> dict[str, Any]:
    """Return curve fields that fall by .2 below the line between two rows and come back."""
    k = accuracy.shape[2]
    place, task, values = [], [], []
    for now in range(k):
        for point in range(1, points + 1):
            part = point / points
            row = np.full(k, np.nan)
            before, after = accuracy[0, now, : now + 1], accuracy[0, now + 1, : now + 1]
            row[: now + 1] = before + part * (after - before)
            row[:now] -= 0.2 * np.sin(np.pi * part)
            place.append(now * steps + round(part * steps))
            task.append(now)
            values.append(row)
    return {
        "curve_step": np.array(place),
        "curve_task": np.array(task),
        "curve_accuracy": np.clip(np.array(values), 0, 1)[None],
    }


def write(
    root: Path,
    strategy: str,
    seed: int,
    *,
    k: int = 3,
    kept: float = 0.8,
    status: str = "complete",
    message: str = "",
    points: int = 0,
    fields: Mapping[str, Any] | None = None,
    top: Mapping[str, Any] | None = None,
    scenario: str = "class",
    name: str = "",
    fingerprint: str = "",
    measures: Mapping[str, Any] | None = None,
    accuracy: np.ndarray | None = None,
    language: bool = False,
    regression: bool = False,
) -> Path:
    """Write one run folder and return it."""
    folder = root / (name or f"split_digits-{scenario}-{strategy}-seed{seed}-{len(list(root.glob('*'))):08x}")
    folder.mkdir(parents=True)
    found = matrix(k, kept, seed) if accuracy is None else accuracy
    steps = 100
    Results(
        accuracy=found,
        loss=1 - found,
        seeds=[seed],
        task_steps=np.full(k, steps),
        train_loss=np.linspace(2, 0.1, k * steps, dtype=np.float32)[None],
        costs={"seconds_train": 2.0 + len(strategy), "samples": 12800 * k, "bytes_memory": 1000 * len(strategy)},
        measures=dict(measures or {}),
        language=language,
        regression=regression,
        **(curve(found, points, steps) if points else {}),
    ).save(folder)
    config = {
        "stream": {
            "_target_": "cl.streams.TaskStream",
            "scenario": scenario,
            "source": {"_target_": "cl.streams.sources.Digits"},
            "construction": {"_target_": "cl.streams.constructions.Split", "n_tasks": k},
        },
        "learner": {"_target_": "cl.learners.mlp.MLP", "hidden": [64]},
        "strategy": {"_target_": f"strategies.{strategy}.{strategy.title()}", **(fields or {})},
        "training": {"epochs": 1},
        "seed": seed,
        "output": str(root),
        **(top or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    facts = {"status": status, "message": message, "started": 1.0, "finished": 2.0}
    (folder / "status.json").write_text(json.dumps(facts))
    (folder / "environment.json").write_text(
        json.dumps({"python": "3.11", "host": "box", "command": ["lethe", "train"]})
    )
    (folder / "fingerprint.txt").write_text((fingerprint or f"{scenario}-{seed}") + "\n")
    return folder
