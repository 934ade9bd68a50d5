"""What did not work, and what a reader should doubt: failed and unfinished runs, repeated seeds, unequal data."""

from collections.abc import Sequence
from html import escape

import numpy as np

from cl.groups import Group
from cl.metrics.base import tasks_learned
from cl.runs import Run


def notes(groups: Sequence[Group], runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (what, why) of everything that is wrong or in doubt."""
    found = []
    kept = {id(run) for g in groups for run in g.runs}
    by_run = {id(run): g for g in groups for run in (*g.runs, *g.others)}
    for run in runs:
        group = by_run[id(run)]
        what = f"{group.label}, seed {run.seed}, {group.stream}"
        if run.status != "complete":
            why = [run.message.rstrip(".")] if run.message else []
            if run.results is not None:
                done = int(tasks_learned(run.results.accuracy)[0])
                why.append(f"It had finished {done} task{'s' if done != 1 else ''}")
            found.append((f"{what}: {run.status}", "".join(f"{line}. " for line in why) + f"({run.folder.name})"))
        elif run.damage:
            found.append((f"{what}: damaged", f"{run.damage}. What else there is of it counts. ({run.folder.name})"))
        elif id(run) not in kept:
            found.append((f"{what}: repeated", f"a later run of the same seed counts instead ({run.folder.name})"))
        elif run.results is not None and not np.isfinite(run.results.accuracy).all():
            found.append((f"{what}: incomplete matrix", f"some accuracies are missing ({run.folder.name})"))
    return found + _unequal(groups)


def _unequal(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return a note for each stream and seed where two strategies did not see the same data."""
    prints: dict[tuple[str, int], dict[str, list[str]]] = {}
    for g in groups:
        for run in g.runs:
            if run.fingerprint:
                prints.setdefault((g.stream, run.seed), {}).setdefault(run.fingerprint, []).append(g.label)
    return [
        (
            f"seed {seed}, {stream}: different data",
            "the fingerprints of the stream differ: " + " | ".join(map(", ".join, who.values())),
        )
        for (stream, seed), who in prints.items()
        if len(who) > 1
    ]


def section(groups: Sequence[Group], runs: Sequence[Run]) -> str:
    """Return the section as HTML; it is there also when nothing is wrong."""
    found = notes(groups, runs)
    complete = sum(run.status == "complete" and not run.damage for run in runs)
    summary = f"<p>{complete} of {len(runs)} runs are complete."
    if not found:
        return f'<section id="failed"><h2>What failed</h2>{summary} Nothing failed.</p></section>'
    items = "".join(f"<li><b>{escape(what)}</b> {escape(why)}</li>" for what, why in found)
    told = f"{summary} Failed and repeated runs enter no mean.</p>"
    return f'<section id="failed"><h2>What failed</h2>{told}<ul class="failed">{items}</ul></section>'
