"""Naive, EWC and replay on split MNIST against bare PyTorch loops."""

from cl.bench.bare import Bare, BareEWC, BareReplay, Memory
from cl.bench.options import Options
from cl.bench.runs import engine_of, mnist, quiet, tracked
from cl.bench.table import Row, in_turns
from strategies.er import ER
from strategies.ewc import EWC
from strategies.naive import Naive

CASES = (
    ("naive", Naive, Bare, 1.05, "bare loop"),
    ("ewc", EWC, BareEWC, 1.25, "bare loop, same penalty"),
    ("er", ER, BareReplay, 1.25, "bare loop, twice the samples"),
)


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
    return found
