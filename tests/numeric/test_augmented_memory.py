"""What is trained on from a memory is augmented anew at each use, where the stream augments."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from cl.errors import AccessError
from cl.seeding import step_keys
from cl.streams import TaskStream
from cl.streams.base import TrainingView
from cl.streams.constructions import Rotated, Split
from cl.streams.data import Data, TrainingData
from cl.streams.sources import Digits
from cl.streams.transforms import Augmentation, Pipeline
from cl.testing.tiny import engine
from strategies.gdumb import GDumb
from strategies.icarl import ICaRL
from strategies.rehearsal import Rehearsal

KEY = step_keys(0, 0, 0, 1)[0]
NORMALISE = {"mean": [0.3], "std": [0.5]}
KINDS = [
    (GDumb, {}),
    (ICaRL, {}),
    (Rehearsal, {"replay": "epoch"}),
]


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
