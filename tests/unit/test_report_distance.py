"""Memory over distance on the page, and labels of runs that differ in their learner."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from cl import comparison, groups, runs
from cl.distance.quantities import FACTS, quantities
from cl.measures.base import Quantity
from cl.report import content, distance, picture
from tests.fake_runs import write

GRU = {"_target_": "cl.learners.recurrent.GRU", "hidden": 8, "layers": 1}
DISTANCES = ["1", "10", "40"]


def seen(seed: int, fall: float) -> dict[str, Quantity]:
    recall = np.tile(np.array([1.0, fall, fall**2]) - 0.01 * seed, (4, 3, 1))
    names = {"distance": DISTANCES}
    half = np.tile(np.array([9.0, 8.0 - seed, np.inf]), (4, 3, 1))
    drift = np.full((3, 3, 5), np.nan)
    drift[2] = 0.5
    return {
        "recall_by_distance": Quantity(recall, ("after task", "task", "distance"), "", "higher", "", names=names),
        "recall_half_life": Quantity(half, ("after task", "task", "bound"), "", "higher", "", "steps"),
        "gradient_by_distance": Quantity(np.ones((4, 5)), ("after task", "steps back"), "", "", "", "norm"),
        "attention_by_distance": Quantity(
            np.full((4, 2, 3, 5), 0.2), ("after task", "layer", "head", "steps back"), "", "", ""
        ),
        "retention_time": Quantity(
            np.tile(np.array([[3.0, 1.0, 2.0]]), (4, 1, 1)), ("after task", "layer", "unit"), "", "", "", "steps"
        ),
        "read_addresses": Quantity(np.tile(np.eye(30, 5) * 0.5, (4, 1, 1)), ("after task", "slot", "step"), "", "", ""),
        "write_addresses": Quantity(np.tile(np.eye(30, 5), (4, 1, 1)), ("after task", "slot", "step"), "", "", ""),
        "state_drift": Quantity(drift, ("task trained", "task", "step"), "", "lower", ""),
    }


def found(root: Path) -> list[groups.Group]:
    return groups.group([runs.load(folder) for folder in runs.find([root])])


def made(root: Path) -> list[content.Block]:
    for seed in range(2):
        for name, fall in (("gru", 0.9), ("transformer", 0.5)):
            learner = GRU if name == "gru" else {"_target_": "cl.learners.transformer.Transformer", "width": 8}
            fields = {"learner": learner, "choices": {"learner": name, "strategy": "naive", "stream": "recall"}}
            measures = {n: q.plain() for n, q in seen(seed, fall).items()}
            write(root, "naive", seed, name=f"{name}{seed}", top=fields, measures=measures)
    return content.blocks(found(root))


def test_figures_and_table(tmp_path: Path) -> None:
    (block,) = made(tmp_path)
    items = {item.name: item for item in block.items}
    recall = items["recall_by_distance"]
    assert [p.title for p in recall.panels] == ["after task 1", "after task 2", "after task 3"]
    line = next(s for s in recall.panels[2].series if "gru" in s.label)
    np.testing.assert_allclose(line.x, [1, 10, 40])
    np.testing.assert_allclose(line.y, np.array([1, 0.9, 0.81]) - 0.005)
    gates = items["retention_time"].panels[0].series[0]
    np.testing.assert_allclose(gates.y, [1, 2, 3])
    np.testing.assert_allclose(gates.x, [1 / 6, 1 / 2, 5 / 6])
    assert len(items["attention_by_distance"].panels) == 2
    np.testing.assert_allclose(items["state_drift"].panels[0].series[0].y, 0.5)
    assert items["gradient_by_distance"].log == "y"
    heads = items["addresses"]
    assert [label.rpartition(": ")[2] for label in heads.labels] == ["write", "read"] * 2
    np.testing.assert_allclose(heads.means[1], np.eye(30, 5) * 0.5)
    table = items["recall_half_life"]
    assert table.rows[0][1:] == ("9.0 [7.0, > 40]",) * 3


def test_memories_of_different_size_have_a_picture_each(tmp_path: Path) -> None:
    for name, slots in (("ntm", 128), ("dnc", 32), ("wide", 32)):
        table = Quantity(np.full((4, slots, 5), 0.5), ("after task", "slot", "step"), "", "", "", summary=False)
        choices = {"learner": name, "strategy": "naive"}
        fields = {"learner": GRU | {"slots": slots}, "choices": choices, "training": name}
        seen = {f"{kind}_addresses": table.plain() for kind in ("read", "write")}
        write(tmp_path, "naive", 0, name=name, top=fields, measures=seen)
    (block,) = content.blocks(found(tmp_path))
    heads = [item for item in block.items if item.name.startswith("addresses")]
    assert sorted((item.name, len(item.means)) for item in heads) == [("addresses_128x5", 2), ("addresses_32x5", 4)]
    assert all(mean.shape == item.means[0].shape for item in heads for mean in item.means)


def test_the_axis_says_what_a_distance_counts(tmp_path: Path) -> None:
    names = {"items to say again": ["2", "80"]}
    axes = ("after task", "task", "items to say again")
    recall = Quantity(np.ones((4, 3, 2)), axes, "", "higher", "", names=names)
    half = Quantity(np.full((4, 3, 3), np.inf), ("after task", "task", "bound"), "", "higher", "", "items to say again")
    seen = {"recall_by_distance": recall.plain(), "recall_half_life": half.plain()}
    write(tmp_path, "naive", 0, measures=seen)
    (block,) = content.blocks(found(tmp_path))
    items = {item.name: item for item in block.items}
    assert items["recall_by_distance"].x_label == "items to say again"
    assert "(items to say again)" in items["recall_half_life"].reading
    assert items["recall_half_life"].rows[0][1:] == ("> 80 [> 80, > 80]",) * 3


def test_influence_of_the_state(tmp_path: Path) -> None:
    falls = 0.5 ** np.arange(6.0)
    norms = Quantity(np.tile(falls, (4, 2, 1)), ("after task", "layer", "steps back"), "", "", "", summary=False)
    tau = Quantity(np.tile([1.44, -3.0], (4, 1)), ("after task", "layer"), "", "", "", "steps", summary=False)
    write(tmp_path, "naive", 0, measures={"state_gradient_by_distance": norms.plain(), "state_timescale": tau.plain()})
    (block,) = content.blocks(found(tmp_path))
    items = {item.name: item for item in block.items}
    figure = items["state_gradient_by_distance"]
    assert [p.title for p in figure.panels] == ["layer 1", "layer 2"]
    np.testing.assert_allclose(figure.panels[1].series[0].y, falls)
    assert items["state_timescale"].rows[0][1:] == ("1.4", "does not fall")


def test_a_half_life_that_may_be_infinite_has_no_mean(tmp_path: Path) -> None:
    """The table of half-lives tells it; a mean of 20 and "more than 100" tells nothing."""
    made = FACTS["half_life"]
    table = quantities(["half_life"], lambda _: np.array([[[20.0, 15, 30], [np.inf, 90, np.inf]]]), "steps", [1, 100])
    assert not table[made.title].summary
    write(tmp_path, "naive", 0, measures={made.title: table[made.title].plain()})
    assert made.title not in set(comparison.tidy(found(tmp_path))["metric"])


def test_nothing_without_the_measure(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0)
    (block,) = content.blocks(found(tmp_path))
    assert set(distance.items(block.members)) == {None}


def test_learners_are_told_apart_by_their_names(tmp_path: Path) -> None:
    made(tmp_path)
    assert sorted(g.label for g in found(tmp_path)) == ["naive (learner=gru)", "naive (learner=transformer)"]
    choices = {"learner": "gru", "strategy": "naive", "stream": "recall"}
    write(tmp_path, "naive", 0, name="wide", top={"learner": GRU | {"hidden": 16}, "choices": choices})
    labels = sorted(g.label for g in found(tmp_path))
    assert labels == [
        "naive (learner=gru, hidden=16)",
        "naive (learner=gru, hidden=8)",
        "naive (learner=transformer)",
    ]


def test_large_matrices_are_pictures_in_the_colours_of_the_cells() -> None:
    text = picture.heat(np.array([[0.0, 1.0, np.nan], [0.5, 0.0, 1.0]]), 0.0, 1.0, 'a "b"')
    assert 'alt="a &quot;b&quot;"' in text
    data = base64.b64decode(text.partition("base64,")[2].partition('"')[0])
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    assert image.size == (3, 2)
    pixels = {at: image.getpixel(at) for at in ((0, 0), (1, 0), (2, 0), (0, 1))}
    assert pixels[0, 0] == (0x00, 0x20, 0x4D, 255)
    assert pixels[1, 0] == (0xFF, 0xE9, 0x45, 255)
    assert pixels[2, 0][3] == 0  # nothing there
    assert pixels[0, 1] == (0x7A, 0x7C, 0x75, 255)


def test_seeds_that_recall_nothing_are_counted() -> None:
    nothing = [np.nan] * 3
    assert (
        distance._half_life(np.array([nothing, nothing, [30.0, 25, 35]]), "100") == "30.0 [25.0, 35.0] (1 of 3 seeds)"
    )
    assert distance._half_life(np.array([[np.inf, 40, np.inf], [30.0, 25, 35]]), "100") == "30.0 [25.0, > 100]"
    assert distance._half_life(np.array([nothing, nothing]), "100") == "not above chance"
