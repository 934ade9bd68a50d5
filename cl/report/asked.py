"""What was asked: the settings that runs share, those in which they differ, and on what they ran."""

from collections.abc import Sequence
from html import escape
from typing import Any

import yaml

from cl.groups import Group
from cl.report.defaults import changed
from cl.report.markup import facts, folded, table, text
from cl.runs import Run, flatten


def section(groups: Sequence[Group]) -> str:
    """Return the settings as HTML: choices and changes in a table, then what differs, the rest folded away."""
    flat = [dict(flatten(g.config)) for g in groups]
    keys = list(dict.fromkeys(k for config in flat for k in config))
    differing = [k for k in keys if len({repr(config.get(k, ...)) for config in flat}) > 1]
    shared = {k: flat[0][k] for k in keys if k not in differing}
    rows = [
        [g.label, *(config.get(k) for k in differing), ", ".join(map(str, g.seeds))]
        for g, config in zip(groups, flat, strict=True)
    ]
    between = "Settings that differ between strategies"
    differences = folded(between, table(["strategy", *differing, "seeds"], rows, between)) if differing else ""
    configs = "".join(
        folded(f"{g.label}, {g.stream}", f"<pre>{escape(yaml.safe_dump(g.config, sort_keys=False))}</pre>")
        for g in groups
    )
    all_share = folded("Settings that all runs share", facts(shared, "Settings that all runs share"))
    whole = folded("Whole configurations", configs)
    asked = table(["strategy", "chosen", "changed from the defaults", "seeds"], map(_asked, groups), "What was asked")
    return f'<section id="asked"><h2>What was asked</h2>{asked}{differences}{all_share}{whole}</section>'


def _asked(g: Group) -> list[object]:
    """Return label, choices, changes and seeds of a group; choices without effect (none, default) are left out."""
    choices = {k: str(v) for k, v in g.choices.items()}
    told = " ".join(f"{k}={v}" for k, v in choices.items() if v not in ("none", "default"))
    changes = " ".join(f"{k}={text(v)}" for k, v in changed(g.config, choices).items())
    return [g.label, told or "-", changes or "nothing", ", ".join(map(str, g.seeds))]


def environments(runs: Sequence[Run]) -> str:
    """Return on what the runs were made, each different environment once."""
    found: dict[str, tuple[dict[str, Any], int]] = {}
    for run in runs:
        values = {k: v for k, v in run.environment.items() if k != "command"}
        key = repr(sorted(values.items(), key=str))
        found[key] = (values, found.get(key, (values, 0))[1] + 1)
    names = dict.fromkeys(name for values, _ in found.values() for name in values)
    rows = [[name, *(values.get(name) for values, _ in found.values())] for name in names]
    heads = ["", *(f"{count} run{'s' if count > 1 else ''}" for _, count in found.values())]
    tables = table(heads, rows, "Environments")
    commands = dict.fromkeys(" ".join(map(str, r.environment.get("command", []))) for r in runs)
    lines = "\n".join(c for c in commands if c)
    told = folded("Commands", f"<pre>{escape(lines)}</pre>") if lines else ""
    return f'<section id="environment"><h2>On what it ran</h2>{tables}{told}</section>'
