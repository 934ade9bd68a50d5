"""Train a strategy on a stream, or a sweep of them with -m.

    lethe train stream=split_mnist strategy=ewc strategy.strength=100 seed=0
    lethe train -m strategy=naive,ewc,er seed=0,1,2

Words are key=value overrides in Hydra's grammar; `lethe list` shows the choices of a group, `lethe list strategy=ewc`
the meaning of each field of one of them, `lethe train --cfg` the whole configuration.

options:
  -m, --multirun    a sweep: values separated by commas give one run each
  --resume RUN      go on with the run folder RUN (or skip it if it is complete)
  --cfg             print the configuration and end
  -h, --help        print this and the groups and end
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from cl.errors import expect


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        return _help()
    flags = {"-m": "sweep", "--multirun": "sweep", "--cfg": "show"}
    asked = {flags[a] for a in argv if a in flags}
    hydras = ("--cfg", "job")  # its own way to ask for it
    words = [a for a, before in zip(argv, ["", *argv], strict=False) if a not in flags and (before, a) != hydras]
    if "--resume" in words:
        return _resume(words)
    for word in words:
        expect(not word.startswith("-"), "option", f"in {[*flags, '--resume', '--help']}", word)
    expect(asked != {"sweep", "show"}, "--cfg", "without -m: it prints the configuration of one run", " ".join(argv))
    if "sweep" in asked:
        from cl.cli.sweep import sweep

        return report(sweep(words))
    from cl.cli.compose import compose

    config = compose(words, to_run="show" not in asked)
    if "show" in asked:
        import yaml

        print(yaml.safe_dump(config, sort_keys=False), end="")
        return 0
    from cl.run import run

    return report([(o.path, o.status, o.message) for o in run(config)])


def report(ended: Sequence[tuple[Path, str, str]]) -> int:
    """Say where the runs are and what failed; returns the exit code: 0, or 1 if a run failed."""
    for path, status, message in ended:
        if status == "failed":
            name = path.name if path.is_dir() else path  # a job that got no folder goes by its words
            print(f"error: {name} failed: {message}", file=sys.stderr)
        elif status == "skipped":
            print(f"{path}: {message}, not run again")
    paths = list(dict.fromkeys(path for path, status, _ in ended if status != "skipped" and path.is_dir()))
    if len(paths) == 1:
        print(f"run folder: {paths[0]}\nnext: lethe report {paths[0]}")
    elif paths:
        parents = sorted({str(p.parent) for p in paths})
        print(f"{len(paths)} run folders in {', '.join(parents)}\nnext: lethe compare {' '.join(parents)}")
    return 1 if any(status == "failed" for _, status, _ in ended) else 0


def _resume(words: list[str]) -> int:
    at = words.index("--resume")
    expect(len(words) == 2 and at == 0, "--resume", "RUN and nothing else; a run goes on as it was configured", words)
    path = Path(words[1])
    from cl.run import run
    from cl.settings import recorded

    config = {**recorded(path), "resume": "auto"}
    return report([(o.path, o.status, o.message) for o in run(config, path)])


def _help() -> int:
    from cl.cli.compose import options
    from cl.cli.places import conf_folder

    print((__doc__ or "").strip() + "\n\ngroups (choose with GROUP=NAME):")
    for group in sorted(p.name for p in conf_folder().iterdir() if p.is_dir() and p.name not in ("hydra", "reproduce")):
        print(f"  {group:11s} {' '.join(options(group))}")
    print("\nkeys:\n" + "".join(_keys(conf_folder() / "config.yaml")), end="")
    return 0


def _keys(path: Path) -> list[str]:
    lines = path.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith("seed:"))
    last = next(i for i, line in enumerate(lines) if line.startswith("hydra:"))
    return [f"  {line}" for line in lines[first:last] if line.strip()]
