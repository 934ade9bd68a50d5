"""Memories against references of their own: sequential loops, numpy, and the laws they must follow."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from cl.errors import ConfigError
from cl.learners.mlp import MLP
from cl.memory import Balanced, Exemplars, Memory, Reservoir, Ring, herding, join, sample_fields, select, splits
from cl.seeding import generator, integers, step_keys
from cl.testing import TinyStream
from strategies.agem import AGEM
from strategies.der import DER
from strategies.derpp import DERpp
from strategies.er import ER
from strategies.er_ace import ERACE
from strategies.gdumb import GDumb
from strategies.gem import GEM
from strategies.gss import GSS
from strategies.icarl import ICaRL
from strategies.lamaml import LaMAML
from strategies.mer import MER
from strategies.mir import MIR
from strategies.rehearsal import Rehearsal

FIELDS = {"x": torch.zeros(2), "y": torch.zeros((), dtype=torch.long)}
# Upper 0.1 % point of the chi-square law by degrees of freedom (tables, Abramowitz and Stegun 26.8).
CHI2_999 = {9: 27.88, 19: 43.82}


def values(first, count):
    y = torch.arange(first, first + count)
    return {"x": torch.stack([y, -y], 1).float(), "y": y}


def fill(memory, total, batch, group=lambda y: None, seed=0):
    keys = step_keys(seed, 0, 0, total)
    for i, first in enumerate(range(0, total, batch)):
        v = values(first, min(batch, total - first))
        memory.add(v, keys[i], group(v["y"]))
    return memory


def test_reservoir_is_vitters_loop():
    """A batch ends as if its samples had come one by one, the later write winning."""
    memory, expected, seen = Reservoir(5, FIELDS), [0] * 5, 0
    keys = step_keys(3, 0, 0, 40)
    for i in range(40):
        v = values(7 * i, 7)
        number = torch.arange(seen + 1, seen + 8)
        draws = integers(keys[i], (7,), number, "reservoir").tolist()
        for y, n, draw in zip(v["y"].tolist(), number.tolist(), draws, strict=True):
            slot = n - 1 if n <= 5 else draw
            if slot < 5:
                expected[slot] = y
        seen += 7
        memory.add(v, keys[i])
        assert memory.y.tolist() == expected
        torch.testing.assert_close(memory.x, torch.stack([memory.y, -memory.y], 1).float())
    assert int(memory.seen) == 280


@pytest.mark.parametrize("make", [lambda: Reservoir(10, FIELDS), lambda: Balanced(10, FIELDS, 1)])
def test_uniform(make):
    """After 100 samples each tenth of the stream is in memory equally often: chi-square over 600 independent runs."""
    counts = np.zeros(10)
    for seed in range(600):
        memory = fill(make(), 100, 8, lambda y: torch.zeros_like(y), seed)
        counts += np.bincount(memory.y.numpy() // 10, minlength=10)
    expected = counts.sum() / 10
    assert counts.sum() == 6000
    # Ten of 100 without replacement vary 0.9 times as much as the multinomial law. The lower bound (its 0.1 % point is
    # 1.15) catches draws that are too even to be random.
    chi2 = ((counts - expected) ** 2 / expected).sum() / 0.9
    assert 1.15 < chi2 < CHI2_999[9], counts


def test_draws_are_uniform_over_what_is_stored():
    memory = fill(Reservoir(50, FIELDS), 20, 20)
    for replace in (False, True):
        counts = np.zeros(20)
        for key in step_keys(1, 0, 0, 1500):
            drawn, valid = memory.sample(4, key, replace=replace)
            assert valid.all()
            assert replace or len(set(drawn["y"].tolist())) == 4
            counts += np.bincount(drawn["y"].numpy(), minlength=20)
        chi2 = ((counts - 300) ** 2 / 300).sum()
        assert 5 < chi2 < CHI2_999[19], (replace, counts)


def test_the_smallest_number_drawn_takes_no_slot_without_a_chance(monkeypatch):
    memory = Reservoir(4, {"x": torch.zeros(2)})
    monkeypatch.setattr("cl.memory.base.uniform", lambda key, shape, purpose: torch.zeros(shape))
    drawn = memory.draw(3, step_keys(0, 0, 0, 1)[0], torch.tensor([0.0, 0.0, 0.5, 0.5]), "replay")
    assert drawn.tolist() == [2, 2, 2]


def test_draws_from_an_empty_memory_are_not_valid():
    memory = Reservoir(6, FIELDS)
    key = step_keys(0, 0, 0, 1)[0]
    assert not memory.sample(4, key)[1].any()
    assert not memory.sample(4, key, replace=True)[1].any()
    memory.add(values(1, 2), key)
    drawn, valid = memory.sample(4, key)
    assert valid.tolist() == [True, True, False, False]
    assert sorted(drawn["y"][:2].tolist()) == [1, 2]
    assert len(memory.sample(99, key)[1]) == 6


def test_balanced_draws_give_each_class_the_same_chance():
    memory = Reservoir(40, {"y": torch.zeros((), dtype=torch.long)})
    memory.add({"y": torch.tensor([0] * 27 + [1] * 2 + [2])}, step_keys(0, 0, 0, 1)[0])
    weights = memory.balance(memory.y, 4)
    counts = np.zeros(3)
    for key in step_keys(1, 0, 0, 2000):
        counts += np.bincount(memory.sample(1, key, weights)[0]["y"].numpy(), minlength=3)
    np.testing.assert_allclose(counts / 2000, 1 / 3, atol=0.04)


def test_ring_keeps_the_last_of_each_group():
    memory = fill(Ring(12, FIELDS, groups=3), 100, 9, lambda y: y % 3)
    expected = {g: sorted(y for y in range(100) if y % 3 == g)[-4:] for g in range(3)}
    for g in range(3):
        assert sorted(memory.y[4 * g : 4 * g + 4].tolist()) == expected[g]


def test_reservoir_with_groups_keeps_equal_shares():
    memory = fill(Reservoir(12, FIELDS, groups=3), 200, 16, lambda y: (y // 50).clamp(max=2))
    assert (memory.y // 50).clamp(max=2).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert memory.seen.tolist() == [50, 50, 100]


def test_balanced_shares_follow_the_groups_seen():
    """An uneven stream, group after group: shares stay as equal as the samples allow."""
    memory = Balanced(12, FIELDS, groups=5)
    keys = step_keys(0, 0, 0, 100)
    sizes, step, offered = [40, 2, 30, 9], 0, [0] * 5
    for g, size in enumerate(sizes):
        for first in range(0, size, 7):
            v = values(100 * g + first, min(7, size - first))
            memory.add(v, keys[step], v["y"] // 100)
            step += 1
            offered[g] += len(v["y"])
            counts = np.bincount((memory.y[memory.filled] // 100).numpy(), minlength=5).tolist()
            assert sum(counts) == min(12, sum(offered))
            assert sorted(counts) == sorted(water_fill(offered, 12))
    assert (memory.group == memory.y // 100).all()
    assert len(set(memory.y.tolist())) == 12


def water_fill(offered, room):
    """Hand out slots one at a time to the group that has fewest and still has samples."""
    kept = [0] * len(offered)
    while sum(kept) < room and kept != list(offered):
        kept[min((g for g in range(len(offered)) if kept[g] < offered[g]), key=lambda g: kept[g])] += 1
    return kept


def test_greedy_balanced_keeps_the_first():
    """GDumb's sampler: while one group is there, the first samples stay; a second group halves it."""
    memory = fill(Balanced(10, FIELDS, 2, newcomers=False), 50, 8, torch.zeros_like)
    assert sorted(memory.y.tolist()) == list(range(10))
    key = step_keys(5, 0, 0, 1)[0]
    memory.add(values(100, 30), key, torch.ones(30, dtype=torch.long))
    kept = memory.y.tolist()
    assert sorted(y for y in kept if y >= 100) == list(range(100, 105))
    assert sum(y < 10 for y in kept) == 5


@pytest.mark.parametrize("unit", [False, True])
def test_herding_is_the_greedy_search(unit):
    """Against a numpy search over all candidates with plain loops."""
    features = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    mean, chosen = features.astype(np.float64).mean(0), []
    if unit:
        mean = mean / np.linalg.norm(mean)
    for k in range(1, 13):
        distances = [
            np.inf if i in chosen else np.linalg.norm(mean - features[[*chosen, i]].astype(np.float64).sum(0) / k)
            for i in range(30)
        ]
        chosen.append(int(np.argmin(distances)))
    assert herding(torch.from_numpy(features), 12, unit).tolist() == chosen


def test_unit_herding_takes_samples_near_the_middle():
    """Directions of the plane in pairs about the middle one: the nearest pairs, where herding takes far ones too."""
    angles = torch.linspace(-1.2, 1.2, 25)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    taken = angles[select(25, 5, "unit_herding", generator(0, "test"), circle)]
    assert taken[0].abs() < 1e-6
    assert taken.abs().max() < 0.21  # the middle and two on each side
    assert angles[select(25, 5, "herding", generator(0, "test"), circle)].abs().max() > 0.5


def directly(features, count):
    """Herding by the distance of every candidate at every step."""
    features = features.double()
    mean, total, chosen = features.mean(0), torch.zeros_like(features[0]), []
    for k in range(count):
        gap = (mean - (features + total) / (k + 1)).square().sum(1)
        gap[chosen] = torch.inf
        chosen.append(int(gap.argmin()))
        total = total + features[chosen[-1]]
    return chosen


@pytest.mark.parametrize("kind", ["unit", "relu", "twice", "levels", "equal", "far", "not finite"])
def test_herding_takes_the_samples_of_the_direct_search(kind):
    """Also among samples that are equally good, of which the first is taken."""
    g = generator(0, "herding")
    x = torch.randn(300, 7, generator=g)
    features = {
        "unit": torch.nn.functional.normalize(x),
        "relu": x.relu(),
        "twice": torch.cat([x[:150], x[:150]])[torch.randperm(300, generator=g)],
        "levels": (x > 0).float(),  # 128 different samples, many ties
        "equal": torch.ones(300, 7),
        "far": x + 1000,
        "not finite": torch.where(x > 2.5, torch.nan, x),
    }[kind]
    if kind == "not finite":
        assert features.isnan().any()
    assert herding(features, 200).tolist() == directly(features, 200)


def test_select():
    def draw(how, features=None):
        return select(6, 3, how, generator(0, "test"), features).tolist()

    assert draw("first") == [0, 1, 2]
    assert draw("last") == [5, 4, 3]
    assert draw("random") == draw("random")
    assert len(set(draw("random"))) == 3
    assert draw("herding", torch.tensor([[0.0], [0.0], [3.1], [9.0], [0.0], [0.0]]))[0] == 2
    assert select(2, 5, "first", generator(0, "test")).tolist() == [0, 1]


def test_exemplars_share_and_shrink():
    memory = Exemplars(11, {**FIELDS, "task": torch.zeros((), dtype=torch.long)}, groups=4)
    for g, room in ((0, 11), (1, 5), (2, 3), (3, 2)):
        assert memory.room([g]) == room
        memory.store({g: {**values(100 * g, 20), "task": torch.full((20,), g)}})
        for j in range(g + 1):
            assert memory.y[memory.slots(j)].tolist() == list(range(100 * j, 100 * j + room))
    assert int(memory.filled.sum()) == 8
    assert not memory.x[8:].any()


def test_empty_slots_are_no_part_of_what_is_trained_on():
    """Seven samples of two tasks in ten slots, the other three as they were made: zeros, of task 0."""
    info = TinyStream("class").info
    memory = Reservoir(10, sample_fields(info))
    x, task = torch.rand(7, *info.input_shape) + 1, torch.tensor([0, 1, 1, 0, 1, 0, 1])
    memory.add({"x": x, "y": 2 * task, "task": task}, step_keys(0, 0, 0, 1)[0])
    for k, part in enumerate(splits(memory, lambda k: None)):
        assert part.task == k
        assert torch.equal(part.inputs(torch.arange(len(part))), x[task == k])
        assert part.labels.tolist() == [2 * k] * int((task == k).sum())


def test_a_group_that_comes_again_is_extended_behind_what_it_has():
    memory = Exemplars(6, {"y": torch.zeros((), dtype=torch.long)}, groups=3)
    for group, y in ((0, [10, 11]), (1, [20, 21, 22, 23]), (0, [12, 13])):
        memory.store({group: {"y": torch.tensor(y)}})
    assert [memory["y"][memory.slots(g)].tolist() for g in (0, 1)] == [[10, 11, 12], [20, 21, 22]]


def test_samples_of_the_batch_stand_for_those_of_an_empty_memory():
    stream = TinyStream("class")
    batch = stream[0].train.batch(torch.arange(36, 43), step_keys(0, 0, 0, 1)[0])
    memory = Reservoir(20, sample_fields(stream.info))
    both = join(batch, *memory.sample(10, batch.key))
    for field in ("x", "y", "task"):
        present = getattr(batch, field)
        assert torch.equal(getattr(both, field), torch.cat([present, present, present[:3]]))


def test_exemplars_by_class_of_each_task():
    """In `domain` the labels repeat, so each task's classes are groups of their own."""
    stream = TinyStream("domain")
    memory = Exemplars(30, sample_fields(stream.info), 6, quota=5)
    for task in stream:
        memory.choose(task, stream.info, "class", "random")
    parts = splits(memory, lambda k: None)
    assert [len(part) for part in parts] == [10, 10, 10]
    for k, part in enumerate(parts):
        assert part.labels.tolist() == [0] * 5 + [1] * 5
        own = stream[k].train
        inputs = own.inputs(torch.arange(len(own)))
        for x, y in zip(part.inputs(torch.arange(10)), part.labels, strict=True):
            match = (inputs == x).flatten(1).all(1)
            assert match.sum() == 1
            assert own.labels[match] == y


def test_exemplars_by_herding_use_the_features():
    stream = TinyStream("class")
    memory = Exemplars(12, sample_fields(stream.info), 6)
    memory.choose(stream[0], stream.info, "class", "herding", lambda x: x.flatten(1))
    data = stream[0].train
    for c in (0, 1):
        own = data.inputs((data.labels == c).nonzero()[:, 0])
        torch.testing.assert_close(memory.x[memory.slots(c)], own[herding(own.flatten(1), 6)])


def test_bytes_are_exact():
    memory = Reservoir(7, sample_fields(TinyStream("class").info))
    # x 16 floats, y and task 8 bytes each, filled 1 byte a slot; one counter of 8 bytes.
    assert sum(t.numel() * t.element_size() for t in memory.state_dict().values()) == 7 * (64 + 8 + 8 + 1) + 8


def test_too_small_a_memory_is_refused():
    with pytest.raises(ConfigError, match=r"strategy\.memory_size.*at least 1"):
        Reservoir(0, FIELDS)
    with pytest.raises(ConfigError, match=r"strategy\.memory_size.*at least 4"):
        Ring(3, FIELDS, groups=4)


@pytest.mark.parametrize("kind", [ER, ERACE, MIR, DER, DERpp, GSS, AGEM, GEM, GDumb, MER, LaMAML, ICaRL, Rehearsal])
def test_a_memory_is_sized_in_all_or_for_each_task_class_or_pair_of_both(kind):
    stream = TinyStream("domain" if "domain" in kind.scenarios else "class")  # 3 tasks, with 2 classes each
    classes = 2 if stream.info.shared_labels else 6
    for per, slots in (("all", 20), ("task", 3 * 20), ("class", classes * 20), ("both", 6 * 20)):
        strategy = kind(MLP((1, 4, 4), stream.info.n_classes, hidden=(8,)), stream.info, memory_size=20, per=per)
        assert strategy.memory.capacity == slots
    with pytest.raises(ConfigError, match=r"strategy\.per.*'task', 'class', 'both'.*'group'"):
        kind(MLP((1, 4, 4), stream.info.n_classes, hidden=(8,)), stream.info, per="group")


def test_join_appends_and_keeps_the_type():
    stream = TinyStream("class")
    batch = next(stream[0].train.in_order(4))
    tokens = batch._replace(x=torch.tensor([[16_777_215, 3]]).expand(4, 2))
    both = join(
        tokens,
        {"x": torch.tensor([[16_777_213.0, 7.0]]), "y": torch.tensor([5]), "task": torch.tensor([2])},
        torch.tensor([True]),
    )
    assert both.x.dtype == torch.long
    assert both.x[-1].tolist() == [16_777_213, 7]
    assert both.y[-1] == 5
    assert both.task[-1] == 2


class Shell(nn.Module):
    """Reaches a memory's methods through `forward`, as a strategy does."""

    def __init__(self, memory: Memory):
        super().__init__()
        self.memory = memory

    def forward(self, kind, *args):
        if kind == "add":
            self.memory.add(*args)
            return torch.zeros(())
        key, replace = args
        fields, valid = self.memory.sample(5, key, self.memory.balance(self.memory.y % 4, 4), replace)
        return fields["x"], valid


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reservoir(20, FIELDS),
        lambda: Reservoir(20, FIELDS, 4),
        lambda: Ring(20, FIELDS, 4),
        lambda: Balanced(20, FIELDS, 4),
        lambda: Balanced(20, FIELDS, 4, newcomers=False),
    ],
)
def test_a_population_of_memories_is_the_memories_alone(make):
    together, alone = [Shell(make()) for _ in range(3)], [Shell(make()) for _ in range(3)]
    _, buffers = stack_module_state(together)
    many = getattr(together[0].memory, "groups", 1) > 1
    for i in range(12):
        key = torch.stack([step_keys(s, 0, i, 1)[0] for s in range(3)])
        y = torch.stack([torch.arange(9 * i + s, 9 * i + s + 9) for s in range(3)])
        v = {"x": torch.stack([y, -y], -1).float(), "y": y}
        group = y // 30 % 4 if many else torch.zeros_like(y)
        vmap(lambda b, *a: functional_call(together[0], b, ("add", *a)))(buffers, v, key, group)
        for s in range(3):
            alone[s]("add", {n: t[s] for n, t in v.items()}, key[s], group[s])
            for replace in (False, True):
                one = vmap(lambda b, k, r=replace: functional_call(together[0], b, ("draw", k, r)))(buffers, key)
                for a, b in zip(one, alone[s]("draw", key[s], replace), strict=True):
                    assert torch.equal(a[s], b)
    for name, stacked in buffers.items():
        for s in range(3):
            assert torch.equal(stacked[s], alone[s].state_dict()[name]), name
