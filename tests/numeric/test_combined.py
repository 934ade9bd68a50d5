"""Combining strategies: sums and order by hand, what cannot be combined is refused by name."""

from functools import partial

import numpy as np
import pytest
import torch

from cl.cli.compose import compose
from cl.errors import ConfigError
from cl.learners.mlp import MLP
from cl.testing import check_strategy
from cl.testing.tiny import TinyStream, engine, state, train
from strategies.agem import AGEM
from strategies.cbp import CBP
from strategies.combined import Combined
from strategies.dgr import DGR
from strategies.er import ER
from strategies.ewc import EWC
from strategies.frozen import Frozen
from strategies.gpm import GPM
from strategies.gss import GSS
from strategies.icarl import ICaRL
from strategies.joint import Joint
from strategies.l2_init import L2Init
from strategies.lwf import LwF
from strategies.packnet import PackNet
from strategies.rehearsal import Rehearsal
from strategies.scratch import Scratch
from strategies.si import SI
from strategies.usage import Usage
from strategies.warm_start import WarmStart
from strategies.xdg import XdG


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    ("make", "scenario"),
    [(ER, "class"), (EWC, "task"), (SI, "domain"), (XdG, "task"), (partial(CBP, rate=0.2, maturity=2), "class")],
)
def test_one_part_alone_is_that_strategy(make, scenario):
    alone = train(make, TinyStream(scenario), epochs=3)
    combined = train(Combined, TinyStream(scenario), epochs=3, parts={"only": make})
    same(state(alone.strategy.learner), state(combined.strategy.learner))
    np.testing.assert_array_equal(alone.record.accuracy, combined.record.accuracy)


def test_penalties_add_up():
    parts = {"a": partial(EWC, strength=50.0), "b": partial(L2Init, strength=0.1)}
    made = engine(Combined, TinyStream("task"), parts=parts)
    made.run_task(0)
    made.strategy.learner.head.weight.data += 0.1
    a, b = (made.strategy.parts[n].penalty() for n in "ab")
    assert a > 0
    assert b > 0
    torch.testing.assert_close(made.strategy.penalty(), a + b)


def test_importance_sees_the_gates_of_another_part():
    made = engine(Combined, TinyStream("task"), parts={"gates": partial(XdG, share=0.5), "ewc": EWC})
    made.run_task(0)
    importance = made.strategy.parts["ewc"].quadratic.importance["blocks.0.1.weight"]
    off = made.strategy.parts["gates"].gate_0[0] == 0
    assert (importance[off] == 0).all()
    assert (importance[~off] > 0).any()


def test_the_network_is_that_of_the_part_that_answers():
    """Measures see the gates of XdG beside EWC; where PackNet answers, they see the weights of the task."""
    made = engine(Combined, TinyStream("task"), parts={"ewc": EWC, "gates": partial(XdG, share=0.5)}).strategy
    network = made.network(1)
    assert network.learner is made.learner
    assert all(torch.equal(a, b) for a, b in zip(network.gates, made.parts["gates"].gates(1), strict=True))
    packed = engine(Combined, TinyStream("task"), parts={"packnet": PackNet})
    packed.run()
    x, packed = torch.rand(3, *made.info.input_shape), packed.strategy
    masked = packed.network(0).learner(x)
    assert not torch.equal(masked, packed.learner(x))
    classes = packed.task_classes[0]
    torch.testing.assert_close(masked[:, classes], packed.predict(x, 0)[:, classes])
    plain = engine(Combined, TinyStream("task"), parts={"ewc": EWC, "er": ER}).strategy
    assert plain.network(1).gates is None


def test_replay_and_xdg_forget_less_than_either():
    drops = {}
    kinds = {
        "er": {"er": partial(ER, memory_size=20)},
        "gates": {"gates": partial(XdG, share=0.5)},
        "both": {"er": partial(ER, memory_size=20), "gates": partial(XdG, share=0.5)},
    }
    for name, parts in kinds.items():
        rows = [
            train(Combined, TinyStream("task", s), epochs=20, parts=parts).record.accuracy[-1].mean() for s in range(3)
        ]
        drops[name] = 1 - np.mean(rows)
    assert drops["both"] <= min(drops["er"], drops["gates"])


def test_a_part_that_replaces_the_network_is_followed():
    strategy = train(Combined, TinyStream("class"), epochs=1, parts={"new": Scratch, "ewc": EWC}).strategy
    assert all(part.learner is strategy.learner for part in strategy.parts.values())


def test_frozen_layers_stay_in_evaluation_mode_whatever_the_order():
    for parts in ({"f": partial(Frozen, after=0), "er": ER}, {"er": ER, "f": partial(Frozen, after=0)}):
        made = engine(Combined, TinyStream("class"), parts=parts)
        made.strategy.grow(0)
        made.strategy.train()
        assert not made.strategy.learner.blocks[0].training
        assert made.strategy.learner.head.training


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"a": XdG, "b": PackNet}, "logits.*XdG.*PackNet"),
        ({"first": ER, "second": partial(ER, memory_size=7)}, "first .*second"),
        ({"a": Scratch, "b": Frozen}, "grow"),
        ({"gates": XdG, "cbp": CBP}, r"see the gates.*cbp \(CBP\) beside XdG"),
        ({"old": LwF, "gates": XdG}, r"old \(LwF\) beside XdG"),
        ({"gates": XdG, "u": Usage}, r"u \(Usage\) beside XdG"),
        ({"g": DGR, "gates": XdG}, r"g \(DGR\) beside XdG"),
        ({}, "strategy.parts"),
        ({"a": {"share": 0.5}}, "_partial_"),
    ],
)
def test_what_makes_no_sense_is_refused(parts, words):
    with pytest.raises(ConfigError, match=words):
        engine(Combined, TinyStream("task"), parts=parts)


@pytest.mark.parametrize("other", [WarmStart, Scratch])
def test_cbp_follows_another_part_to_its_new_network(other):
    made = engine(Combined, TinyStream("task"), parts={"cbp": partial(CBP, rate=0.2, maturity=2), "new": other})
    made.run_task(0)
    old = made.strategy.learner
    kept = state(old)
    made.run_task(1)
    cbp = made.strategy.parts["cbp"]
    assert made.strategy.learner is not old
    assert cbp.layers[0] is made.strategy.learner.blocks[0][1]
    assert cbp.age_0.max() <= made.record.task_steps[1]
    same(state(old), kept)


def test_a_part_must_support_the_scenario():
    with pytest.raises(ConfigError, match="XdG"):
        engine(Combined, TinyStream("class"), parts={"er": ER, "gates": XdG})


def test_facts_are_those_of_the_parts():
    strategy = engine(Combined, TinyStream("task"), parts={"all": Joint, "gates": XdG}).strategy
    assert (strategy.sees, strategy.needs_task_id, strategy.vectorizable) == ("all", True, True)
    strategy.enter(0)
    assert strategy.parts["gates"].active.all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [{"replay": partial(AGEM, memory_size=60), "l2": L2Init}, {"gates": partial(XdG, share=0.5), "si": SI}, {"g": GPM}],
)
def test_other_combinations_keep_the_contract(parts):
    class Here(Combined):
        """A combination in the scenario of its parts."""

        scenarios = ("task",)

    check_strategy(Here, parts=parts)


def test_parts_are_chosen_on_the_command_line():
    words = ["strategy=combined", "strategy@strategy.parts.first=xdg", "strategy.parts.first.share=0.5"]
    parts = compose(words)["strategy"]["parts"]
    assert parts["first"] == {"_target_": "strategies.xdg.XdG", "share": 0.5, "_partial_": True}
    assert parts["second"]["_target_"] == "strategies.ewc.EWC"


def test_two_memories_draw_apart():
    parts = {
        "er": partial(ER, memory_size=20, replay_batch=8),
        "agem": partial(AGEM, memory_size=20, memory="reservoir", groups="none", reference_batch=8),
    }
    made = engine(Combined, TinyStream("domain", tasks=2), parts=parts)
    made.evaluate_row(0)
    made.run_task(0)
    made.begin(1)
    er, agem = made.strategy.parts["er"], made.strategy.parts["agem"]
    agem.memory.load_state_dict(er.memory.state_dict(), strict=False)
    batch = next(made.batches())
    assert not torch.equal(er.recall(batch)[0]["x"], agem.recall(batch)[0]["x"])
    numbers = torch.arange(100, 200)
    assert not torch.equal(er.memory.place(numbers, batch.key), agem.memory.place(numbers, batch.key))
    alone = engine(ER, TinyStream("domain", tasks=2), memory_size=20, replay_batch=8).strategy.memory
    assert torch.equal(er.memory.place(numbers, batch.key), alone.place(numbers, batch.key))


@pytest.mark.parametrize("replays", [Rehearsal, Joint, ICaRL])
def test_what_one_part_replays_is_not_stored_by_another(replays):
    """A-GEM would keep it as of the present task."""
    with pytest.raises(ConfigError, match=r"none stores what another replays, got agem \(AGEM\) beside other"):
        engine(Combined, TinyStream("class"), parts={"agem": partial(AGEM, memory_size=60), "other": replays})


def test_statistics_that_gpm_holds_stay_held_beside_gss():
    def normalised(info):
        return MLP(info.input_shape, info.n_classes, hidden=(16, 16), norm="batch")

    parts = {"gpm": GPM, "gss": partial(GSS, memory_size=60, comparison_batch=5)}
    made = engine(Combined, TinyStream("domain", tasks=2), normalised, epochs=1, parts=parts)
    made.evaluate_row(0)
    made.run_task(0)
    made.begin(1)
    means = {n: b.clone() for n, b in made.strategy.learner.named_buffers() if n.endswith("running_mean")}
    made.train()
    assert len(means) == 2
    for name, mean in means.items():
        assert torch.equal(made.strategy.learner.get_buffer(name), mean)
