"""Joint and cumulative training against a bare PyTorch loop over the concatenated tasks."""

import pytest
import torch
import torch.nn.functional as F

from cl.learners.mlp import MLP
from cl.seeding import derive, generator, seeded
from cl.streams.data import Data, TrainingData
from cl.testing.tiny import TinyStream, adam, engine, train
from strategies.cumulative import Cumulative
from strategies.joint import Joint


def bare_loop(stream, epochs, batch_size):
    with seeded(0, "learner"):
        net = MLP(stream.info.input_shape, stream.info.n_classes, hidden=(16, 16))
    x = torch.cat([stream[k].train.inputs(torch.arange(80)) for k in range(3)])
    y = torch.cat([stream[k].train.labels for k in range(3)])
    optimizer = adam(net.parameters())
    for epoch in range(epochs):
        for rows in torch.randperm(240, generator=generator(0, "order", 0, epoch)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net


def test_joint_is_offline_training_on_the_union():
    stream = TinyStream("class")
    trained = train(Joint, stream, epochs=3)
    net = bare_loop(stream, 3, 16)
    for mine, reference in zip(trained.strategy.learner.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, reference)
    assert trained.record.task_steps == [3 * 240 // 16, 0, 0]
    assert (trained.record.accuracy[1] == trained.record.accuracy[3]).all()


def test_joint_counted_in_steps_takes_the_steps_of_all_tasks():
    data = Joint.training_data(engine(Joint, TinyStream("class")).strategy, TinyStream("class"), 0)
    assert (data.tasks, len(data)) == (3, 240)


def test_retrained_joint_starts_each_task_from_another_network():
    trained = train(Joint, TinyStream("class"), epochs=1, retrain=True)
    assert trained.record.task_steps == [5, 10, 15]
    with seeded(0, "network", 2):
        fresh = trained.strategy.learner.fresh()
    other = train(Joint, TinyStream("class"), epochs=1, retrain=True)
    assert torch.equal(other.strategy.learner.head.weight, trained.strategy.learner.head.weight)
    assert fresh.head.weight.shape == trained.strategy.learner.head.weight.shape
    assert (fresh.head.weight - trained.strategy.learner.head.weight).abs().mean() < 0.2


@pytest.mark.parametrize(("batch_scale", "steps"), [(False, [5, 10, 15]), (True, [5, 5, 5])])
def test_cumulative_steps(batch_scale, steps):
    trained = train(Cumulative, TinyStream("domain"), epochs=1, batch_scale=batch_scale)
    assert trained.record.task_steps == steps
    assert trained.record.samples == 80 + 160 + 240


def test_parts_of_one_storage_are_read_as_one_and_stay_what_they_were():
    stream = TinyStream("class")
    parts = [stream[k].train for k in range(3)]
    joined = TrainingData(parts, repeats=[1, 2, 1])
    other = [Data(p.storage.clone(), p.index, p.labels, p.task) for p in parts]  # cannot be joined
    apart = TrainingData(other, repeats=[1, 2, 1])
    assert (len(joined.parts), len(apart.parts), len(joined)) == (1, 3, 320)
    where, key = torch.randperm(320, generator=generator(0, "test")), torch.tensor(derive(0, "key"))
    one, many = next(joined.batches([where], [key])), next(apart.batches([where], [key]))
    for field in ("x", "y", "task"):
        assert torch.equal(getattr(one, field), getattr(many, field))
    few = joined.parts[0].subset(torch.tensor([0, 319]))
    assert few.batch(torch.tensor([1, 0]), key).task.tolist() == [2, 0]


def test_positions_count_through_parts_of_any_size():
    stream = TinyStream("class")
    rows = [torch.arange(7), torch.arange(30, 35), torch.arange(3)]
    parts = [stream[k].train.subset(r) for k, r in enumerate(rows)]
    other = [Data(p.storage.clone(), p.index, p.labels, p.task) for p in parts]  # cannot be joined
    key = torch.tensor(derive(0, "key"))
    for data in (TrainingData(parts, [1, 2, 1]), TrainingData(other, [1, 2, 1])):
        (batch,) = data.batches([torch.arange(20)], [key])
        order = [part.inputs(torch.arange(len(part))) for part in (parts[0], parts[1], parts[1], parts[2])]
        assert torch.equal(batch.x, torch.cat(order))
        assert batch.task.tolist() == [0] * 7 + [1] * 10 + [2] * 3
