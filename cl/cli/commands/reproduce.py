"""Run a published table and print measured beside published."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from cl.cli.commands.list import entries
from cl.cli.places import conf_folder
from cl.errors import ConfigError, expect, nearest


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser("lethe reproduce", description=__doc__)
    parser.add_argument("name", nargs="?", help="the table; --list shows them")
    parser.add_argument("--list", action="store_true", help="list the tables and end")
    parser.add_argument("--seeds", type=int, help="seeds a cell (default: as many as the paper)")
    parser.add_argument("--row", action="append", default=[], help="only this method (repeatable)")
    parser.add_argument("--column", action="append", default=[], help="only this column (repeatable)")
    parser.add_argument("--jobs", type=int, help="processes side by side (default: as many as cores)")
    parser.add_argument("--together", action="store_true", help="train the seeds of a cell as one program (for a GPU)")
    parser.add_argument("--output", default="runs", help="folder of the runs; complete ones are not run again")
    parser.add_argument("--write", metavar="FILE", help="put the table into a Markdown page; its other cells stay")
    parser.add_argument("--json", metavar="FILE", help="write the values of all seeds")
    parser.add_argument("overrides", nargs="*", help="further overrides for every run, e.g. data.root=...")
    options = parser.parse_intermixed_args(argv)
    folder = conf_folder() / "reproduce"
    tables = {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    if options.list:
        for name, text in entries(folder):
            print(f"{name:20s} {text}")
        return 0
    if options.name not in tables:
        name = options.name or ""
        raise ConfigError(f"Expected `NAME` in {sorted(tables)}, got {options.name!r}{nearest(name, tables)}")
    for option in ("seeds", "jobs"):
        value = getattr(options, option)
        expect(value is None or value > 0, f"--{option}", "> 0", value)
    # What decides the numbers, and not where files lie or how many processes ran.
    said = [options.name, *(["--seeds", str(options.seeds)] if options.seeds else [])]
    said += [word for row in options.row for word in ("--row", shlex.quote(row))]
    said += [word for column in options.column for word in ("--column", shlex.quote(column))]
    said += [word for word in options.overrides if not word.startswith("data.")]
    return _run(tables[options.name], options, "lethe reproduce " + " ".join(said))


def _run(path: Path, options: argparse.Namespace, command: str) -> int:
    from joblib import cpu_count

    from cl import reproduce
    from cl.cli.compose import compose
    from cl.workers import Workers, counting

    table = reproduce.read(path)
    cells = reproduce.select(table, options.row, options.column)
    seeds = range(options.seeds or table.seeds)
    fixed = [f"output={options.output}", f"group={table.name}", "resume=auto", "tracker=files", "threads=1"]
    # Seed by seed, so that a table that is cut short has every cell; cells of the same runs share them.
    parts = [f"replicas={list(seeds)}"] if options.together else [f"seed={s}" for s in seeds]
    runs = [(*c.words, *options.overrides, *fixed, part.replace(" ", "")) for part in parts for c in cells]
    configs = {words: compose(words) for words in runs}
    ended: dict[tuple[str, ...], Ended] = {}
    with Workers(options.jobs or cpu_count()) as pool, counting("run", len(configs)) as tick:
        for words, outcomes in zip(configs, pool.map(_job, configs.values()), strict=True):
            ended[words] = outcomes
            tick()
    failed = [message for outcomes in ended.values() for path, message in outcomes if path is None]
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    measured = []
    for i, cell in enumerate(cells):
        folders = [path for words in runs[i :: len(cells)] for path, _ in ended[words] if path is not None]
        measured.append(reproduce.measure(cell, table.scale, folders))
    today = time.strftime("%Y-%m-%d")
    print(reproduce.markdown(table, measured, command, today))
    if options.write:
        page = Path(options.write)
        before = reproduce.section(page, table.name)
        reproduce.insert(page, table.name, reproduce.markdown(table, measured, command, today, before))
    if options.json:
        Path(options.json).write_text(reproduce.as_json(table, measured))
    return 1 if failed else 0


Ended = list[tuple[Path | None, str]]  # of each replica: its folder, or why it has none


def _job(config: dict[str, object]) -> Ended:
    from cl.apart import settled
    from cl.errors import LetheError
    from cl.run import run

    try:
        outcomes = settled(lambda: run(config))
    except LetheError as error:
        return [(None, str(error))]
    good = ("complete", "skipped")
    return [(o.path, "") if o.status in good else (None, f"{o.path.name}: {o.message}") for o in outcomes]
