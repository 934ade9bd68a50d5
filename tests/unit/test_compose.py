"""What is said of overrides that do not fit the configuration."""

import subprocess
import sys

import pytest

from cl.cli.compose import compose
from cl.cli.sweep import sweep
from cl.errors import ConfigError
from cl.settings import Settings

SMALL = "{_target_:cl.streams.sources.Several,sources:[{_target_:cl.streams.sources.MNIST}],size:14}"


@pytest.mark.parametrize(
    ("word", "near"),
    [("stream.sorce=3", "stream.source"), ("stream.source.byy=pixels", "stream.source.by"),
     ("stream.constructionn.n_tasks=3", "stream.construction.n_tasks"), ("seeed=1", "seed")],
)  # fmt: skip
def test_the_nearest_key_is_named_at_any_depth(word, near):
    with pytest.raises(ConfigError) as error:
        compose(["stream=pixel_mnist", word])
    assert str(error.value).endswith(f"to be a key of the configuration, got {word!r} (did you mean {near}?)")


def test_the_nearest_key_is_named_inside_lists_too():
    with pytest.raises(ConfigError, match=r"\(did you mean stream\.problems\.0\.steps\?\)"):
        compose(["stream=adding", "stream.problems.0.step=600"])


def test_the_fields_of_a_block_are_named_where_none_is_near():
    with pytest.raises(ConfigError, match=r"\(`stream\.problems\.0` has steps\)"):
        compose(["stream=adding", "stream.problems.0.length=600"])


def test_a_block_without_fields_is_told():
    with pytest.raises(ConfigError, match=r"\(`strategy` has no fields, as it was chosen\)"):
        compose(["strategy=naive", "strategy.stength=3"])


def test_several_choices_of_a_group_that_takes_one_are_told_how_to_say_it():
    advice = "strategy=combined strategy@strategy.parts.first=er strategy@strategy.parts.second=ewc"
    with pytest.raises(ConfigError, match=rf"one choice, got 'strategy=\[er,ewc\]'.*-m strategy=er,ewc; .*{advice}$"):
        compose(["strategy=[er,ewc]"])
    with pytest.raises(ConfigError, match=r"^Expected `learner` to be one choice.* -m learner=mlp,cnn$"):
        compose(["learner=[mlp,cnn]"])
    compose(["strategy=combined", "strategy@strategy.parts.first=er", "strategy@strategy.parts.second=ewc"])


def test_groups_of_any_number_may_be_empty():
    config = compose(["tracker=[]", "measures=[]"])
    assert (config["tracker"], config["measures"]) == ({}, {})
    for group in ("strategy", "learner", "stream", "optimizer", "scheduler", "evaluation"):
        with pytest.raises(ConfigError, match=rf"^Expected `{group}` one choice, got \[\]"):
            compose([f"{group}=[]"])


def test_another_block_in_the_place_of_one():
    word = f"stream.source.source={SMALL}"
    with pytest.raises(ConfigError, match=r"fields of `stream\.source\.source` alone") as error:
        compose(["stream=pixel_mnist", word])
    advice = ["~stream.source.source", f"+{word}"]
    assert str(error.value).endswith(" ".join(repr(part) for part in advice))
    source = compose(["stream=pixel_mnist", *advice])["stream"]["source"]["source"]
    assert source["_target_"] == "cl.streams.sources.Several"
    assert source["size"] == 14


@pytest.mark.parametrize("word", ["strategy=glob(zz*)", "seed=range(0,0)"])
def test_a_sweep_without_jobs_is_refused(word, tmp_path):
    with pytest.raises(ConfigError, match="one job or more"):
        sweep([word, f"output={tmp_path}"])
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.launcher.n_jobs=0"], r"Expected `hydra\.launcher\.n_jobs` a whole number > 0, .*, got 0"),
        (["hydra/launcher=population", "hydra.launcher.n_jobs=0"], r"Expected `hydra\.launcher\.n_jobs` .*, got 0"),
        (["seed=3,4,3"], r"Expected `seed` different values, one job each, got 'seed=3,4,3'"),
        (["hydra/sweeper=nope"], r"Expected `hydra/sweeper` in \['basic'.*\], got 'nope'"),
    ],
)
def test_an_impossible_sweep_is_refused_before_it_begins(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        sweep([f"output={tmp_path}", *words])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("collecting", [True, False])
def test_the_garbage_collector_is_left_as_it_was(collecting):
    """The first import of torch goes without it; what is garbage later is never kept from it."""
    program = f"""
import gc, sys
from cl.cli.compose import compose
assert "torch" not in sys.modules
gc.{"enable" if collecting else "disable"}()
compose(["stream=split_digits"])
frozen = gc.get_freeze_count()
assert "torch" in sys.modules and frozen > 0 and gc.isenabled() is {collecting}
cycle = []
cycle.append(cycle)
compose(["stream=split_digits"])
assert gc.get_freeze_count() <= frozen
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("strategy=null", "`strategy` in ['agem'"),
        ("strategy=nan", "`strategy` in ['agem'"),
        ("+strategy=nan", "`strategy` in ['agem'"),
        ("strategy@strategy.parts.first=3", "`strategy` in ['agem'"),
        ("learner=-inf", "`learner` in ['cnn'"),
        ("optimizer={a: 1}", "optimizer"),
        ("learner={ }", "`learner` in ['cnn'"),
        ("scheduler=3", "`scheduler` in ['cosine'"),
        ("measures=[basic,nope]", "got 'nope' (did you mean none?)"),
        ("~seed", "`seed` to be given, got ~seed"),
        ("+sed=3", "`sed` to be a key of the configuration, got +sed (did you mean seed?)"),
    ],
)
def test_what_is_wrong_with_a_word_is_named(word, said):
    with pytest.raises(ConfigError) as error:
        compose([word])
    assert said in str(error.value)


def test_keys_of_one_s_own_may_be_referred_to():
    assert compose(["+rate=0.5", "optimizer.lr=${rate}"])["optimizer"]["lr"] == 0.5


def test_seeds_that_two_jobs_would_train_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="`seed` seeds 3 apart"):
        sweep(["seed=0,2", "replicas=3", f"output={tmp_path}"])


def test_a_yaml_made_of_a_shipped_one_keeps_its_name(tmp_path, monkeypatch):
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "firm.yaml").write_text("defaults: [ewc, _self_]\nstrength: 5.0\n")
    monkeypatch.chdir(tmp_path)
    config = compose(["strategy=firm"])
    assert config["choices"]["strategy"] == "firm"
    assert config["strategy"]["strength"] == 5.0
    assert config["strategy"]["_target_"] == "strategies.ewc.EWC"
    assert compose(["strategy=firm", "strategy._target_=mine.Own"])["choices"]["strategy"] == "Own"


@pytest.mark.parametrize(
    ("word", "near"), [("+epochs=5", "training.epochs"), ("+Seed=3", "seed"), ("+LR=1", "optimizer.lr")]
)
def test_a_new_key_that_was_meant_for_a_known_one_is_refused(word, near):
    with pytest.raises(ConfigError, match=rf"got \{word.partition('=')[0]} \(did you mean {near}\?\)"):
        compose([word])


def test_a_new_key_that_nothing_refers_to_is_told(caplog):
    compose(["+width=30", "learner.hidden=[${width}]"])
    assert not caplog.records
    compose(["+foo=1"])
    assert [r.message.partition(":")[0] for r in caplog.records] == ["+foo has no effect"]


@pytest.mark.parametrize("word", ["+checkpoint.hours=3", "+data.x=1"])
def test_a_new_key_in_a_block_of_settings_is_refused(word):
    block = word[1:].partition(".")[0]
    with pytest.raises(ConfigError, match=rf"^Expected `{block}` a block with \["):
        Settings.of(compose([word]))
