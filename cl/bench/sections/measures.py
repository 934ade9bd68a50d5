"""What looking costs: measures=basic and a point of the curves every 50 steps, against the same run without them."""

from collections.abc import Callable

from cl.bench.options import Options
from cl.bench.runs import engine_of, mnist, quiet, tracked
from cl.bench.table import Row, in_turns
from cl.build import construct
from cl.cli.compose import compose
from cl.engine import Engine
from cl.evaluator import EvaluationOptions
from strategies.naive import Naive

BASIC, CURVES = 1.05, 1.25  # the ratios asked for


def rows(options: Options) -> list[Row]:
    """Measure whole runs inside the process, data loaded; all three in turns, so that each meets the same machine."""
    asked = compose(["measures=basic", "evaluation=curves"])
    curve = EvaluationOptions(**asked["evaluation"])
    with quiet(options.device, options.threads):
        stream = mnist(options.root, options.device)

        def plain() -> Engine:
            return engine_of(Naive, stream)

        def measured() -> Engine:
            return engine_of(Naive, stream, measures=list(construct(asked["measures"], "measures").values()))

        def with_curves() -> Engine:
            return engine_of(Naive, stream, evaluation=curve)

        def timed(make: Callable[[], Engine]) -> float:
            engine = make()
            return options.timed(lambda: tracked(engine))

        runs = [lambda make=make: timed(make) for make in (plain, measured, with_curves)]
        alone, basic, curves = in_turns(runs, options.rounds)
    told = f"{curve.samples} samples of each task seen"
    return [
        Row("measures", "measures=basic", "measures=none", basic, alone, BASIC, note=", ".join(asked["measures"])),
        Row("measures", f"a point every {curve.every} steps", "no curve", curves, alone, CURVES, note=told),
    ]
