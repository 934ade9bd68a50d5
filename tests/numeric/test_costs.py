"""Passes counted by hand, for strategies that take more of them than fine-tuning."""

import pytest
import torch

from cl.allocator import give_back
from cl.costs import Passes, counted, peak_memory, watch_memory
from cl.generative import VAE
from cl.population import Population
from cl.testing import tiny
from cl.testing.tiny import TinyStream
from strategies.agem import AGEM
from strategies.der import DER
from strategies.dgr import DGR
from strategies.er import ER
from strategies.ewc import EWC
from strategies.frozen import Frozen
from strategies.gem import GEM
from strategies.gss import GSS
from strategies.joint import Joint
from strategies.lamaml import LaMAML
from strategies.lwf import LwF
from strategies.mir import MIR
from strategies.naive import Naive
from strategies.progressive import Progressive

# 3 tasks of 70 samples; 2 epochs of batches of 16, 16, 16, 16 and 6: 10 steps and 140 samples a task.
SEEN, STEPS, TASK, TASKS = 420, 30, 140, 3
LAMAML = {"glances": 1, "group": 7, "replay_batch": 1}
EXPECTED = {
    "naive": (Naive, {}, SEEN, SEEN),
    "joint": (Joint, {}, SEEN, SEEN),
    # the teacher answers every sample of tasks 2 and 3, without gradient
    "lwf": (LwF, {}, SEEN + 2 * TASK, SEEN),
    # ten samples more in every step, also while the memory is empty: shapes are constant
    "er": (ER, {"replay_batch": 10}, SEEN + 10 * STEPS, SEEN + 10 * STEPS),
    "der": (DER, {"replay_batch": 10}, SEEN + 10 * STEPS, SEEN + 10 * STEPS),
    # Fisher information of 70 samples a task: one gradient each, or one for each of the task's two classes
    "ewc empirical": (EWC, {"fisher": "empirical"}, SEEN + 3 * 70, SEEN + 3 * 70),
    # one pass draws a label from the prediction, one takes the gradient of it
    "ewc sampled, 20": (EWC, {"fisher": "sampled", "samples": 20}, SEEN + 3 * 2 * 20, SEEN + 3 * 20),
    "ewc exact": (EWC, {"fisher": "exact"}, SEEN + 3 * 70, SEEN + 3 * 2 * 70),
    # 10 steps with the gradient of one memory of 20 slots, 10 with those of two
    "gem": (GEM, {"memory_size": 60}, SEEN + 600, SEEN + 600),
    "agem": (AGEM, {"memory_size": 60, "reference_batch": 12}, SEEN + 12 * STEPS, SEEN + 12 * STEPS),
    # gradient for the virtual step, 50 candidates before and after it, then the batch with 10 of them
    "mir": (MIR, {"replay_batch": 10}, 2 * SEEN + (50 + 50 + 10) * STEPS, 2 * SEEN + 10 * STEPS),
    # from the second task on the blocks are frozen
    "frozen": (Frozen, {}, SEEN, TASK),
    # columns 1, 2 and 3; gradients through the newest
    "progressive": (Progressive, {}, TASK * (1 + 2 + 3), SEEN),
    # each glance looks ahead along groups of at most 7 samples and learns from all; nothing is recalled on the first
    "lamaml last": (LaMAML, LAMAML | {"look": "last"}, 2 * SEEN + 29, 2 * SEEN + 29),
    # learns after each look: three in the 24 batches of 16 samples, one in the 6 of 6, with one that is recalled
    "lamaml": (LaMAML, LAMAML, SEEN + 3 * 24 * 17 + 6 * 7 - 3, SEEN + 3 * 24 * 17 + 6 * 7 - 3),
}


def engine(make, seed=0, **fields):
    return tiny.engine(make, TinyStream("task", seed, samples=35), epochs=2, **fields)


def passes(made):
    costs = made.results().costs
    return costs["passes_forward"], costs["passes_backward"]


@pytest.mark.parametrize("case", EXPECTED)
def test_passes_counted_by_hand(case):
    make, fields, forward, backward = EXPECTED[case]
    made = engine(make, **fields)
    made.run()
    assert made.results().costs["samples"] == SEEN
    assert passes(made) == (forward, backward)


def test_passes_of_a_generator_are_counted():
    """DGR: network and generator on new data; from task 2 on replay as large: dreamed, answered, learned by both."""
    made = tiny.engine(DGR, TinyStream("class", samples=35), epochs=2)
    made.run()
    replayed = 2 * TASK
    assert passes(made) == (2 * SEEN + 4 * replayed, 2 * SEEN + 2 * replayed)


def test_evidence_decodes_every_code():
    vae = VAE((4,), (8,), 2, "bernoulli")
    module = torch.nn.ModuleList([vae])
    with counted(module) as found, torch.no_grad():
        vae.log_evidence(torch.rand(5, 4), torch.randn(25, 2))  # in pieces of 10 codes
    assert found == Passes(125, 0)


@pytest.mark.parametrize("case", ["naive", "er", "agem", "mir", "lwf", "ewc exact"])
def test_replicas_trained_together_have_the_passes_of_each_alone(case):
    make, fields, forward, backward = EXPECTED[case]
    engines = [engine(make, seed, **fields) for seed in (0, 1, 2)]
    population = Population(engines, always=True)
    population.run()
    assert not [note for note in population.notes if "replica by replica" in note]
    assert [passes(e) for e in engines] == [(forward, backward)] * 3


def test_per_sample_gradients_count_every_sample():
    """GSS: the batch with 10 recalled; a gradient of each of its samples, one of all, and 5 of 4 from memory."""
    fields = {"replay_batch": 10, "comparisons": 5, "comparison_batch": 4, "memory_size": 60}
    made = engine(GSS, **fields)
    made.run()
    extra = (10 + 5 * 4) * STEPS
    assert passes(made) == (3 * SEEN + extra, 3 * SEEN + extra)


@pytest.mark.parametrize("case", ["lwf", "lamaml", "ewc empirical"])
def test_a_resumed_run_has_the_passes_of_an_uninterrupted_one(case):
    make, fields, forward, backward = EXPECTED[case]

    class Stop(Exception):
        pass

    def pause(made):
        if made.total_steps == 15:  # the middle of task 2
            saved.append(made.state_dict())
            raise Stop

    saved = []
    with pytest.raises(Stop):
        engine(make, pause=pause, **fields).run()
    again = engine(make, **fields)
    again.load_state_dict(saved[0])
    again.run()
    assert passes(again) == (forward, backward)


def test_counting_changes_no_gradient():
    plain, watched = engine(MIR), engine(MIR)
    watched.begin(0)
    plain.begin(0)
    batch = next(iter(plain.batches()))
    plain.strategy.step(batch, plain.update)
    with counted(watched.strategy) as found:
        watched.strategy.step(batch, watched.update)
    assert found.forward > 0
    for name, tensor in plain.strategy.state_dict().items():
        assert torch.equal(tensor, watched.strategy.state_dict()[name]), name


def test_parameters_trained():
    stream = TinyStream("task")
    weights = 16 * 16 + 16 + 16 * 16 + 16 + 16 * 6 + 6
    made = tiny.train(Naive, stream, epochs=1)
    assert made.results().costs["parameters_trained"] == weights
    made = tiny.train(Frozen, stream, epochs=1)  # all of them in task 1, the head alone afterwards
    assert made.results().costs["parameters_trained"] == weights


def test_peak_memory_rises_with_what_is_held_and_begins_anew():
    cpu = torch.device("cpu")
    give_back()  # earlier tests may have told this process to keep what is free
    watch_memory(cpu)
    before = peak_memory(cpu)["peak_resident_bytes"]
    held = torch.ones(64 * 2**20 // 4)
    with_it = peak_memory(cpu)["peak_resident_bytes"]
    assert with_it >= before + 60 * 2**20
    del held
    give_back()
    assert peak_memory(cpu)["peak_resident_bytes"] >= with_it - 2**20  # a peak stays
    watch_memory(cpu)
    assert peak_memory(cpu)["peak_resident_bytes"] < with_it - 30 * 2**20
