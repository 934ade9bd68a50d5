"""S replicas as one program, against one after another (CPU) or against one alone (GPU)."""

from typing import Any

from cl.bench.options import Options
from cl.bench.runs import engine_of, mnist, quiet
from cl.bench.table import Row, in_turns
from cl.engine import Engine
from cl.population import Population
from cl.training import TrainingOptions
from strategies.naive import Naive

BARS = {64: 2.5, 256: 8.0}  # S replicas of the MLP in so many times the time of one, on a GPU


def rows(options: Options) -> list[Row]:
    """Measure populations of growing size."""
    gpu = options.device.type == "cuda"
    large = [64, 256] if gpu or options.full else []
    found = []
    with quiet(options.device, options.threads):
        size: dict[str, Any] = {} if gpu else {"samples_per_task": 1000, "test_samples": 500}
        stream = mnist(options.root, options.device, **size)
        for learner, batch_size, counts in (
            ("mlp", 128, [1, 4, 16, *large]),
            ("small mlp", 10, [4, 8, 16, *large]),  # on a CPU the others are trained one after another
            ("cnn", 128, [4, 16, *large] if gpu else [4]),
        ):
            training = TrainingOptions(epochs=1, batch_size=batch_size)
            for s in counts:

                def engines(s: int = s, made: tuple[str, TrainingOptions] = (learner, training)) -> list[Engine]:
                    return [engine_of(Naive, stream.with_seed(i), *made) for i in range(s)]

                def together(s: int = s) -> float:
                    population = Population(engines(s))
                    return options.timed(population.run)

                def others(s: int = 1 if gpu else s) -> float:
                    alone = engines(s)
                    return options.timed(lambda: [e.run() for e in alone])

                seconds, reference = in_turns([together, others], options.rounds, warm=gpu)
                bar = BARS.get(s) if gpu and learner == "mlp" else None if gpu else 1.1
                against = "one" if gpu else "one after another"
                found.append(Row("population", f"{learner}, {s} replicas", against, seconds, reference, bar))
    return found
