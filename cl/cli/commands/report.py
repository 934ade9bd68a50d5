"""Make one page about any number of runs: forgetting curves, accuracy matrices, measures with intervals.

Examples::

    lethe report runs/split_digits
    lethe report runs/a runs/b --out reports/a_and_b
"""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser("lethe report", description="Make one page about any number of runs.")
    made.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN_OR_SWEEP", help="run folders, or folders that hold some"
    )
    made.add_argument("--out", type=Path, help="folder for report.html and figures/ (default: the first folder given)")
    made.add_argument("--title", default="", help="heading of the page")
    made.add_argument("--references", action="store_true", help="first make the naive and joint runs that are missing")
    made.add_argument("--no-figures", action="store_true", help="write the page without PNG, SVG and csv files")
    return made


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_intermixed_args(argv)
    from cl.report.write import write_report

    if options.references:
        from cl.cli.references import with_references

        with_references(options.folders)
    path = write_report(options.folders, options.out or options.folders[0], options.title, not options.no_figures)
    print(f"report: {path}")
    return 0
