"""Choose hyper-parameters on validation data, never on test data, then run the final seeds.

    lethe tune stream=split_mnist strategy=ewc strategy.strength=1,10,100,1000 --final 0,1,2,3,4
    lethe tune stream=split_mnist strategy=er optimizer.lr='tag(log,interval(1e-4,1e-1))' --trials 20 --tasks 3

Words are overrides as in `lethe train`; those with several values (a,b,c, choice, range or interval) are searched: all
combinations, or with --trials as many as asked, chosen by Optuna (pip install 'lethe[tune]').

options:
  --seeds LIST       seeds of the trials; default 1000. Seeds other than the final ones draw other streams, too
  --final LIST       seeds of the final runs; default 0,1,2,3,4; none = only tune
  --validation V     held out of the training data for tuning: a fraction or samples a task; default 0.1
  --tasks K          tune on the first K tasks only; default all
  --trials N         settings to try, chosen by Optuna; default all combinations
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl.errors import ConfigError, TrainingError, expect

if TYPE_CHECKING:
    from cl.replica import Outcome
    from cl.tuning import Protocol, Trial

RECORD = "tuning.json"


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code: 0, or 1 if a final run failed."""
    parser = argparse.ArgumentParser(
        prog="lethe tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="lethe tune WORD ... [OPTIONS]",
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", default="1000", help=argparse.SUPPRESS)
    parser.add_argument("--final", default="0,1,2,3,4", help=argparse.SUPPRESS)
    parser.add_argument("--validation", type=float, default=0.1, help=argparse.SUPPRESS)
    for name in ("--tasks", "--trials"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_intermixed_args(list(argv))
    from cl.tuning import Protocol, report

    expect(math.isfinite(asked.validation), "--validation", "a share below 1 or a number of samples", asked.validation)
    held = asked.validation if asked.validation < 1 else int(asked.validation)
    protocol = Protocol(tuple(_seeds("seeds", asked.seeds)), held, asked.tasks)
    final = [] if asked.final == "none" else _seeds("final", asked.final)
    expect(asked.trials is None or asked.trials > 0, "trials", "> 0", asked.trials)
    fixed, searched = split(asked.words)
    expect(bool(searched), "words", "with several values for some key (strategy.strength=1,10)", asked.words)
    trials = list(search(fixed, searched, protocol, asked.trials))
    found = report(trials, protocol)
    if found["best"]["validation_accuracy"] < 0:
        raise ConfigError("Expected at least one setting that trains, got none: try smaller rates or strengths")
    show(trials, found)
    ended = finals([*fixed, *found["best"]["words"]], final)
    outcomes = [outcome for outcome in ended if not isinstance(outcome, TrainingError)]
    for seed, outcome in zip(final, ended, strict=True):
        if isinstance(outcome, TrainingError):
            print(f"error: seed {seed}: {outcome}", file=sys.stderr)
    found["final"] = {"seeds": final, "folders": [str(o.path) for o in outcomes]}
    for outcome in outcomes:  # the budget travels with the result
        (outcome.path / RECORD).write_text(json.dumps(found, indent=1) + "\n")
    if outcomes:
        _tell(outcomes)
    return 1 if len(outcomes) < len(ended) or any(o.status == "failed" for o in outcomes) else 0


def _seeds(name: str, text: str) -> list[int]:
    try:
        found = [int(s) for s in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"Expected `--{name}` whole numbers separated by commas, got {text!r}") from error
    expect(len(set(found)) == len(found) and min(found) >= 0, f"--{name}", "different seeds >= 0", text)
    return found


def split(words: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Return the words with one value, and Hydra's overrides of those with several."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from cl.cli.compose import mistakes

    with mistakes(words):
        parsed = OverridesParser.create().parse_overrides(list(words))
    for o in parsed:
        key, word = o.key_or_group, o.input_line
        expect(key not in ("seed", "replicas"), "words", "without seed (use --seeds and --final)", word)
        asks = o.is_sweep_override() and key.split(".")[0] in ("stream", "evaluation")
        expect(not asks, "words", "with one stream and one evaluation, or the easiest would be chosen", word)
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    return fixed, [o for o in parsed if o.is_sweep_override()]


def search(fixed: list[str], searched: list[Any], protocol: "Protocol", count: int | None) -> "Iterator[Trial]":
    """Yield the trials of a grid, or of a search by Optuna."""
    from cl.cli.compose import compose
    from cl.tuning import carry_out

    if count is None:
        grid = [tuple(words) for words in itertools.product(*(_values(o) for o in searched))]
        yield from carry_out([(words, compose([*fixed, *words])) for words in grid], protocol)
        return
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("Expected Optuna for --trials, got none: pip install 'lethe[tune]'") from error
    from joblib import cpu_count

    optuna.logging.disable_default_handler()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=protocol.seeds[0]))
    left = count
    while left > 0:
        asked = [study.ask() for _ in range(min(left, cpu_count()))]
        words = [tuple(_suggested(trial, o) for o in searched) for trial in asked]
        done = carry_out([(w, compose([*fixed, *w])) for w in words], protocol)
        for trial, result in zip(asked, done, strict=True):
            failed = result.score < 0
            state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
            study.tell(trial, None if failed else result.score, state=state)
        left -= len(asked)
        yield from done


def _values(override: Any) -> list[str]:
    """Return the words of an override with several values."""
    if override.is_interval_sweep():
        raise ConfigError(f"Expected --trials N for an interval, got {override.input_line!r} in a grid")
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _suggested(trial: Any, override: Any) -> str:
    """Return the word that Optuna suggests."""
    key = override.get_key_element()
    if override.is_interval_sweep():
        interval = override.value()
        low, high = interval.start, interval.end
        if isinstance(low, int) and isinstance(high, int):
            return f"{key}={trial.suggest_int(key, low, high, log='log' in interval.tags)}"
        return f"{key}={trial.suggest_float(key, low, high, log='log' in interval.tags)!r}"
    return str(trial.suggest_categorical(key, _values(override)))


def finals(words: list[str], seeds: list[int]) -> "list[Outcome | TrainingError]":
    """Carry out the final runs with the values found; these, and these alone, measure on test data.

    Returns:
        what became of each seed; an error where its process was killed.
    """
    from cl.cli.compose import compose
    from cl.device import find
    from cl.run import run_together

    if not seeds:
        return []
    configs = [compose([*words, f"seed={seed}"]) for seed in seeds]
    if find(str(configs[0]["device"])).type != "cpu" or len(seeds) == 1:
        return list(run_together(configs))
    from joblib import Parallel, delayed

    found: list[Outcome | TrainingError] = Parallel(n_jobs=-1, backend="loky")(
        delayed(_final)({**config, "threads": config["threads"] or 1}) for config in configs
    )
    return found


def _final(config: dict[str, Any]) -> "Outcome | TrainingError":
    from cl.apart import settled
    from cl.run import run

    try:
        return settled(lambda: run(config))[0]
    except TrainingError as error:
        return error


def show(trials: "Sequence[Trial]", found: dict[str, Any]) -> None:
    """Print every setting, best first, and what the search cost."""
    for trial in sorted(trials, key=lambda t: -t.score):
        print(f"  {trial.score:8.4f}  {' '.join(trial.words)}")
    budget = found["budget"]
    print(
        f"best on validation data: {' '.join(found['best']['words'])}\n"
        f"budget: {budget['settings']} settings, {budget['runs']} runs, {budget['steps']} steps, "
        f"{budget['seconds']:.1f} s of training"
    )


def _tell(outcomes: "Sequence[Outcome]") -> None:
    import numpy as np

    from cl.statistics.intervals import interval

    values = [float(o.results.accuracy[0, -1].mean()) for o in outcomes]
    found = interval(np.array(values))
    parents = sorted({str(Path(o.path).parent) for o in outcomes})
    spread = f" +- {found.half:.4f}" if len(values) > 1 else ""
    print(
        f"test accuracy of {len(values)} final seeds: {found.mean:.4f}{spread}\n"
        f"run folders (each with {RECORD}): {', '.join(parents)}"
    )
