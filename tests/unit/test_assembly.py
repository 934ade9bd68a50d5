"""What stream, learner and strategy ask of each other is refused in one line, before any training."""

import pytest
import torch

from cl.assembly import build_engine, build_strategy, build_stream
from cl.build import warn_once
from cl.cli.compose import compose
from cl.errors import ConfigError, DataError
from cl.learners.causal import looks_ahead
from cl.learners.recurrent import GRU
from cl.learners.ssm import StateSpace
from cl.run import run
from cl.settings import Settings
from cl.streams.base import StreamInfo

CPU = torch.device("cpu")
FEW = ["stream.samples=16", "stream.test_samples=8"]


def built(root, words):
    config = compose([*words, f"data.root={root}", "data.download=false"])
    try:
        stream = build_stream(config, Settings.of(config), CPU)
    except DataError as error:
        pytest.skip(str(error))
    return build_strategy(config, stream, CPU)


def refusal(root, words):
    with pytest.raises(ConfigError) as caught:
        built(root, words)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("Expected `")
    return str(caught.value)


@pytest.mark.parametrize("learner", ["mlp", "cnn", "resnet18"])
@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ("copy_memory", "every step has a label"),
        ("n_back", "every step has a label"),
        ("permuted_copy", "in bits"),
        ("genesis", "every step has a label"),
        ("product_reviews", "inputs are tokens"),
    ],
)
def test_learners_that_read_no_sequences_are_refused_where_one_is_needed(data_root, stream, why, learner):
    few = [] if stream in ("genesis", "product_reviews") else FEW
    assert why in refusal(data_root, [f"stream={stream}", *few, f"learner={learner}"])


@pytest.mark.parametrize(
    "words",
    [
        ["stream=recall_distance", "learner.outputs=steps"],
        ["stream=adding", "learner.outputs=steps"],
        ["stream=delayed_copy", "learner.outputs=sequence"],
        ["stream=ntm_copy", "learner=ntm", "learner.outputs=sequence"],
    ],
)
def test_outputs_that_do_not_suit_the_stream_are_refused(data_root, words):
    assert "learner.outputs" in refusal(data_root, [*words, *FEW])


AHEAD = [["learner.bidirectional=true"], ["learner=transformer", "learner.causal=false"]]


@pytest.mark.parametrize("words", AHEAD)
def test_learners_that_see_the_next_character_are_refused(data_root, words):
    assert "sees the answer" in refusal(data_root, ["stream=genesis", *words])
    built(data_root, ["stream=delayed_copy", *FEW, *words])  # elsewhere they may look ahead


@pytest.mark.parametrize("learner", ["gru", "transformer", "tcn", "s4d", "conv_transformer", "gru_attention", "dnc"])
def test_learners_that_do_not_look_ahead_model_language(data_root, learner):
    built(data_root, ["stream=genesis", f"learner={learner}"])


class Peeks(GRU):
    """Sees the step after the present one, and says so nowhere."""

    def read(self, x):
        steps, real = super().read(x)
        return torch.cat([steps[..., 1:], steps[..., :1]], 2), real


@pytest.mark.parametrize(("kind", "ahead"), [(Peeks, True), (GRU, False), (StateSpace, False)])
def test_a_look_ahead_of_one_step_is_found(kind, ahead):
    info = StreamInfo("domain", 1, 4, ((0, 1, 2, 3),), (30,), 0, True, "steps", True, 5)
    learner = kind((30,), 4, vocabulary=5, target="steps").train()
    before = torch.get_rng_state()
    assert looks_ahead(learner, info) is ahead
    assert learner.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scheduler=cosine", "scheduler.T_max=0"], "`scheduler.T_max` > 0, got 0"),
        (["scheduler=cosine", "scheduler.eta_min=-1"], "`scheduler.eta_min` a number >= 0, got -1.0"),
        (["scheduler=step", "scheduler.step_size=0"], "`scheduler.step_size` > 0, got 0"),
        (["scheduler=exponential", "scheduler.gamma=nan"], "`scheduler.gamma` a number, got nan"),
        (["scheduler=restarts", "scheduler.T_mult=0"], "`scheduler.T_mult` > 0, got 0"),
        (["learner.dropout=nan"], "`learner.dropout` a number, got nan"),
        (["strategy=ewc", "strategy.strength=inf"], "`strategy.strength` a number, got inf"),
        (["stream=delayed_match", "stream.problems.0.noise=inf"], "noise` a number, got inf"),
        (["optimizer.lr=-1"], "`optimizer.lr` a number >= 0, got -1.0"),
        (["optimizer.lr=null"], "`optimizer.lr` a number >= 0, got None"),
        (["optimizer=sgd", "optimizer.momentum=null"], "`optimizer.momentum` "),
        (["scheduler=cosine", "scheduler.T_max=null"], "`scheduler.T_max` "),
        (["optimizer=sgd", "optimizer.momentum=2"], "`optimizer.momentum` in [0, 1), got 2.0"),
        (["optimizer=rmsprop", "optimizer.alpha=5"], "`optimizer.alpha` in [0, 1), got 5.0"),
        (["measures.weight_drift._target_=null"], "`measures.weight_drift._target_` a subclass of"),
        (["stream.source.test_fraction=0.0001"], "to have test samples in every task, got none in task 1"),
        (["stream.source.test_fraction=0.9999"], "to have training and validation samples in every task"),
        (["stream=image_folder", "stream.source.path=[]"], "`stream.source.path` one path or more, got []"),
        (["checkpoint=3"], "`checkpoint` a block with ['minutes', 'steps'], got 3"),
    ],
)
def test_impossible_values_are_refused_before_training(words, said):
    with pytest.raises(ConfigError) as error:
        _build(["stream=split_digits", *words])
    assert said in str(error.value)


def _build(words):
    config = compose(words)
    stream = build_stream(config, Settings.of(config), CPU)
    build_engine(config, stream, build_strategy(config, stream, CPU))
    assert len(stream[0].train) > 0


def test_a_seed_beside_a_list_of_seeds_is_refused():
    assert Settings.of(compose(["replicas=[3,5]"])).seeds == [3, 5]
    with pytest.raises(ConfigError, match=r"^Expected `seed` 0 beside a list of `replicas`, .* got 7$"):
        Settings.of(compose(["seed=7", "replicas=[3,5]"]))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["optimizer=sgd", "optimizer.dampening=0.25"], "optimizer.dampening has no effect with optimizer.momentum=0"),
        (["stream.selection=first"], "stream.selection=first has no effect without samples_per_task or test_samples"),
    ],
)
def test_fields_without_effect_are_told(words, line, tmp_path, caplog):
    warn_once.cache_clear()
    run(compose([*words, f"output={tmp_path}", "tracker=none", "training.epochs=1"]))
    [told] = [r.message for r in caplog.records if "has no effect" in r.message]
    assert told.startswith(line)
