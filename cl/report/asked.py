"""What was asked: the settings that runs share, those in which they differ, and on what they ran."""

from collections.abc import Sequence
from html import escape
from typing import Any

import yaml

from cl.groups import Group
from cl.report.markup import facts, folded, table
from cl.runs import Run, flatten


def section(groups: Sequence[Group]) -> str:
    """Return the settings as HTML: differences in a table, the rest folded away."""
    flat = [dict(flatten(g.config)) for g in groups]
    keys = list(dict.fromkeys(k for config in flat for k in config))
    differing = [k for k in keys if len({repr(config.get(k, ...)) for config in flat}) > 1]
    shared = {k: flat[0][k] for k in keys if k not in differing}
    rows = [
        [g.label, *(config.get(k) for k in differing), ", ".join(map(str, g.seeds))]
        for g, config in zip(groups, flat, strict=True)
    ]
    what = "Settings that differ"
    differences = f"<h3>{what}</h3>{table(['strategy', *differing, 'seeds'], rows, what)}" if differing else ""
    configs = "".join(
        folded(f"{g.label}, {g.stream}", f"<pre>{escape(yaml.safe_dump(g.config, sort_keys=False))}</pre>")
        for g in groups
    )
    all_share = folded("Settings that all runs share", facts(shared, "Settings that all runs share"))
    whole = folded("Whole configurations", configs)
    return f'<section id="asked"><h2>What was asked</h2>{differences}{all_share}{whole}</section>'


def environments(runs: Sequence[Run]) -> str:
    """Return on what the runs were made, each different environment once."""
    found: dict[str, tuple[dict[str, Any], int]] = {}
    for run in runs:
        values = {k: v for k, v in run.environment.items() if k != "command"}
        key = repr(sorted(values.items(), key=str))
        found[key] = (values, found.get(key, (values, 0))[1] + 1)
    tables = "".join(
        f"<h3>{count} run{'s' if count > 1 else ''}</h3>{facts(values, 'Environment')}"
        for values, count in found.values()
    )
    commands = dict.fromkeys(" ".join(map(str, r.environment.get("command", []))) for r in runs)
    lines = "\n".join(c for c in commands if c)
    told = folded("Commands", f"<pre>{escape(lines)}</pre>") if lines else ""
    return f'<section id="environment"><h2>On what it ran</h2>{tables}{told}</section>'
