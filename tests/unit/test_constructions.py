import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from cl.errors import ConfigError
from cl.streams.changes import Permutation, Rotation
from cl.streams.constructions import Corrupted, Permuted, Relabelled, Rotated, Sequence, Split
from cl.streams.corruption import CORRUPTIONS
from cl.streams.sources import Samples, Table

SHAPE = (1, 4, 4)


def table(classes: int, groups: tuple[tuple[int, ...], ...] = ()) -> Table:
    y = torch.arange(classes).repeat(3)
    samples = Samples(torch.zeros(len(y), *SHAPE, dtype=torch.uint8), y)
    names = tuple(f"g{i}" for i in range(len(groups)))
    return Table(samples, samples, tuple(str(c) for c in range(classes)), groups, names)


@settings(deadline=None, max_examples=60)
@given(classes=st.integers(1, 40), tasks=st.integers(1, 45), seed=st.integers(-5, 5), shuffled=st.booleans())
def test_split_drops_no_class(classes, tasks, seed, shuffled):
    construction = Split(tasks, class_order="shuffled" if shuffled else "fixed")
    if tasks > classes:
        with pytest.raises(ConfigError, match=f"`stream.construction.n_tasks` <= {classes}.*got {tasks}"):
            construction.pieces(table(classes), SHAPE, seed)
        return
    pieces = construction.pieces(table(classes), SHAPE, seed)
    assert len(pieces) == tasks
    assert sorted(c for piece in pieces for c in piece.classes) == list(range(classes))
    sizes = [len(piece.classes) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_split_order_comes_from_the_seed():
    orders = {tuple(Split(10, class_order="shuffled").pieces(table(10), SHAPE, s)) for s in range(20)}
    assert len(orders) == 20
    assert [p.classes for p in Split(5).pieces(table(10), SHAPE, 3)] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]


def test_split_by_sizes_and_lists():
    assert [p.classes for p in Split(sizes=[3, 1]).pieces(table(4), SHAPE, 0)] == [(0, 1, 2), (3,)]
    assert [p.classes for p in Split(classes=[[3, 0], [1, 2]]).pieces(table(4), SHAPE, 0)] == [(3, 0), (1, 2)]
    assert [p.classes for p in Split(classes=[[3], [1]]).pieces(table(4), SHAPE, 0)] == [(3,), (1,)]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "exactly one of"),
        ({"n_tasks": 2, "sizes": [2, 2]}, "exactly one of"),
        ({"n_tasks": 0}, "`stream.construction.n_tasks` > 0, got 0"),
        ({"sizes": [2, 1]}, "sum to the 4 classes"),
        ({"classes": [[0, 1], [4]]}, "classes from 0 to 3, none of them twice"),
        ({"classes": [[0, 1], [1, 2, 3]]}, "classes from 0 to 3, none of them twice"),
        ({"classes": []}, "classes from 0 to 3, none of them twice"),
        ({"classes": [[0, 1, 2, 3], []]}, "no empty task"),
        ({"n_tasks": 2, "class_order": "random"}, "`stream.construction.class_order`"),
    ],
)
def test_impossible_splits(fields, text):
    with pytest.raises(ConfigError, match=text):
        Split(**fields).pieces(table(4), SHAPE, 0)


def test_permuted_tasks_permute():
    pieces = Permuted(5).pieces(table(10), SHAPE, 0)
    assert pieces[0].change is None
    orders = [piece.change.order for piece in pieces[1:]]
    for order in orders:
        torch.testing.assert_close(order.sort().values, torch.arange(16))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert Permuted(5, permute_first=True).pieces(table(10), SHAPE, 0)[0].change is not None
    other = Permuted(5).pieces(table(10), SHAPE, 1)[1].change
    assert not torch.equal(other.order, orders[0])


def test_permutation_moves_pixels_and_keeps_channels():
    x = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(1, 2, 3, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    out = Permutation(order)(x, torch.zeros(()))
    for c in range(2):
        assert out[0, c].flatten().tolist() == [float(x[0, c].flatten()[i]) for i in order]


@pytest.mark.parametrize("steps", [True, False])
def test_permuted_sequences(steps):
    change = Permuted(1, permute_first=True, steps=steps).pieces(table(3), (5, 2), 0)[0].change
    assert len(change.order) == (5 if steps else 10)
    x = torch.arange(20.0).reshape(2, 5, 2)
    out = change(x, torch.zeros(()))
    flat = x if steps else x.reshape(2, 10)
    assert torch.equal(out.reshape(flat.shape), flat[:, change.order])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("quarter", [0, 1, 2, 3, -1, 5])
def test_rotation_by_quarters_is_rot90(interpolation, quarter):
    x = torch.rand(3, 2, 7, 7, generator=torch.Generator().manual_seed(1))
    out = Rotation(90.0 * quarter, (7, 7), interpolation)(x, torch.zeros(()))
    exact = 0.0 if interpolation == "nearest" else 1e-5
    torch.testing.assert_close(out, torch.rot90(x, quarter, (2, 3)), rtol=0, atol=exact)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotation_agrees_with_torchvision(interpolation):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    mode = getattr(functional.InterpolationMode, interpolation.upper())
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    for angle in (10.0, 33.3, 120.0, 271.0):
        ours = Rotation(angle, (28, 28), interpolation)(x, torch.zeros(()))
        theirs = functional.rotate(x, angle, interpolation=mode)
        different = (ours - theirs).abs() > 1e-3
        assert different.float().mean() < 0.005, angle  # ties between two pixels alone


def test_rotation_fills_with_black():
    x = torch.full((1, 1, 9, 9), 5.0)
    for interpolation in ("nearest", "bilinear"):
        out = Rotation(45.0, (9, 9), interpolation)(x, torch.tensor(-2.0))
        assert out[0, 0, 0, 0] == -2.0
        assert out[0, 0, 4, 4] == 5.0


def test_angles():
    assert Rotated(None, angles=[0, 80, 160]).degrees(0) == [0, 80, 160]
    assert Rotated(4, spacing="even").degrees(0) == [0, 45, 90, 135]
    for seed in range(20):
        drawn = Rotated(20).degrees(seed)
        assert [int(angle // 9) for angle in drawn] == list(range(20))
    within = torch.tensor([Rotated(20).degrees(seed) for seed in range(200)]) % 9 / 9
    assert abs(float(within.mean()) - 0.5) < 0.03  # 4000 uniform draws: standard error .0046


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"n_tasks": None}, "exactly one of"),
        ({"n_tasks": 2, "angles": [1, 2]}, "exactly one of"),
        ({"high": 0.0}, "`stream.construction.high` > low"),
        ({"high": float("inf")}, "`stream.construction.angles` numbers"),
        ({"n_tasks": None, "angles": [0.0, float("nan")]}, "`stream.construction.angles` numbers"),
        ({"spacing": "x"}, "`stream.construction.spacing`"),
        ({"interpolation": "cubic"}, "`stream.construction.interpolation`"),
    ],
)
def test_impossible_rotations(fields, text):
    with pytest.raises(ConfigError, match=text):
        Rotated(**fields)


def corrupted(kind, severity, x):
    change = Corrupted([kind], severity).pieces(table(3), SHAPE, 0)[0].change
    return change(x, torch.tensor(-1.0))


@pytest.mark.parametrize("kind", sorted(CORRUPTIONS))
def test_corruptions_grow_with_severity(kind):
    coarse = torch.rand(20, 3, 5, 5, generator=torch.Generator().manual_seed(0)) - 1
    x = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
    far = [float((corrupted(kind, s, x) - x).square().mean()) for s in range(1, 6)]
    assert far[0] < far[2] < far[4]
    assert far[0] > 0
    alone = corrupted(kind, 3, x[4:5])
    torch.testing.assert_close(corrupted(kind, 3, x)[4:5], alone)  # a function of the image, not of its batch


def test_corruptions_by_hand():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert corrupted("stripes", 5, x)[0, 0, :, 0].tolist() == [-1, 4, -1, 12]
    hole = [[0, 1, 2, 3], [4, -1, -1, 7], [8, -1, -1, 11], [12, 13, 14, 15]]
    assert corrupted("occlude", 4, x)[0, 0].tolist() == hole
    coarse = [[2.5, 2.5, 4.5, 4.5], [2.5, 2.5, 4.5, 4.5], [10.5, 10.5, 12.5, 12.5], [10.5, 10.5, 12.5, 12.5]]
    assert corrupted("pixelate", 2, x)[0, 0].tolist() == coarse
    torch.testing.assert_close(corrupted("contrast", 2, x), 7.5 + (x - 7.5) / 2)
    point = torch.full((1, 1, 33, 33), -1.0)
    point[0, 0, 16, 16] = 0
    spread = corrupted("blur", 5, point)[0, 0] + 1
    assert abs(float(spread.sum()) - 1) < 1e-5
    sigma = (spread.sum(0) * (torch.arange(33) - 16.0) ** 2).sum().sqrt()
    assert abs(float(sigma) - 2 * 33 / 32) < 0.05


@pytest.mark.parametrize("fields", [{"kinds": []}, {"kinds": ["fog"]}, {"severity": 0}, {"severity": 6}])
def test_impossible_corruptions(fields):
    with pytest.raises(ConfigError, match=r"stream\.construction\."):
        Corrupted(**fields)


def test_contrast_is_about_the_mean_of_all_channels():
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(CORRUPTIONS["contrast"](2)(x, torch.zeros(())), mean + 0.5 * (x - mean))


def test_relabelled_tasks_hold_all_classes():
    pieces = Relabelled(6).pieces(table(12), SHAPE, 0)
    assert pieces[0].classes == tuple(range(12))
    assert all(sorted(p.classes) == list(range(12)) for p in pieces)
    assert len({p.classes for p in pieces}) == 6
    assert Relabelled(6, relabel_first=True).pieces(table(12), SHAPE, 0)[0].classes != tuple(range(12))


def test_sequence_takes_groups():
    source = table(6, ((0, 1, 2), (3,), (4, 5)))
    assert [p.classes for p in Sequence().pieces(source, SHAPE, 0)] == [(0, 1, 2), (3,), (4, 5)]
    assert [p.classes for p in Sequence(groups=["g2", "g0"]).pieces(source, SHAPE, 0)] == [(4, 5), (0, 1, 2)]
    assert len(Sequence(n_tasks=2).pieces(source, SHAPE, 0)) == 2
    orders = {tuple(p.classes for p in Sequence("shuffled").pieces(source, SHAPE, s)) for s in range(30)}
    assert len(orders) == 6
    with pytest.raises(ConfigError, match=r"stream\.construction\.groups"):
        Sequence(groups=["nowhere"]).pieces(source, SHAPE, 0)
    with pytest.raises(ConfigError, match="with groups"):
        Sequence().pieces(table(3), SHAPE, 0)


def test_whole_steps_of_images_are_not_permuted() -> None:
    with pytest.raises(ConfigError, match=r"`stream\.construction\.steps` false for samples that are no sequences"):
        Permuted(2, steps=True).pieces(table(4), SHAPE, 0)
