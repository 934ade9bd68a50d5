"""What is trained on from a memory is augmented anew at each use, where the stream augments."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cl.cli.compose import compose
from cl.errors import AccessError
from cl.memory import augmented
from cl.results import Results
from cl.run import run
from cl.seeding import step_keys
from cl.streams import TaskStream
from cl.streams.base import TrainingView
from cl.streams.constructions import Rotated, Split
from cl.streams.data import Data, TrainingData
from cl.streams.sources import Digits
from cl.streams.transforms import Augmentation, Pipeline
from cl.testing.tiny import engine
from strategies.agem import AGEM
from strategies.combined import Combined
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

KEY = step_keys(0, 0, 0, 1)[0]
NORMALISE = {"mean": [0.3], "std": [0.5]}
KINDS = [
    (GDumb, {}),
    (ICaRL, {}),
    (Rehearsal, {"replay": "epoch"}),
]
STEPWISE = [ER, DER, DERpp, ERACE, MIR, GSS, AGEM, GEM, MER, LaMAML]


def stream(construction=None, scenario="class", crop=1, **fields):
    augmentation = {"crop": crop, "flip": True} if crop else None
    construction = construction or Split(5)
    return TaskStream(
        Digits(), construction, scenario, augmentation=augmentation, normalise=NORMALISE, samples_per_task=60, **fields
    )


def after_first_task(kind, made, **fields):
    running = engine(kind, made, epochs=1, memory_size=20, **fields)
    running.run_task(0)
    running.begin(1)
    return running


def inputs(data):
    return data.inputs(torch.arange(len(data)))


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_a_stored_sample_is_cropped_and_flipped_anew(kind, fields):
    """Each of the 9 windows of an 8 x 8 image with a black border, mirrored or not, is met, and nothing else."""
    made = stream()
    running = after_first_task(kind, made, **fields)
    parts = [p for p in running.data.parts if p.storage is running.strategy.memory.x]
    assert sum(len(p) for p in parts) >= 10
    part = parts[0]
    raw = part.storage[part.index[0]] / 16
    bordered, possible = (F.pad(raw, [1] * 4) - 0.3) / 0.5, set()
    for i in range(3):
        for j in range(3):
            window = bordered[0, i : i + 8, j : j + 8]
            possible |= {tuple(w.flatten().mul(1000).round().tolist()) for w in (window, window.flip(1))}
    met = part.batch(torch.zeros(500, dtype=torch.long), KEY).x
    assert Counter(tuple(x.flatten().mul(1000).round().tolist()) for x in met).keys() == possible
    plain = inputs(part)
    own = torch.cat([inputs(made[k].train) for k in range(2)])
    assert all((own == x).flatten(1).all(1).any() for x in plain), "without a key it is a sample of the stream"


@pytest.mark.parametrize(("kind", "fields"), [KINDS[0], KINDS[2]])
def test_every_task_keeps_its_own_change(kind, fields):
    """Rotations come after the augmentation: a stored sample of task 0 is made an input as task 0 does it."""
    made = stream(Rotated(n_tasks=3), "domain")
    running = after_first_task(kind, made, **fields)
    old = [p for p in running.data.parts if p.storage is running.strategy.memory.x and p.task == 0]
    assert len(old) == 1
    positions = torch.arange(len(old[0]))
    raw = old[0].storage[old[0].index]
    assert torch.equal(old[0].batch(positions, KEY).x, made[0].train.transform(raw, KEY))
    assert not torch.equal(old[0].batch(positions, KEY).x, made[1].train.transform(raw, KEY))


@pytest.mark.parametrize(("kind", "fields"), [*KINDS, (Rehearsal, {"replay": "step"})])
def test_without_augmentation_inputs_are_stored(kind, fields):
    made = stream(crop=0)
    running = after_first_task(kind, made, **fields)
    memory = running.strategy.memory
    own = torch.cat([inputs(made[k].train) for k in range(2)])
    assert all((own == x).flatten(1).all(1).any() for x in memory.x[memory.filled])


def test_samples_recalled_step_by_step_are_inputs():
    made = stream()
    memory = after_first_task(Rehearsal, made, replay="step").strategy.memory
    own = inputs(made[0].train)
    assert all((own == x).flatten(1).all(1).any() for x in memory.x[memory.filled])


def windows(plain):
    """Return what crops by a pixel and mirrors make of a stored image (8, 8), as inputs, in thousandths."""
    bordered, found = (F.pad(plain * 0.5 + 0.3, [1] * 4) - 0.3) / 0.5, set()
    for i in range(3):
        for j in range(3):
            window = bordered[i : i + 8, j : j + 8]
            found |= {thousandths(window), thousandths(window.flip(1))}
    return found


def thousandths(image):
    return tuple(image.flatten().mul(1000).round().tolist())


@pytest.mark.parametrize("kind", STEPWISE)
def test_what_flows_into_a_memory_is_kept_plain_and_recalled_augmented(kind, monkeypatch):
    made = stream()
    running = engine(kind, made, epochs=10, memory_size=20)
    running.run_task(0)
    memory, own = running.strategy.memory, inputs(made[0].train)
    assert memory.filled.sum() > 0
    assert all((own == x).flatten(1).all(1).any() for x in memory.x[memory.filled])
    seen, again = [], Pipeline.again

    def noted(self, x, key):
        seen.append((x, again(self, x, key)))
        return seen[-1][1]

    monkeypatch.setattr(Pipeline, "again", noted)
    running.run_task(1)
    pairs = [pair for x, y in seen for pair in zip(x[:, 0], y[:, 0], strict=True) if pair[0].any()][:300]
    assert len(pairs) >= 100
    assert all(thousandths(y) in windows(x) for x, y in pairs)
    assert 0.6 < sum(not torch.equal(x, y) for x, y in pairs) / len(pairs) < 1


@pytest.mark.parametrize("jitter", [False, True])
def test_augmenting_inputs_is_augmenting_what_is_stored(jitter):
    """To the last bit where whole numbers are stored: the place of a draw and its key are all that counts."""
    spec = {"crop": 2, "flip": True} | ({"brightness": 0.5, "contrast": 0.5} if jitter else {})
    made = TaskStream(Digits(), Split(5), augmentation=spec, normalise=NORMALISE)
    data, positions = made[0].train, torch.arange(50)
    found = made.info.augment.again(data.inputs(positions), KEY)
    exact = not data.storage.dtype.is_floating_point
    torch.testing.assert_close(found, data.inputs(positions, KEY), rtol=0, atol=0 if exact else 1e-5)


def test_two_recalls_of_a_step_are_augmented_apart():
    made = stream()
    running = engine(DERpp, made, epochs=1, memory_size=20)
    running.run_task(0)
    strategy, batch = running.strategy, made[1].train.batch(torch.arange(10), KEY)
    plain = {"x": strategy.memory.x[:20]}
    one, two = (augmented(made.info, plain, batch.key, purpose)["x"] for purpose in ("logits", "labels"))
    assert not torch.equal(one, two)
    assert torch.equal(one, augmented(made.info, plain, batch.key, "logits")["x"])


def test_two_memories_of_a_combination_are_augmented_apart():
    made = stream()
    running = engine(Combined, made, epochs=1, parts={"one": ER, "two": partial(AGEM, reference_batch=16)})
    running.run_task(0)
    one, two = running.strategy.parts.values()
    for memory in (one.memory, two.memory):  # the same image in every slot that there is
        memory.x[:] = inputs(made[0].train)[0]
    batch = made[1].train.batch(torch.arange(16), KEY)
    assert not torch.equal(one.recall(batch)[0]["x"], two.recall(batch)[0]["x"])


def test_where_a_task_changes_images_they_are_kept_as_they_were_seen():
    made = stream(Rotated(n_tasks=2), "domain")
    assert made.info.augment is None
    running = engine(ER, made, epochs=1, memory_size=20)
    running.run_task(0)
    memory, own = running.strategy.memory, inputs(made[0].train)
    assert not all((own == x).flatten(1).all(1).any() for x in memory.x[memory.filled])


@pytest.mark.parametrize("strategy", ["er", "derpp", "er_ace", "mir", "agem"])
def test_a_population_augments_what_each_replica_would(strategy, tmp_path):
    """As one program: eight replicas are the fewest that are stacked on a CPU."""
    words = [
        "stream=split_digits", "stream.scenario=class", "stream.augmentation={crop:1,flip:true}", "tracker=none",
        f"strategy={strategy}", "strategy.memory_size=40", "learner.hidden=[16]", "training.epochs=2", "measures=none",
    ]  # fmt: skip
    several = run(compose([*words, "replicas=8", f"output={tmp_path / 'a'}"]))
    for seed in (0, 5):
        [alone] = run(compose([*words, f"seed={seed}", f"output={tmp_path / 'b'}"]))
        one, other = Results.load(alone.path), Results.load(several[seed].path)
        np.testing.assert_allclose(one.train_loss, other.train_loss, rtol=2e-3, atol=2e-4)


def test_means_of_exemplars_are_those_of_plain_inputs():
    made = stream()
    running = engine(ICaRL, made, epochs=1, memory_size=20)
    running.run_task(0)
    running.run_task(1)
    icarl = running.strategy
    for c in range(4):
        raw = icarl.memory.x[icarl.memory.slots(c)]
        with torch.no_grad():
            z = F.normalize(icarl.learner.features((raw / 16 - 0.3) / 0.5)).mean(0)
        torch.testing.assert_close(icarl.means[c], z / z.norm())


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_a_run_cut_in_the_second_task_goes_on(kind, fields):
    saved = []
    whole = engine(kind, stream(), epochs=2, memory_size=20, pause=lambda e: saved.append(e.state_dict()), **fields)
    expected = whole.run()
    cut = next(s for s in saved if s["task"] == 1 and s["step"] > 0)
    resumed = engine(kind, stream(), epochs=2, memory_size=20, **fields)
    resumed.load_state_dict(cut)
    assert (resumed.run().train_loss == expected.train_loss).all()
    for name, tensor in whole.strategy.state_dict().items():
        assert torch.equal(tensor, resumed.strategy.state_dict()[name])


def test_how_later_tasks_become_inputs_is_not_told():
    view = TrainingView(stream(), 1, "current", "Somebody")
    assert view.later(0) is not None
    with pytest.raises(AccessError, match="up to 1 during that task, got task 2"):
        view.later(2)


def test_parts_of_a_batch_are_augmented_apart():
    """The i-th new sample and the i-th old one were flipped alike; columns 0 1 2 3 show a flip."""
    flip = Pipeline(None, None, torch.zeros(()), Augmentation(flip=True), 1.0)
    x, labels = torch.arange(4.0).repeat(64, 1, 4, 1), torch.zeros(64, dtype=torch.long)
    both = TrainingData([Data(x.clone(), torch.arange(64), labels, k, flip) for k in (1, 0)])
    positions = torch.tensor([0, 1, 2, 3, 64, 65, 66, 67])
    keys = step_keys(0, 0, 0, 500)
    flipped = torch.stack([b.x[:, 0, 0, 0] == 3 for b in both.batches([positions] * 500, keys)])
    assert len(both.parts) == 2
    for part in (flipped[:, :4], flipped[:, 4:]):
        assert abs(part.double().mean() - 0.5) < 4 * 0.5 / 2000**0.5
    alike = (flipped[:, :4] == flipped[:, 4:]).double().mean()
    assert abs(alike - 0.5) < 4 * 0.5 / 2000**0.5
