"""Choose hyper-parameters on validation data, never on test data, then run the final seeds.

    lethe tune stream=split_mnist strategy=ewc strategy.strength=1,10,100,1000 --final 0,1,2,3,4
    lethe tune stream=split_mnist strategy=er optimizer.lr='tag(log,interval(1e-4,1e-1))' --trials 20 --tasks 3

Words are overrides as in `lethe train`; those with several values (a,b,c, choice, range or interval) are searched: all
combinations, or with --trials as many as asked, chosen by Optuna (pip install 'lethe[tune]'). The best has the highest
mean over tasks, after the last one, of accuracy; of minus the squared error where numbers are predicted, of minus bits
per character where texts are.

options:
  --seeds LIST       seeds of the trials; default 1000. Seeds other than the final ones draw other streams, too
  --final LIST       seeds of the final runs; default 0,1,2,3,4; none = only tune
  --validation V     held out of the training data for tuning: a fraction or samples a task; default 0.1
  --tasks K          tune on the first K tasks only; default all. What is counted for the whole stream (a memory_size
                     per=all) then serves K tasks: count it per task or per class and task to keep shares alike
  --trials N         settings to try, chosen by Optuna; default all combinations
  --at-once N        of these, settings that Optuna chooses before it learns their scores, tried side by side; default 4

The search, its budget and what it chose are kept in OUTPUT/.tuning/TIME/tuning.json and in every final run folder.
"""

import argparse
import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl.errors import ConfigError, LetheError, expect

if TYPE_CHECKING:
    from cl.build import Config
    from cl.replica import Outcome
    from cl.tuning import Protocol, Trial
    from cl.workers import Workers

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
    parser.add_argument("--at-once", type=int, default=4, help=argparse.SUPPRESS)
    for name in ("--tasks", "--trials"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_intermixed_args(list(argv))
    from joblib import cpu_count

    from cl.cli.compose import compose
    from cl.cli.sweep import own
    from cl.tuning import Protocol, rehearse, report
    from cl.workers import Workers, counting

    expect(math.isfinite(asked.validation), "--validation", "a share below 1 or a number of samples", asked.validation)
    held = asked.validation if asked.validation < 1 else int(asked.validation)
    protocol = Protocol(tuple(_seeds("seeds", asked.seeds)), held, asked.tasks)
    final = [] if asked.final == "none" else _seeds("final", asked.final)
    expect(asked.trials is None or asked.trials > 0, "--trials", "> 0", asked.trials)
    expect(asked.at_once > 0, "--at-once", "> 0", asked.at_once)
    fixed, searched = split(asked.words)
    expect(bool(searched), "words", "with several values for some key (strategy.strength=1,10)", asked.words)
    grid = [tuple(words) for words in itertools.product(*(_values(o, asked.trials) for o in searched))]
    if final:
        composed = (_composed(fixed, words) for words in grid)
        rehearse((c for c in composed if not isinstance(c, ConfigError)), protocol, final[0])
    folder = own(_output(fixed, grid) / ".tuning" / time.strftime("%Y-%m-%d_%H-%M-%S"))  # refused now or never
    trials = []
    try:
        with Workers(cpu_count()) as pool, counting("setting", asked.trials or len(grid)) as tick:
            if asked.trials is None:
                tried = attempts(fixed, grid, protocol, pool)
            else:
                tried = search(fixed, searched, protocol, pool, asked.trials, asked.at_once)
            for trial in tried:
                trials.append(trial)
                tick()
        found = report(trials, protocol)
        _keep(found, [folder])
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing is in it
    show(trials, found)
    for line in remarks(trials, [o for o in searched if not o.is_interval_sweep()]):
        print(line)
    best = [*fixed, *found["best"]["words"]]
    config = compose(best)
    ended = finals(best, final)
    outcomes = [outcome for outcome in ended if not isinstance(outcome, LetheError)]
    for seed, outcome in zip(final, ended, strict=True):
        if isinstance(outcome, LetheError):
            print(f"error: seed {seed}: {outcome}", file=sys.stderr)
    found["final"] = {"seeds": final, "folders": [str(o.path) for o in outcomes]}
    _keep(found, [folder, *(o.path for o in outcomes)])  # the budget travels with the result
    if outcomes:
        _tell(outcomes, config["evaluation"]["split"])
    print(f"the search: {folder / RECORD}")
    return 1 if len(outcomes) < len(ended) or any(o.status == "failed" for o in outcomes) else 0


def _keep(found: dict[str, Any], folders: Sequence[Path]) -> None:
    for folder in folders:
        (folder / RECORD).write_text(json.dumps(found, indent=1) + "\n")


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

    from cl.cli.compose import hydra_session, mistakes

    with hydra_session() as hydra, mistakes(words):  # the names that a glob stands for are looked up
        parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(words))
    for o in parsed:
        key, word = o.key_or_group, o.input_line
        expect(key not in ("seed", "replicas"), "words", "without seed (use --seeds and --final)", word)
        asks = o.is_sweep_override() and key.split(".")[0] in ("stream", "evaluation")
        expect(not asks, "words", "with one stream and one evaluation, or the easiest would be chosen", word)
        if o.is_interval_sweep():
            _check(o.value(), key, str(word))
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    return fixed, [o for o in parsed if o.is_sweep_override()]


def _check(interval: Any, key: str, word: str) -> None:
    expect(interval.start < interval.end, key, "an interval from a smaller number to a larger one", word)
    if "log" in interval.tags:
        expect(interval.start > 0, key, "an interval of numbers > 0 where it is tagged log", word)


def _composed(fixed: Sequence[str], words: Sequence[str]) -> "Config | ConfigError":
    from cl.cli.compose import compose

    try:
        return compose([*fixed, *words])
    except ConfigError as error:
        return error


def _output(fixed: Sequence[str], grid: Sequence[tuple[str, ...]]) -> Path:
    """Return the output folder, which all settings share."""
    from cl.cli.compose import compose

    config = _composed(fixed, ())
    if isinstance(config, ConfigError):  # of keys that only the first setting brings
        config = compose([*fixed, *grid[0]])
    return Path(config["output"]).expanduser()


def attempts(
    fixed: Sequence[str], settings: "Sequence[tuple[str, ...]]", protocol: "Protocol", pool: "Workers"
) -> "Iterator[Trial]":
    """Try settings and yield what became of each; those that are impossible are trials that failed."""
    from cl.tuning import Trial, carry_out

    composed = [(words, _composed(fixed, words)) for words in settings]
    possible = [(words, config) for words, config in composed if not isinstance(config, ConfigError)]
    done = carry_out(possible, protocol, pool)
    for words, config in composed:
        yield Trial.failed(words, protocol, config) if isinstance(config, ConfigError) else next(done)


def search(
    fixed: Sequence[str], searched: Sequence[Any], protocol: "Protocol", pool: "Workers", count: int, at_once: int
) -> "Iterator[Trial]":
    """Yield the trials of a search by Optuna."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("Expected Optuna for --trials, got none: pip install 'lethe[tune]'") from error
    optuna.logging.disable_default_handler()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=protocol.seeds[0]))
    for first in range(0, count, at_once):
        asked = [study.ask() for _ in range(min(at_once, count - first))]
        settings = [tuple(_suggested(trial, o) for o in searched) for trial in asked]
        for trial, result in zip(asked, attempts(fixed, settings, protocol, pool), strict=True):
            state = optuna.trial.TrialState.COMPLETE if result.trains else optuna.trial.TrialState.FAIL
            study.tell(trial, result.score if result.trains else None, state=state)
            yield result


def _values(override: Any, trials: int | None = None) -> list[str]:
    """Return the words of an override with several values; of an interval, with `trials`, the one in its middle."""
    key, value = override.get_key_element(), override.value()
    if override.is_interval_sweep():
        if trials is None:
            raise ConfigError(f"Expected --trials N for an interval, got {override.input_line!r} in a grid")
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return [f"{key}={(value.start + value.end) // 2 if whole else (value.start + value.end) / 2}"]
    found = [f"{key}={value}" for value in override.sweep_string_iterator()]
    expect(bool(found), "words", "with several values", override.input_line)
    return list(dict.fromkeys(found))


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


def finals(words: list[str], seeds: list[int]) -> "list[Outcome | LetheError]":
    """Carry out the final runs with the values found; these, and these alone, measure on test data.

    Returns:
        what became of each seed; an error where it was refused or its process was killed.
    """
    from cl.cli.compose import compose
    from cl.device import find
    from cl.run import run_together

    if not seeds:
        return []
    configs = [compose([*words, f"seed={seed}"]) for seed in seeds]
    if find(str(configs[0]["device"])).type != "cpu" or len(seeds) == 1:
        return [_one(ended) for ended in run_together(configs)]
    from joblib import cpu_count

    from cl.workers import Workers

    each = [{**config, "threads": config["threads"] or 1} for config in configs]
    with Workers(min(cpu_count(), len(each))) as pool:
        return list(pool.map(_final, each))


def _one(ended: "list[Outcome] | Exception") -> "Outcome | LetheError":
    if isinstance(ended, LetheError):
        return ended
    if isinstance(ended, Exception):
        raise ended
    return ended[0]


def _final(config: dict[str, Any]) -> "Outcome | LetheError":
    from cl.apart import settled
    from cl.run import run

    try:
        return settled(lambda: run(config))[0]
    except LetheError as error:
        return error


def show(trials: "Sequence[Trial]", found: dict[str, Any]) -> None:
    """Print every setting, best first, and what the search cost."""
    for trial in sorted(trials, key=lambda t: -t.score):
        why = f"  ({trial.message})" if trial.message else ""
        print(f"  {trial.score:8.4f}  {' '.join(trial.words)}{why}")
    budget = found["budget"]
    failed = f" ({budget['failed']} failed)" if budget["failed"] else ""
    print(
        f"best {found['best']['kind']} on validation data: {' '.join(found['best']['words'])}\n"
        f"budget: {budget['settings']} settings{failed}, {budget['runs']} runs, {budget['steps']} steps, "
        f"{budget['seconds']:.1f} s of training"
    )


def remarks(trials: "Sequence[Trial]", searched: Sequence[Any]) -> list[str]:
    """Return what a reader of a search should know: keys that changed nothing, numbers best at an end of those tried.

    Args:
        trials: all settings.
        searched: the overrides with several values that are listed.
    """
    best = max(trials, key=lambda t: t.score)
    found = []
    for override in searched:
        key, values = str(override.get_key_element()), _values(override)
        others: dict[tuple[str, ...], set[tuple[float, ...]]] = {}
        for trial in (t for t in trials if t.trains):
            rest = tuple(w for w in trial.words if not w.startswith(f"{key}="))
            others.setdefault(rest, set()).add(trial.scores)
        tried = sum(t.trains for t in trials)
        if tried > len(others) and all(len(scores) == 1 for scores in others.values()):
            found.append(f"note: {key} changed nothing: its values tie")
            continue
        try:
            numbers = sorted(float(v.partition("=")[2]) for v in values)
        except ValueError:
            continue
        chosen = next(float(w.partition("=")[2]) for w in best.words if w.startswith(f"{key}="))
        if len(numbers) > 1 and chosen in (numbers[0], numbers[-1]):
            end = "smallest" if chosen == numbers[0] else "largest"
            found.append(f"note: {key}={chosen:g} is the {end} value tried; the best may lie beyond")
    return found


def _tell(outcomes: "Sequence[Outcome]", split: str) -> None:
    import numpy as np

    from cl.statistics.intervals import interval

    values = [float(o.results.score[0]) for o in outcomes]
    found = interval(np.array(values))
    parents = sorted({str(Path(o.path).parent) for o in outcomes})
    spread = f" +- {found.half:.4f}" if len(values) > 1 else ""
    print(
        f"{split} {outcomes[0].results.kind} of {len(values)} final seeds: {found.mean:.4f}{spread}\n"
        f"run folders (each with {RECORD}): {', '.join(parents)}"
    )
