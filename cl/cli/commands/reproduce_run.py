"""Run a run folder again from its recorded configuration and report every difference."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from cl.errors import ConfigError

EXACT = ("accuracy", "loss", "train_loss", "curve_accuracy", "task_steps")


def main(argv: list[str]) -> int:
    """Run the command; returns 0 if everything is the same, 1 if not."""
    parser = argparse.ArgumentParser("lethe reproduce-run", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    folder: Path = parser.parse_args(argv).run
    if not (folder / "config.yaml").is_file() or not (folder / "results.npz").is_file():
        raise ConfigError(f"Expected `RUN` a folder with config.yaml and results.npz, got {str(folder)!r}")
    from cl.run import run
    from cl.settings import recorded

    config = recorded(folder)
    with tempfile.TemporaryDirectory() as place:
        again = run({**config, "resume": "never"}, Path(place) / folder.name)[0]
        lines = [*facts(folder, again.path), *numbers(folder, again.path)]
    for line in lines:
        print(line)
    print("different" if any(line.startswith("different") for line in lines) else "identical results")
    return 1 if any(line.startswith("different") for line in lines) else 0


def facts(before: Path, after: Path) -> list[str]:
    """Return what differs around the run: data, versions, device, code (notes), and the stream (a difference)."""
    lines = []
    prints = [
        (f / "fingerprint.txt").read_text().strip() if (f / "fingerprint.txt").is_file() else ""
        for f in (before, after)
    ]
    if prints[0] != prints[1]:
        lines.append(f"different stream: fingerprint was {prints[0] or 'not recorded'}, is {prints[1]}")
    one, two = (_environment(f) for f in (before, after))
    for key in ("lethe", "code", "torch", "python", "platform", "device", "device_name", "threads"):
        if one.get(key) != two.get(key):
            lines.append(f"note: {key} was {one.get(key)}, is {two.get(key)}")
    return lines


def _environment(folder: Path) -> dict[str, Any]:
    path = folder / "environment.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def numbers(before: Path, after: Path) -> list[str]:
    """Return one line for every array of the results that is not equal, with its largest difference."""
    import numpy as np

    from cl.results import Results

    one, two = Results.load(before), Results.load(after)
    lines = []
    if one.costs.get("replicas_together", 1) > 1:
        lines.append(f"note: was one of {one.costs['replicas_together']} replicas trained together; rounding differs")
    for name in EXACT:
        a, b = getattr(one, name), getattr(two, name)
        if a.shape != b.shape:
            lines.append(f"different {name}: shape was {a.shape}, is {b.shape}")
        elif not np.array_equal(a, b, equal_nan=True):
            lines.append(f"different {name}: largest difference {np.nanmax(np.abs(a - b)):.3g}")
    return lines
