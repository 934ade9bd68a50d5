"""From the words on a command line to a resolved configuration, by Hydra; mistakes become one line each."""

import contextlib
import difflib
import gc
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl.build import Config, warn_once
from cl.cli.places import conf_folder
from cl.errors import ConfigError, LetheError, closest, expect, nearest
from cl.settings import GROUPS, SETTINGS, SEVERAL

ALIKE = 0.8  # likeness of a key of the user's own and one of ours, see `difflib`: sed and seed have .86


@contextlib.contextmanager
def hydra_session() -> Iterator[Any]:
    """Start Hydra on our configurations inside the block and give its entry object (for sweeps)."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), job_name="lethe", version_base="1.3"):
        yield GlobalHydra.instance().hydra


def search_path(words: Sequence[str]) -> list[str]:
    """Return overrides that let Hydra also find the user's own configurations, in ``conf`` of the present folder."""
    own = Path.cwd() / "conf"
    if not own.is_dir() or own.samefile(conf_folder()) or any(w.startswith("hydra.searchpath=") for w in words):
        return []
    return [f"hydra.searchpath=[{quoted(f'file://{own}')}]"]


def quoted(text: str) -> str:
    """Return a value in Hydra's quotes: a folder's name may hold what its grammar gives a meaning."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def compose(words: Sequence[str], to_run: bool = True) -> Config:
    """Return the resolved configuration of a run: plain types, with `choices` (what was chosen in every group).

    Args:
        words: overrides in Hydra's grammar.
        to_run: False for one that is shown alone: numbers stay as typed, which spares the import of torch.

    Raises:
        ConfigError: a word is not understood, or names something that does not exist.
    """
    with hydra_session(), mistakes(words):
        found = hydra_compose("config", [*search_path(words), *words], return_hydra_config=True)
        config = plain(found, found.hydra.runtime.choices)
    return settle(config) if to_run else config


def settle(config: Config) -> Config:
    """Return a plain configuration with ``1`` and ``1.0`` alike where a field is a number."""
    if "torch" not in sys.modules:
        _import_torch()
    from cl.assembly import settled

    return settled(config)


def _import_torch() -> None:
    """Import torch without the garbage collector, which would walk through it again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("cl.assembly")
        gc.freeze()  # what is there by now stays; later collections need not look at it
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def mistakes(words: Sequence[str]) -> Iterator[None]:
    """Turn whatever Hydra raises while it composes (also plain ValueErrors, KeyErrors...) into one line."""
    for word in words:
        group, _, value = word.partition("=")
        if value.replace(" ", "") == "{}":  # Hydra adds no field to the choice that stands there, in silence
            expect(group not in GROUPS, group, f"in {options(group)}", word)
    try:
        yield
    except LetheError:
        raise
    except Exception as error:
        raise ConfigError(explain(error, words)) from error


def plain(config: DictConfig, choices: Mapping[str, Any]) -> Config:
    """Resolve a composed configuration into plain types and add `choices`."""
    for group, name in choices.items():
        own, shipped = (folder / group / f"{name}.yaml" for folder in (Path.cwd() / "conf", conf_folder()))
        if own.is_file() and shipped.is_file() and not own.samefile(shipped):
            raise ConfigError(
                f"Expected {own} under a name of its own, got that of a choice of `{group}` that is shipped"
            )
    copy = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
    resolved = OmegaConf.to_container(copy, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    known = [*GROUPS, *SETTINGS]
    written = OmegaConf.to_yaml(copy)
    for key in (k for k in map(str, resolved) if k not in known):
        if near := _meant(key, known, resolved):
            raise ConfigError(f"Expected `{key}` to be a key of the configuration, got +{key} (did you mean {near}?)")
        if not re.search(rf"\$\{{{re.escape(key)}\b", written):  # else it is there for ${...}
            warn_once(f"+{key} has no effect: no key of the configuration, and nothing refers to ${{{key}}}")
    for key in (k for k in SETTINGS if k not in resolved):
        raise ConfigError(f"Expected `{key}` to be given, got ~{key}")
    for group in (g for g in GROUPS if g not in resolved):  # group=[]
        expect(group in SEVERAL, group, "one choice", [])
        resolved[group] = {}
    named = {group: choices[group] for group in GROUPS if isinstance(choices.get(group), str)}
    for group in ("strategy", "learner", "stream"):
        target = resolved[group].get("_target_")
        if target != _target_of(group, named[group]):  # the user's own class under another yaml's name
            named[group] = str(target).rpartition(".")[2]
    return {**{str(k): v for k, v in resolved.items()}, "choices": named}


def _meant(key: str, known: Sequence[str], config: Mapping[Any, Any]) -> str | None:
    """Return the key that somebody may have meant who typed one that does not exist, or None."""
    if near := difflib.get_close_matches(key.lower(), known, 1, ALIKE):
        return near[0]
    blocks = {group: config[group] for group in GROUPS if isinstance(config.get(group), Mapping)}
    places = [f"{group}.{field}" for group, fields in blocks.items() for field in fields]
    return next((place for place in places if place.partition(".")[2] == key.lower()), None)


def _target_of(group: str, choice: str) -> Any:
    for folder in (conf_folder(), Path.cwd() / "conf"):
        path = folder / group / f"{choice}.yaml"
        if path.is_file():
            content = yaml.safe_load(path.read_text()) or {}
            inherited = [n for n in content.get("defaults", ()) if isinstance(n, str) and n != "_self_"]
            return content.get("_target_") or (_target_of(group, inherited[0]) if inherited else None)
    return None


def explain(error: Exception, words: Sequence[str]) -> str:
    """Return one line that names the word, the rule and, where there is one, the nearest name that exists."""
    text = " ".join(str(error).split())
    plugin = re.search(r"Could not (?:find|load) '?hydra/(launcher|sweeper)/(submitit_slurm|ray|optuna)\b", text)
    if plugin:
        extra = {"submitit_slurm": "slurm", "ray": "ray", "optuna": "tune"}[plugin.group(2)]
        return f"Expected the {plugin.group(1)}'s package to be installed; pip install 'lethe[{extra}]'"
    missing = re.search(r"Could not (?:find|load) '((?:hydra/)?[\w-]+)/([^']+)'", text)
    if missing:
        group, name = missing.groups()
        known = options(group)
        return f"Expected `{group}` in {known}, got {name!r}{nearest(name, known)}"
    if "Config group override must be" in text:  # group=null, group=3
        kinds = (*("null", "true", "false", "nan", "inf"), *"0123456789-+.")
        for word in (w for w in words if w.partition("=")[2].lower().startswith(kinds)):
            group = word.partition("=")[0].lstrip("+").partition("@")[0]
            if known := options(group):
                return f"Expected `{group}` in {known}, got {word!r}"
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        name = key.group(1)
        known = keys_beside(name, words)
        word = _word(name, words)
        if name in known:  # a block of fields, given with other fields than its own
            return (
                f"Expected the fields of `{name}` alone, got {word!r}; "
                f"to put another block in its place: '~{name}' '+{word.lstrip('+')}'"
            )
        return f"Expected `{name}` to be a key of the configuration, got {word!r}{_nearest_key(name, known)}"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and not isinstance(error, OmegaConfBaseException):
        return explain(cause, words)
    lists = [m for w in words if (m := re.fullmatch(r"(\w+)=\[(.+)\]", w)) and m[1] in GROUPS]
    for several in (m for m in lists if m[1] not in SEVERAL):
        group, names = several[1], several[2].split(",")
        advice = f"to compare them: -m {group}={several[2]}"
        if group == "strategy":
            parts = " ".join(
                f"strategy@strategy.parts.{n}={c}" for n, c in zip(("first", "second"), names, strict=False)
            )
            advice += f"; to train with two at once: strategy=combined {parts}"
        return f"Expected `{group}` to be one choice, got {several[0]!r}; {advice}"
    known_kind = isinstance(error, HydraException | OmegaConfBaseException)
    return text if known_kind else f"Expected overrides that Hydra can compose, got {list(words)} ({text})"


def _word(name: str, words: Sequence[str]) -> str:
    return next((w for w in words if w.lstrip("+~").startswith(f"{name}=")), name)


def options(group: str) -> list[str]:
    """Return the choices of a group: of its folders, ours and the user's in ``conf``, and those that plug-ins bring."""
    folders = {conf_folder() / group, Path.cwd() / "conf" / group}
    found = {p.stem for f in folders if f.is_dir() for p in f.glob("*.yaml")}
    if GlobalHydra.instance().is_initialized():
        found |= set(GlobalHydra.instance().config_loader().get_group_options(group))
    return sorted(found)


def keys_beside(name: str, words: Sequence[str]) -> list[str]:
    """Return the dotted keys of the configuration near an unknown one."""
    chosen = [w for w in words if w.split("=")[0] in GROUPS]
    try:
        config: Any = OmegaConf.to_container(hydra_compose("config", [*search_path(words), *chosen]))
    except (HydraException, OmegaConfBaseException):
        return []
    return _dotted(config)


def _nearest_key(name: str, known: Sequence[str]) -> str:
    """Return what to say of an unknown key: the nearest of its block, else the block's fields, else the nearest key."""
    block, _, field = name.rpartition(".")
    fields = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == block]
    close = closest(field, fields)
    if close:
        return f" (did you mean {f'{block}.' if block else ''}{close}?)"
    shown = [f for f in fields if not f.startswith("_")]
    if not block or block not in known:
        return nearest(name, known)
    return f" (`{block}` has {', '.join(shown) or 'no fields, as it was chosen'})"


def _dotted(config: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a configuration; elements of a list go by their number."""
    found = []
    for key, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        found += [f"{prefix}{key}", *(_dotted(value, f"{prefix}{key}.") if isinstance(value, dict | list) else [])]
    return found
