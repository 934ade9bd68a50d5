"""What a run was asked for: its choices, and the settings that differ from what these choices bring."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cl.cli.places import conf_folder
from cl.groups import ASIDE
from cl.runs import flatten
from cl.settings import read_anyhow


def changed(config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Any]:
    """Return dotted key -> value of every setting that differs from the files of conf/ that were chosen.

    What says only how a source reads its samples is left out.

    Args:
        config: resolved configuration of a run.
        choices: group -> name of the file chosen in it; groups without a file of that name are passed over.
    """
    found: dict[str, Any] = {}
    for group, name in choices.items():
        default = _defaults(group, name)
        if default is not None and isinstance(config.get(group), Mapping):
            own, files = (read_anyhow({group: c})[group] for c in (config[group], default))
            found |= _differences(dict(flatten(own)), dict(flatten(files)), f"{group}.")
    top = _defaults("", "config") or {}
    known = {k: v for k, v in top.items() if k not in ASIDE and k in config}
    return found | _differences({k: config[k] for k in known}, known, "")


def _differences(own: Mapping[str, Any], default: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    keys: Iterable[str] = [*own, *(k for k in default if k not in own)]
    return {
        f"{prefix}{k}": own.get(k)
        for k in keys
        if own.get(k) != default.get(k) and "${" not in str(default.get(k)) and not k.endswith("_partial_")
    }


@cache
def _defaults(group: str, name: str) -> dict[str, Any] | None:
    """Return the content of a file of conf/ with the files of its group that it builds on, or None."""
    path: Path = conf_folder() / group / f"{name}.yaml"
    if not path.is_file():
        return None
    content = dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    whole: dict[str, Any] = {}
    for part in content.pop("defaults", []):
        if group and isinstance(part, str) and part != "_self_":
            whole |= _defaults(group, part) or {}
    return whole | content
