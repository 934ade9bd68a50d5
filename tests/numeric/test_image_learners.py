"""The image networks against torchvision's network, published sizes and hand-worked values."""

import itertools

import pytest
import scipy.stats
import torch
from torch import nn

from cl.errors import ConfigError
from cl.learners import layers
from cl.learners.cnn import CNN
from cl.learners.layers import initialise, norm
from cl.learners.mlp import MLP
from cl.learners.resnet import BasicBlock, ResNet18


def test_full_resnet_is_torchvisions_network():
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(weights=None).eval()
    ours = ResNet18((3, 224, 224), 1000, width=64, stem="imagenet").eval()
    assert sum(p.numel() for p in ours.parameters()) == 11_689_512
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():  # both list their layers from the input to the output
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert a.shape == b.shape
            a.copy_(b)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_slim_resnet_has_the_size_of_gem():
    """Counted from GEM's ResNet18(nclasses, nf=20): stem, eight blocks, three shortcuts, linear layer."""
    ours = ResNet18((3, 32, 32), 100)
    stages = [(20, 20), (20, 40), (40, 80), (80, 160)]
    count = 3 * 20 * 9 + 2 * 20
    for size_in, size_out in stages:
        count += 9 * size_in * size_out + 3 * 9 * size_out**2 + 4 * 2 * size_out
        count += (size_in * size_out + 2 * size_out) if size_in != size_out else 0
    count += 160 * 100 + 100
    assert sum(p.numel() for p in ours.parameters()) == count == 1_109_240
    assert ours.eval().activations(torch.rand(1, 3, 32, 32))[-1].shape == (1, 160, 4, 4)


@pytest.mark.parametrize("name", ["batch", "group", "layer", "none"])
def test_zero_residual_starts_as_the_shortcut(name):
    block = BasicBlock(6, 6, 6, 1, name, "relu", zero=True).eval()
    block.close()
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(block(x), x.relu())


def test_cnn_by_hand():
    """One channel, an averaging kernel, ReLU, max pooling and a head of ones: worked out on paper."""
    net = CNN((1, 4, 4), 1, channels=[1], kernel=1, hidden=[])
    with torch.no_grad():
        net.blocks[0][0].weight.fill_(2.0)
        net.blocks[0][0].bias.fill_(-10.0)
        net.head.weight.fill_(1.0)
        net.head.bias.zero_()
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    # 2 x - 10 of the maxima 5, 7, 13, 15 of the four squares: 0, 4, 16, 20
    assert net(x).item() == 40.0


def test_sizes_of_the_flattened_part():
    assert CNN((3, 32, 32), 10, channels=[8, 16], hidden=[]).head.in_features == 16 * 8 * 8
    assert CNN((1, 28, 28), 10, channels=[8, 16, 32], hidden=[]).head.in_features == 32 * 3 * 3
    assert CNN((1, 28, 28), 10, channels=[8, 16, 32], hidden=[], pooling="stride").head.in_features == 32 * 4 * 4
    assert CNN((1, 28, 28), 10, channels=[8, 16], hidden=[], global_pooling=True).head.in_features == 16


def test_too_many_poolings_and_samples_that_are_no_images():
    with pytest.raises(ConfigError, match=r"`learner.channels` at most 2 long"):
        CNN((1, 4, 4), 2, channels=[4, 4, 4])
    with pytest.raises(ConfigError, match="mlp"):
        CNN((12,), 2)
    with pytest.raises(ConfigError, match="mlp"):
        ResNet18((12, 3), 2)


@pytest.mark.parametrize("shape", [(7,), (5, 3), (1, 4, 4), (2, 3, 4, 5)])
def test_mlp_takes_any_shape(shape):
    net = MLP(shape, 3, hidden=6)
    assert net(torch.rand(2, *shape)).shape == (2, 3)
    x = torch.rand(2, *shape)
    layer = net.blocks[0][1]
    torch.testing.assert_close(net.features(x), (x.reshape(2, -1) @ layer.weight.T + layer.bias).relu())


@pytest.mark.parametrize(("name", "std"), [("kaiming", (2 / 300) ** 0.5), ("xavier", (2 / 500) ** 0.5)])
def test_scale_of_initial_weights(name, std):
    layer = nn.Sequential(nn.Linear(300, 200))
    initialise(layer, name)
    assert abs(layer[0].weight.std().item() / std - 1) < 0.02
    assert not layer[0].bias.any()


@pytest.mark.parametrize("name", ["normal", "truncated_normal"])
def test_initial_weights_of_a_given_deviation(name):
    """A normal law cut at two deviations keeps (1 - 4 phi(2) / (2 Phi(2) - 1))^.5 = .8796 of its deviation."""
    net = MLP((784,), 10, hidden=(256,), init=name, init_std=0.1, init_bias=0.05)
    weights = net.blocks[0][1].weight.detach() / 0.1
    law = scipy.stats.truncnorm(-2, 2) if name == "truncated_normal" else scipy.stats.norm
    assert scipy.stats.kstest(weights.flatten().numpy(), law.cdf).pvalue > 1e-3
    assert abs(weights.std().item() / law.std() - 1) < 0.01
    for layer in (net.blocks[0][1], net.head):
        torch.testing.assert_close(layer.bias.detach(), torch.full_like(layer.bias, 0.05))
    for std in (0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"Expected `learner\.init_std` > 0 and finite, got"):
            MLP((784,), 10, init=name, init_std=std)
    with pytest.raises(ConfigError, match=r"Expected `learner\.init_std` null unless `learner\.init` is in \["):
        MLP((784,), 10, init="xavier", init_std=0.1)
    with pytest.raises(ConfigError, match=r"Expected `learner\.init_bias` a finite number or null, got inf"):
        MLP((784,), 10, init=name, init_bias=float("inf"))


def test_biases_may_start_anywhere_with_torchs_own_weights():
    torch.manual_seed(0)
    plain = CNN((1, 8, 8), 3, channels=(4,))
    torch.manual_seed(0)
    moved = CNN((1, 8, 8), 3, channels=(4,), init_bias=0.1)
    for (name, a), (_, b) in zip(plain.named_parameters(), moved.named_parameters(), strict=True):
        torch.testing.assert_close(b, torch.full_like(a, 0.1) if name.endswith("bias") else a, rtol=0, atol=0)


def test_orthogonal_weights_are_orthogonal():
    layer = nn.Sequential(nn.Linear(30, 20))
    initialise(layer, "orthogonal", "tanh")
    w = layer[0].weight / nn.init.calculate_gain("tanh")
    torch.testing.assert_close(w @ w.T, torch.eye(20), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["layer", "group"])
def test_norms_act_on_each_sample_alone(name):
    x = torch.randn(4, 12, 3, 3) * 5 + 2
    out = norm(name, 12, spatial=True)[0](x)
    groups = 1 if name == "layer" else 4
    parts = out.reshape(4, groups, -1)
    torch.testing.assert_close(parts.mean(2), torch.zeros(4, groups), rtol=0, atol=1e-5)
    torch.testing.assert_close(parts.var(2, unbiased=False), torch.ones(4, groups), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [CNN, ResNet18, lambda s, n: CNN(s, n, norm="batch", pooling="average")])
@pytest.mark.parametrize("planes", [1, 3])
def test_on_a_cpu_the_channels_of_a_place_lie_side_by_side_and_nothing_else_changes(make, planes):
    net, x = make((planes, 8, 8), 4).double().eval(), torch.rand(5, planes, 8, 8, dtype=torch.float64)
    plain, layout = x, torch.channels_last
    for block, found in zip(net.blocks, net.activations(x), strict=True):
        plain = block(plain)
        torch.testing.assert_close(found, plain)
        assert found.dim() < 4 or found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(net(x), net.head(net.pool(plain)))
    grads = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    plainly = torch.autograd.grad(net.head(net.pool(plain)).square().sum(), list(net.parameters()))
    torch.testing.assert_close(grads, plainly)
    each = torch.func.vmap(lambda image: net(image[None])[0])(x)  # a transform keeps the layout that it knows
    torch.testing.assert_close(each, net(x))


@pytest.mark.parametrize("make", [MLP, CNN, ResNet18])
@pytest.mark.parametrize("budget", [70_000, 420_000])
def test_a_budget_of_parameters_is_met(make, budget):
    net = make((1, 28, 28), 10, parameters=budget)
    assert abs(sum(p.numel() for p in net.parameters()) - budget) <= 0.02 * budget
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(ConfigError, match=r"learner\.parameters"):
        make((1, 28, 28), 10, parameters=3)


def test_a_budget_keeps_the_proportions():
    assert MLP((4,), 2, hidden=(300, 100), parameters=12_000).widths == (180, 60)  # 5 * 180 + 181 * 60 + 61 * 2
    own = CNN((1, 28, 28), 10)
    same = CNN((1, 28, 28), 10, parameters=sum(p.numel() for p in own.parameters()))
    assert same.widths == own.widths == (32, 64, 128)


def test_a_budget_of_a_resnet_sets_its_width_and_what_is_left_goes_into_the_last_blocks():
    """Width 20 has 1,109,240 (GEM); a channel more between the last block's convolutions costs 9 * (160 + 160) + 2."""
    net = ResNet18((3, 32, 32), 100, parameters=1_109_240 + 2_882)
    inner = [block.residual[0].out_channels for block in net.blocks[1:]]
    assert net.widths[-1] == 160
    assert inner == [20, 20, 40, 40, 80, 80, 160, 161]
    assert sum(p.numel() for p in net.parameters()) == 1_112_122


def test_sizes_grow_one_at_a_time():
    sizes = [layers.scaled((400, 400, 100), n) for n in range(1, 2000)]
    assert sizes[899] == (400, 400, 100)
    for before, after in itertools.pairwise(sizes):
        assert all(0 <= b - a <= 1 for a, b in zip(before, after, strict=True))
        assert sum(b - a for a, b in zip(before, after, strict=True)) <= 2
