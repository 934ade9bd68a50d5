"""Measure the speed of training, populations and sweeps as ratios, and print one table.

    lethe bench
    lethe bench plain startup --rounds 5 --json bench.json

options:
  SECTION...          sections to run; default all
  --device DEVICE     auto, cpu, cuda or cuda:N; default auto
  --threads N         CPU threads of everything that is measured; default 1
  --clock CLOCK       wall, or cpu: the process's own time, for a machine that is busy with other things
                      (sweep and avalanche are left out: they measure processes side by side)
  --rounds N          turns of each pair; the median counts; default 3
  --full              also what takes long: 256 replicas on a CPU, 100 tasks
  --json FILE         write the table as json, too
  --root FOLDER       data folder; default LETHE_DATA, else ~/.cache/lethe
"""

import argparse
import ast
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from cl.errors import ConfigError, expect, nearest

SECTIONS = Path(__file__).parents[2] / "bench" / "sections"


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0, also where a bar is missed: the table says so."""
    known = sections()
    lines = [f"  {name:12s} {text}" for name, text in known.items()]
    parser = argparse.ArgumentParser(
        prog="lethe bench",
        description=f"{(__doc__ or '').strip()}\n\nsections:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="lethe bench [SECTION ...] [OPTIONS]",
        add_help=True,
    )
    parser.add_argument("sections", nargs="*", help=argparse.SUPPRESS)
    for name in ("--device", "--json", "--root"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name, default in (("--threads", 1), ("--rounds", 3)):
        parser.add_argument(name, type=int, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_intermixed_args(list(argv))
    for name in asked.sections:
        if name not in known:
            raise ConfigError(f"Expected a section in {list(known)}, got {name!r}{nearest(name, list(known))}")
    expect(asked.threads > 0, "--threads", "> 0", asked.threads)
    expect(asked.rounds > 0, "--rounds", "> 0", asked.rounds)
    if asked.json:
        path = Path(asked.json)
        expect(path.parent.is_dir() and not path.is_dir(), "--json", "a file in a folder that exists", asked.json)
    return run(asked, asked.sections or list(known))


def run(asked: argparse.Namespace, names: Sequence[str]) -> int:
    """Run sections and print the table."""
    from cl.bench.options import Options
    from cl.bench.table import Row, machine, save, show
    from cl.device import find

    device = find(asked.device or "auto")
    root = asked.root or os.environ.get("LETHE_DATA", "~/.cache/lethe")
    root = str(Path(root).expanduser())
    options = Options(device, asked.threads, asked.rounds, root, asked.full, asked.clock)
    rows: list[Row] = []
    for name in names:
        print(f"{name} ...", flush=True)
        rows += importlib.import_module(f"cl.bench.sections.{name}").rows(options)
    facts = machine(device, asked.threads)
    print(f"\n{facts}\n\n{show(rows)}")
    if asked.json:
        save(Path(asked.json), rows, facts)
    return 0


def sections() -> dict[str, str]:
    """Return name -> first docstring line of every section, read without importing it."""
    files = sorted(SECTIONS.glob("[!_]*.py"))
    return {f.stem: (ast.get_docstring(ast.parse(f.read_text())) or "").split("\n")[0] for f in files}
