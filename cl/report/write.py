"""Making a report: from run folders to a page and its figures on disk."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from cl.comparison import tidy
from cl.errors import ConfigError
from cl.files import atomic_path
from cl.groups import group
from cl.report import content, forgotten, page
from cl.runs import find, load


def write_report(folders: Sequence[Path], out: Path, title: str = "", figures: bool = True) -> Path:
    """Write ``report.html`` and ``figures/`` about all runs at or below `folders` into `out`.

    Args:
        folders: run folders, or folders that hold some.
        out: where to; it is made if missing.
        title: heading of the page; "" takes the name of the folder.
        figures: False writes the page alone.

    Returns:
        the path of the page.

    Raises:
        DataError: there is no run folder.
        ConfigError: `out` cannot be made.
    """
    runs = [load(folder) for folder in find(folders)]
    groups = group(runs)
    blocks = content.blocks(groups)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    made = f"{len(runs)} runs read on {now}"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Expected `--out` a folder that can be written, got {out} ({error.strerror})") from error
    heading = title or f"Forgetting in {', '.join(b.stream for b in blocks) or out.resolve().name}"
    with atomic_path(out / "report.html") as path:
        path.write_text(page.render(blocks, groups, runs, made, heading), encoding="utf-8")
    if figures and blocks:
        from cl.report import paper

        paper.write(blocks, out / "figures")
        with atomic_path(out / "figures" / "measures.csv") as path:
            tidy(groups).to_csv(path, index=False)
        forgotten.write_csv(groups, out / "figures" / "forgotten_examples.csv")
    return out / "report.html"
