"""Naive (MLP, CNN), EWC and replay on split MNIST against bare PyTorch loops; other families against naive's loop."""

from typing import Any

from cl.bench.bare import Bare, BareCNN, BareEWC, BareReplay, Memory
from cl.bench.options import Options
from cl.bench.runs import engine_of, mnist, quiet, tracked
from cl.bench.table import Row, in_turns
from cl.strategy import Strategy
from strategies.agem import AGEM
from strategies.cbp import CBP
from strategies.dgr import DGR
from strategies.er import ER
from strategies.ewc import EWC
from strategies.hat import HAT
from strategies.lamaml import LaMAML
from strategies.lwf import LwF
from strategies.naive import Naive
from strategies.slda import SLDA

CASES = (
    ("naive", Naive, Bare, 1.05, "bare loop"),
    ("ewc", EWC, BareEWC, 1.25, "bare loop, same penalty"),
    ("er", ER, BareReplay, 1.25, "bare loop, twice the samples"),
)
# The other families: their own arithmetic is part of the ratio, so that it tells what they cost and no bar is set.
FAMILIES: tuple[tuple[str, type[Strategy], dict[str, Any]], ...] = (
    ("distillation", LwF, {}),
    ("generative", DGR, {}),
    ("gradient", AGEM, {}),
    ("isolation", HAT, {}),
    ("prototype", SLDA, {}),
    ("meta", LaMAML, {"glances": 1, "group": 128}),
    ("plasticity", CBP, {}),
)
SHORT: dict[str, Any] = {"samples_per_task": 1280, "test_samples": 100}


def rows(options: Options) -> list[Row]:
    """Measure training and evaluation inside the process, data loaded."""
    found = []
    with quiet(options.device, options.threads):
        stream = mnist(options.root, options.device)
        memory = Memory.of(stream)
        for name, strategy, loop, bar, against in CASES:

            def ours(strategy: type = strategy) -> float:
                engine = engine_of(strategy, stream)
                return options.timed(lambda: tracked(engine))

            def theirs(loop: type[Bare] = loop) -> float:
                return options.timed(loop(memory).run)

            seconds, reference = in_turns([ours, theirs], options.rounds)
            engine, bare = engine_of(strategy, stream), loop(memory)
            final = engine.run().accuracy[0, -1].mean()
            bare.run()
            note = f"accuracy {final:.3f}, bare {sum(bare.accuracy[-1]) / len(bare.accuracy[-1]):.3f}"
            found.append(Row("plain", name, against, seconds, reference, bar, note=note))
        found += [images(options), *(other(options, *family) for family in FAMILIES)]
    return found


def images(options: Options) -> Row:
    """Measure short runs of fine-tuning a convolutional network."""
    stream = mnist(options.root, options.device, **SHORT)
    memory = Memory.of(stream)

    def ours() -> float:
        engine = engine_of(Naive, stream, "cnn")
        return options.timed(lambda: tracked(engine))

    seconds, reference = in_turns([ours, lambda: options.timed(BareCNN(memory).run)], options.rounds)
    return Row("plain", "naive, cnn", "bare loop", seconds, reference, 1.05)


def other(options: Options, family: str, strategy: type[Strategy], fields: dict[str, Any]) -> Row:
    """Measure short runs of a strategy against fine-tuning in a bare loop."""
    scenario = "task" if "task" in strategy.scenarios else "class"
    stream = mnist(options.root, options.device, scenario=scenario, **SHORT)
    memory = Memory.of(stream)

    def ours() -> float:
        engine = engine_of(strategy, stream, **fields)
        return options.timed(engine.run)

    seconds, reference = in_turns([ours, lambda: options.timed(Bare(memory).run)], options.rounds)
    name = f"{strategy.__name__.lower()} ({family})"
    return Row("plain", name, "bare loop of naive", seconds, reference)
