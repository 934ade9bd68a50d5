"""PackNet and HAT: what belongs to an earlier task does not move, whatever the optimiser."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from cl.errors import ConfigError
from cl.learners.base import Learner
from cl.learners.chain import as_inputs, chain
from cl.learners.cnn import CNN
from cl.learners.mlp import MLP
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU, LSTM, RNN
from cl.learners.resnet import ResNet18
from cl.learners.ssm import StateSpace
from cl.learners.tcn import TCN, CausalConv
from cl.learners.transformer import Transformer
from cl.streams.data import Data
from cl.testing.tiny import TinySequences, TinyStream, engine, state, train
from strategies.hat import HAT
from strategies.packnet import PackNet
from strategies.pruning import Pruning
from strategies.xdg import XdG


class Normalised(Learner):
    def __init__(self, n_classes, norm=nn.LayerNorm):
        super().__init__()
        first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        second = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 12), norm(12), nn.ReLU())
        self.blocks, self.head = nn.ModuleList([first, second]), nn.Linear(12, n_classes)
        self.widths = (6, 12)


def normalised(info):
    return Normalised(info.n_classes)


def predictions(strategy, stream, task):
    data = stream.test(task)
    with torch.no_grad():
        return strategy.eval().predict(data.inputs(torch.arange(len(data))), task).clone()


@pytest.mark.parametrize("prune", [0.5, 0.75])
def test_packnet_keeps_predictions_bit_for_bit(prune):
    stream = TinyStream("task")
    made = engine(PackNet, stream, make_learner=normalised, prune=prune, retrain_epochs=2)
    made.run_task(0)
    before = predictions(made.strategy, stream, 0)
    made.strategy.train()
    made.run_task(1)
    middle = predictions(made.strategy, stream, 1)
    made.strategy.train()
    made.run_task(2)
    assert torch.equal(before, predictions(made.strategy, stream, 0))
    assert torch.equal(middle, predictions(made.strategy, stream, 1))


def test_packnet_answers_a_task_in_training_with_all_weights():
    """Those that are still free among them, which it trains; the tasks before it without."""
    made = engine(PackNet, TinyStream("task"), prune=0.5)
    made.run_task(0)
    made.begin(1)
    for batch in made.batches():
        made.strategy.step(batch, made.update)
    strategy, x = made.strategy.eval(), next(made.stream.test(1).in_order(99)).x
    free = strategy.owner["blocks.0.1.weight"] == 0
    assert strategy.learner.blocks[0][1].weight[free].any()
    with torch.no_grad():
        torch.testing.assert_close(strategy.predict(x, 1)[:, 2:4], strategy.learner(x)[:, 2:4], rtol=0, atol=0)
        assert not torch.allclose(strategy.predict(x, 0)[:, :2], strategy.learner(x)[:, :2])


def test_packnet_leaves_the_whole_clip_to_free_weights():
    """The step of SGD with rate 1 is the clipped gradient; what is put back afterwards is no part of it."""
    made = engine(PackNet, TinyStream("task"), prune=0.25)
    made.update.make_optimizer, made.update.clip_norm = (lambda p: torch.optim.SGD(p, lr=1.0)), 1e-3
    made.run_task(0)
    made.begin(1)
    before = [p.detach().clone() for p in made.strategy.parameters()]
    made.strategy.step(next(made.batches()), made.update)
    moved = [(p - b).flatten() for p, b in zip(made.strategy.parameters(), before, strict=True)]
    assert float(torch.cat(moved).detach().norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_hat_refuses_norms_over_units(norm):
    """What such a norm makes of protected units depends on the free ones, which later tasks train."""
    with pytest.raises(ConfigError, match=r"`learner\.norm` none or batch for hat"):
        engine(HAT, TinyStream("task"), make_learner=lambda i: MLP(i.input_shape, i.n_classes, hidden=(8,), norm=norm))


def test_packnet_gives_each_task_its_share():
    strategy = train(PackNet, TinyStream("task"), epochs=2, prune=0.75, retrain_epochs=1).strategy
    owner = strategy.owner["blocks.1.0.weight"]
    counts = [int((owner == k).sum()) for k in (1, 2, 3, 0)]
    assert counts == [64, 48, 144, 0]  # of 256: a quarter, a quarter of the rest, and all that is left


def test_packnet_neither_prunes_nor_retrains_after_the_last_task():
    made = engine(PackNet, TinyStream("task"), prune=0.75, retrain_epochs=5, retrain_lr=0.5)
    for k in range(2):
        made.run_task(k)
        assert (made.strategy.learner.blocks[1][0].weight[made.strategy.owner["blocks.1.0.weight"] == 0] == 0).all()
    made.strategy.retrain = None  # calling it would fail
    made.run_task(2)
    assert (made.strategy.owner["blocks.1.0.weight"] > 0).all()


SEQUENTIAL = {
    "gru": lambda *a, **f: GRU(*a, hidden=8, **f),
    "lstm": lambda *a, **f: LSTM(*a, hidden=8, layers=2, bidirectional=True, **f),
    "rnn": lambda *a, **f: RNN(*a, hidden=8, **f),
    "ntm": lambda *a, **f: NTM(*a, hidden=8, slots=4, slot_size=3, **f),
    "s4d": lambda *a, **f: StateSpace(*a, width=8, states=4, **f),
    "tcn": lambda *a, **f: TCN(*a, channels=6, kernel=2, **f),
    "transformer": lambda *a, **f: Transformer(*a, width=8, heads=2, **f),
}


def sequential(name):
    def make(info):
        return SEQUENTIAL[name](info.input_shape, info.n_classes, vocabulary=info.vocabulary, padded=True, embedding=6)

    return make


@pytest.mark.parametrize("name", list(SEQUENTIAL))
def test_packnet_shares_out_the_weights_of_sequence_learners(name):
    """All matrices have owned and free weights after task 1, whose answers stay as they are to the last bit."""
    stream = TinySequences("padded", "task", tasks=3)
    made = engine(PackNet, stream, make_learner=sequential(name), prune=0.75, retrain_epochs=1)
    made.run_task(0)
    owner = made.strategy.owner
    matrices = {n for n, p in made.strategy.learner.named_parameters() if p.dim() > 1 and not n.startswith("head.")}
    not_weights = {n for n in matrices if n.endswith((".length", ".log_decay", ".frequency"))}
    assert matrices - not_weights == set(owner.names)
    for _, of in owner.items():
        assert 0.2 < float((of == 1).float().mean()) < 0.35
        assert ((of == 0) | (of == 1)).all()
    before = predictions(made.strategy, stream, 0)
    kept = state(made.strategy.learner)
    made.strategy.train()
    made.run_task(1)
    moved = [n for n, p in made.strategy.learner.named_parameters() if n in owner and not torch.equal(p, kept[n])]
    assert set(moved) == set(owner.names)  # the second task learns in every layer
    middle = predictions(made.strategy, stream, 1)
    made.strategy.train()
    made.run_task(2)
    assert torch.equal(before, predictions(made.strategy, stream, 0))
    assert torch.equal(middle, predictions(made.strategy, stream, 1))


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_pruning_cuts_recurrent_weights(scope):
    make = sequential("gru")
    made = engine(Pruning, TinySequences("padded", "class"), make_learner=make, share=0.5, scope=scope)
    made.run_task(0)
    weights = {n: p for n, p in made.strategy.learner.named_parameters() if "weight_" in n}
    assert len(weights) == 2
    for name, p in weights.items():
        cut = made.strategy.cut[name]
        assert 0 < int(cut.sum()) < cut.numel()
        assert (p[cut] == 0).all()


class NoConnections(Learner):
    """Looks its answers up."""

    def __init__(self, n_classes):
        super().__init__()
        self.blocks, self.widths = nn.ModuleList([nn.Flatten()]), (16,)
        self.head = nn.Linear(16, n_classes)


@pytest.mark.parametrize("strategy", [PackNet, Pruning])
def test_a_learner_with_nothing_to_prune_is_refused(strategy):
    with pytest.raises(ConfigError, match=r"`learner` with weights of connections for (packnet|pruning), got NoConn"):
        engine(strategy, TinyStream("task"), make_learner=lambda info: NoConnections(info.n_classes))


def test_a_kernel_without_weights_is_silent():
    """Its direction is not defined; before, it made every answer a nan."""
    net = CausalConv(2, 3, 2, 1, "weight")
    with torch.no_grad():
        net.convolution.weight[1] = 0
    x = torch.rand(4, 2, 5)
    out = net(x)
    assert torch.equal(out[:, 1], net.convolution.bias[1].expand(4, 5))
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_packnet_frees_the_smallest_weights():
    made = engine(PackNet, TinyStream("task"), prune=0.75, retrain_epochs=0)
    made.stream = TinyStream("task")
    seen = {}
    end = made.strategy.end_task

    def watch(task):
        seen["before"] = made.strategy.learner.blocks[0][1].weight.detach().clone()
        end(task)

    made.strategy.end_task = watch
    made.run_task(0)
    owner = made.strategy.owner["blocks.0.1.weight"]
    assert seen["before"][owner == 1].abs().min() >= seen["before"][owner == 0].abs().max()


def test_retraining_leaves_freed_weights_at_zero_and_moves_the_others():
    runs = {n: engine(PackNet, TinyStream("task"), prune=0.5, retrain_epochs=n) for n in (0, 3)}
    for run in runs.values():
        run.run_task(0)
    plain, retrained = (runs[n].strategy for n in (0, 3))
    free = retrained.owner["blocks.0.1.weight"] == 0
    assert (retrained.learner.blocks[0][1].weight[free] == 0).all()
    assert not torch.equal(plain.learner.blocks[0][1].weight, retrained.learner.blocks[0][1].weight)


def test_retraining_takes_another_order_in_every_epoch(monkeypatch):
    made, orders = engine(PackNet, TinyStream("task"), prune=0.5, retrain_epochs=3, retrain_batch_size=80), []
    batch = Data.batch
    made.begin(0)
    monkeypatch.setattr(
        Data, "batch", lambda self, where, key: orders.append(where.tolist()) or batch(self, where, key)
    )
    made.strategy.end_task(made.stream[0])
    assert [sorted(order) for order in orders] == [list(range(80))] * 3
    assert len({tuple(order) for order in orders}) == 3


def used_by_hand(strategy, make_below):
    for used in strategy.used():
        used.copy_(make_below(used))


def test_hat_masks_are_one_minus_the_smaller_use():
    made = engine(HAT, TinyStream("task"), make_learner=lambda info: Normalised(info.n_classes, nn.BatchNorm1d))
    strategy = made.strategy
    g = torch.Generator().manual_seed(0)
    used_by_hand(strategy, lambda u: torch.rand(u.shape, generator=g))
    first, second = (u.numpy() for u in strategy.used())
    masks = strategy.masks()
    assert masks.keys() == {n for n, _ in strategy.named_parameters()}
    weight = masks["learner.blocks.1.2.weight"].numpy()
    for out, channel, place in itertools.product(range(12), range(6), range(4)):
        np.testing.assert_allclose(weight[out, 4 * channel + place], 1 - min(second[out], first[channel]), rtol=1e-6)
    kernel = masks["learner.blocks.0.0.weight"].numpy()
    np.testing.assert_allclose(kernel, np.broadcast_to((1 - first)[:, None, None, None], (6, 1, 3, 3)), rtol=1e-6)
    np.testing.assert_allclose(masks["learner.blocks.0.1.bias"].numpy(), 1 - first, rtol=1e-6)
    assert masks["learner.head.bias"].tolist() == [1, 1, 0, 0, 0, 0]


def test_hat_of_a_shared_head_frees_what_reads_unused_units():
    """And its bias belongs to the first task."""
    stream = TinyStream("task")
    strategy = HAT(MLP((1, 4, 4), 6, hidden=(8, 5), head="single"), stream.info)
    g = torch.Generator().manual_seed(0)
    used_by_hand(strategy, lambda u: torch.rand(u.shape, generator=g))
    for k in range(2):
        strategy.enter(k)
        masks = strategy.masks()
        torch.testing.assert_close(masks["learner.head.weight"], (1 - strategy.used()[1]).expand(6, 5))
        assert masks["learner.head.bias"].tolist() == [float(k == 0)] * 6


def test_hat_loss_asks_for_few_units_not_used_before():
    """Equation 4: the regulariser is the mean gate of the units, each weighed by how free it is."""
    stream = TinyStream("task")
    strategy = engine(HAT, stream, strength=2.0, s_max=40.0).strategy
    g = torch.Generator().manual_seed(0)
    used_by_hand(strategy, lambda u: torch.rand(u.shape, generator=g))
    strategy.enter(1)
    strategy.begin_task(stream[1])
    strategy.position.fill_(40)
    batch = stream[1].train.batch(torch.arange(10), torch.zeros((), dtype=torch.long))
    s = 1 / 40 + (40 - 1 / 40) * 40 / 70
    gates = [1 / (1 + torch.exp(-s * e[1].detach())) for e in strategy.embeddings]
    free = [1 - u for u in strategy.used()]
    cost = sum((a * f).sum() for a, f in zip(gates, free, strict=True)) / sum(f.sum() for f in free)
    logits = strategy.learner(batch.x, gates)[:, 2:4]
    expected = nn.functional.cross_entropy(logits, batch.y - 2) + 2 * cost
    torch.testing.assert_close(strategy.loss(batch)[0], expected)


def test_hat_keeps_the_largest_use_of_each_unit_and_embeddings_within_bounds():
    stream = TinyStream("task")
    strategy = engine(HAT, stream, s_max=2.0).strategy
    with torch.no_grad():
        strategy.embeddings[0].mul_(10)
        strategy.before.copy_from(strategy)
        strategy.after_step(None, {})
    assert strategy.embeddings[0].abs().max() == 6
    for k in range(3):
        strategy.end_task(stream[k])
    for used, e in zip(strategy.used(), strategy.embeddings, strict=True):
        torch.testing.assert_close(used, torch.sigmoid(2 * e.detach()).amax(0))


def test_hat_keeps_weights_between_used_units():
    made = engine(HAT, TinyStream("task"), epochs=6)
    for k in range(2):
        made.run_task(k)
    used = [u > 0.999 for u in made.strategy.used()]
    assert all(u.any() for u in used)
    layers = chain(made.strategy.learner, "hat")
    between = used[1][:, None] & as_inputs(used[0].float(), layers[1]).bool()
    before = layers[1].weight.detach().clone()
    made.run_task(2)
    change = (layers[1].weight - before).abs()
    assert change[between].max() < 1e-2 * change[~between].max()


def test_hat_anneals_within_an_epoch():
    strategy = engine(HAT, TinyStream("task"), s_max=100.0).strategy
    stream = TinyStream("task")
    strategy.enter(0)
    strategy.begin_task(stream[0])
    slopes = []
    for step in range(10):
        batch = stream[0].train.batch(torch.arange(16), torch.tensor(step))
        _, aux = strategy.loss(batch)
        strategy.position.copy_(aux["position"])
        slopes.append(float(aux["s"]))
    expected = 0.01 + (100 - 0.01) * np.arange(5) / 4
    np.testing.assert_allclose(slopes, [*expected, *expected], rtol=1e-5)


def test_hat_begins_every_task_with_the_smallest_slope_and_trains_its_own_embedding():
    """Also where the task before ended in the middle of an epoch."""
    stream = TinyStream("task")
    strategy = engine(HAT, stream, s_max=100.0).strategy
    strategy.position.fill_(48)
    strategy.enter(1)
    strategy.begin_task(stream[1])
    _, aux = strategy.loss(stream[1].train.batch(torch.arange(16), torch.tensor(0)))
    assert float(aux["s"]) == pytest.approx(0.01)
    masks = strategy.masks()
    for i in range(2):
        assert masks[f"embeddings.{i}"].tolist() == [[0.0] * 16, [1.0] * 16, [0.0] * 16]


def test_hat_undoes_the_annealing_in_the_embedding_gradient():
    strategy = engine(HAT, TinyStream("task"), s_max=50.0).strategy
    e = strategy.embeddings[0]
    e.data.clamp_(-1, 1)
    s = torch.tensor(3.0)
    upstream = torch.rand(e.shape, generator=torch.Generator().manual_seed(0))
    (raw,) = torch.autograd.grad((torch.sigmoid(s * e) * upstream).sum(), e)
    (wanted,) = torch.autograd.grad((torch.sigmoid(e) * upstream).sum(), e)  # as if s were 1, times s_max
    with torch.no_grad():
        edited = strategy.gradients({"embeddings.0": raw, "embeddings.1": raw}, None, {"s": s})["embeddings.0"]
    torch.testing.assert_close(edited, 50.0 * wanted)


def test_chain_asks_for_one_layer_a_block():
    assert len(chain(CNN((1, 8, 8), 4, channels=(4,), hidden=(8,)), "x")) == 3
    with pytest.raises(ValueError, match="one weight layer a block"):
        chain(ResNet18((1, 8, 8), 4), "x")


@pytest.mark.parametrize(("share", "on"), [(0.0, 2), (0.5, 1), (0.8, 1), (0.99, 1)])
def test_gates_leave_a_unit_of_a_small_layer_on(share, on):
    stream = TinyStream("task")
    made = XdG(MLP(stream.info.input_shape, 6, hidden=(16, 2)), stream.info, share=share)
    assert made.gate_1.sum(1).tolist() == [on] * 3
