"""Show what there is to choose from, one line each, or one choice (strategy=ewc) with the meaning of its fields."""

import argparse
import sys
from pathlib import Path

from cl.cli.places import conf_folder
from cl.errors import ConfigError, nearest

Entries = list[tuple[str, str]]


def main(argv: list[str]) -> int:
    """Print one kind, or all of them under headings, or the fields of one choice."""
    parser = argparse.ArgumentParser(prog="lethe list", description=__doc__)
    kinds = "streams, strategies, learners, metrics, or any folder of conf/; GROUP=NAME for the fields of one choice"
    parser.add_argument("kind", nargs="?", help=kinds)
    kind = parser.parse_args(argv).kind
    groups = config_groups()
    if kind is not None and "=" in kind:
        print(fields(*kind.split("=", 1)), end="")
        return 0
    if kind is None:
        shown = {plural(name): entries(folder) for name, folder in groups.items()} | {"metrics": metrics()}
    elif kind == "metrics":
        shown = {"metrics": metrics()}
    else:
        found = {alias: name for name in groups for alias in (name, plural(name))}
        if kind not in found:
            known = sorted([*map(plural, groups), "metrics"])
            raise ConfigError(f"Expected `kind` in {known}, got {kind!r}{nearest(kind, known)}")
        shown = {plural(found[kind]): entries(groups[found[kind]])}
    show(shown, headings=kind is None)
    return 0


def config_groups() -> dict[str, Path]:
    """Return name -> folder of every config group (the last part of a nested one: ``hydra/launcher`` is launcher)."""
    folders = sorted({file.parent for file in conf_folder().glob("*/**/*.yaml")})
    return {folder.name: folder for folder in folders}


def files(folder: Path) -> dict[str, Path]:
    """Return name -> yaml of the choices of a group, ours and then the user's own in ``conf``.

    One of the user's with the name of one of ours is left out, as it is refused where it is chosen.
    """
    own = Path.cwd() / "conf" / folder.relative_to(conf_folder())
    return {file.stem: file for place in (own, folder) for file in sorted(place.glob("*.yaml"))}


def fields(group: str, name: str) -> str:
    """Return a choice's yaml, ours or the user's own in ``conf``: every field with its value and meaning.

    Raises:
        ConfigError: there is no such group or choice.
    """
    groups = config_groups()
    if group not in groups:
        raise ConfigError(
            f"Expected `kind` GROUP=NAME with GROUP in {sorted(groups)}, got {group!r}{nearest(group, groups)}"
        )
    found = files(groups[group])
    if name not in found:
        raise ConfigError(f"Expected `{group}` in {sorted(found)}, got {name!r}{nearest(name, found)}")
    return found[name].read_text(encoding="utf-8")


def plural(name: str) -> str:
    """Return the plural of a group's name; names that are plural or have none stay.

    >>> [plural(n) for n in ("strategy", "stream", "training", "measures")]
    ['strategies', 'streams', 'training', 'measures']
    """
    if name.endswith(("s", "ing", "reproduce")):
        return name
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


def entries(folder: Path) -> Entries:
    """Return (name, summary) of every choice of a group, see `files`; the summary is the file's first comment."""
    found = files(folder)
    ours = [(name, _first_comment(file)) for name, file in sorted(found.items()) if file.parent == folder]
    own = [(name, file) for name, file in sorted(found.items()) if file.parent != folder]
    return ours + [(name, f"{_first_comment(file)} ({file.relative_to(Path.cwd())})".lstrip()) for name, file in own]


def _first_comment(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        comments = (line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line)
        return next(comments, "")


def metrics() -> Entries:
    """Return (name, what it says and which direction is good) of every metric."""
    from cl.metrics.base import discover

    return [(m.name, f"{m.meaning} ({m.better} is better; {m.source})") for m in discover().values()]


def show(kinds: dict[str, Entries], headings: bool) -> None:
    """Print as tables on a terminal, else as aligned plain lines."""
    if sys.stdout.isatty():
        _show_tables(kinds, headings)
        return
    for title, found in kinds.items():
        if headings:
            print(f"{title}:")
        width = max((len(name) for name, _ in found), default=0)
        for name, text in found:
            print(f"{'  ' if headings else ''}{name:<{width}}  {text}".rstrip())


def _show_tables(kinds: dict[str, Entries], headings: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    for title, found in kinds.items():
        heading = f"[bold]{title}" if headings else None
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        table.show_header = False
        for row in found:
            table.add_row(*row)
        Console().print(table)
