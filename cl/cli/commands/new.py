"""Write a new strategy that already passes every check: its class, its yaml and its test."""

import argparse
import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from cl.cli.places import conf_folder
from cl.errors import ConfigError, expect

TEMPLATES = Path(__file__).parents[1] / "templates"


def main(argv: list[str]) -> int:
    """Write the three files and say what to do next."""
    parser = argparse.ArgumentParser(prog="lethe new", description=__doc__)
    parser.add_argument("kind", choices=["strategy"])
    parser.add_argument("name", help="name of the strategy, e.g. my_method: lower case, digits and _")
    parser.add_argument("--folder", type=Path, help="folder (package) of the class; default: here, or strategies/")
    given = parser.parse_args(argv)
    for path in write_strategy(given.name, given.folder, Path.cwd()):
        print(f"wrote {path}")
    print(f"next: lethe train strategy={given.name}")
    return 0


def write_strategy(name: str, folder: Path | None, here: Path) -> list[Path]:
    """Write class, yaml and test of a strategy; returns their paths relative to `here`.

    Args:
        name: name of the strategy and of its module.
        folder: where the class goes, inside `here`; None takes `here` itself, or ``strategies`` in this source tree.
        here: where the command was called.

    Raises:
        ConfigError: the name is taken or no identifier, the folder lies elsewhere, or a file is already there.
    """
    expect(re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None, "name", "lower-case letters, digits and _", name)
    expect(not keyword.iskeyword(name), "name", "no word of Python's own", name)
    taken = importlib.util.find_spec(name)
    theirs = taken is not None and not Path(taken.origin or "/").resolve().is_relative_to(here.resolve())
    expect(not theirs, "name", "not of a module that Python can import already", name)
    ours = conf_folder() == here / "conf"
    if not ours:
        expect(not (conf_folder() / "strategy" / f"{name}.yaml").exists(), "name", "not of a strategy that ships", name)
    place = (here / (folder if folder is not None else "strategies" if ours else ".")).resolve()
    if not place.is_relative_to(here.resolve()):
        raise ConfigError(f"Expected `--folder` inside the present directory, got {str(folder)!r}")
    package = place.relative_to(here.resolve()).parts
    importable = all(part.isidentifier() for part in package)
    expect(importable, "--folder", "made of names that Python can import", str(folder))
    known = importlib.util.find_spec(package[0]) if package else None
    elsewhere = known is not None and known.origin is not None and not Path(known.origin).resolve().is_relative_to(here)
    expect(not elsewhere, "--folder", "no package that Python finds elsewhere", str(folder))
    words = {
        "name": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "module": ".".join([*package, name]),
    }
    files = {
        place / f"{name}.py": "strategy.py.txt",
        here / "conf" / "strategy" / f"{name}.yaml": "strategy.yaml.txt",
        here / "tests" / ("unit" if ours else "") / f"test_{name}.py": "test_strategy.py.txt",
    }
    for path in files:
        expect(not path.exists(), "name", "one whose files do not exist yet", str(path))
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template((TEMPLATES / template).read_text()).substitute(words))
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in files]
