"""Ablation files: what they make of a base, and what is refused before anything starts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.ablation.config import Range, load_ablation
from onmodel.ablation.record import Status, write_record
from onmodel.ablation.run import rungs
from onmodel.ablation.variant import Task, run_variant
from onmodel.ablation.variants import draw, make_ablation, shown
from onmodel.core.errors import NotFoundError, UserError
from onmodel.training.config import load_train_config
from onmodel.training.job import TakenOverError

from .conftest import Make, Write

CONFIGS = Path(__file__).parents[2] / "configs"
RANK = '[[variant]]\nname = "rank"\nnetwork = {network_dim = 8}\n'
RATE = '[[variant]]\nname = "rate"\noptimizer = {learning_rate = 1e-4}\n'


def test_the_three_variants_are_the_configs_that_stand_written_out() -> None:
    file = CONFIGS / "ablations" / "trial_3_6.toml"
    ablation = make_ablation(file, load_ablation(file))
    assert [each.name for each in ablation.variants] == ["higher_rank", "lower_lr", "regularized"]
    for variant in ablation.variants:
        assert variant.config == load_train_config(CONFIGS / "training" / f"trial_3_6_{variant.name}.toml")


def test_the_toybox_ablation_is_one() -> None:
    file = CONFIGS / "ablations" / "toybox.toml"
    assert len(make_ablation(file, load_ablation(file)).variants) == 4


def test_epochs_go_before_what_base_and_variants_say(write: Write) -> None:
    file = write('[[variant]]\nname = "long"\ntraining = {max_train_epochs = 9}\nnetwork = {network_dim = 8}\n' + RATE)
    for epochs, expected in ((None, [9, 2]), (5, [5, 5])):
        found = make_ablation(file, load_ablation(file), epochs).variants
        assert [each.config.training.max_train_epochs for each in found] == expected


def test_the_base_comes_first_where_it_is_asked_for(make: Make) -> None:
    ablation = make("include_base = true\n" + RANK)
    assert [each.name for each in ablation.variants] == ["base", "rank"]
    assert [each.config.training.output_name for each in ablation.variants] == ["test_base", "test_rank"]
    assert [shown(each.overrides) for each in ablation.variants] == ["–", "network_dim 8"]
    assert ablation.folder.name == "test"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (RANK, "compares nothing"),
        (RANK + RANK, "two variants are named `rank`"),
        (RANK + RANK.replace('"rank"', '"again"'), "variants `rank` and `again` are the same"),
        (RANK + '[[variant]]\nname = "same"\nnetwork = {network_dim = 4}\n', "`same` is the base itself"),
        (RANK + '[[variant]]\nname = "seed"\ntraining = {seed = 5}\n', "changes `training.seed`.*allow_different_data"),
        (RANK + RATE.replace("learning_rate", "learning_rat"), "did you mean `learning_rate`"),
        (RANK + RATE.replace("optimizer =", "optimiser ="), "did you mean `optimizer`"),
        (RANK + RATE.replace("1e-4", '"fast"'), "variant `rate`.*learning_rate"),
        ("max_concurent = 1\n" + RANK + RATE, "did you mean `max_concurrent`"),
        (RANK + RATE.replace('"rate"', '"base"'), "choose another name"),
        (RANK + '[[variant]]\nname = "away"\ntraining = {output_dir = "x"}\n', "`output_dir` follows"),
        (
            RANK + '[search]\nmetric = "val_loss"\nsamples = 2\nparameters = {"network.network_dim" = [1, 2]}\n',
            "one of the two",
        ),
    ],
)
def test_what_compares_nothing_is_refused(make: Make, text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        make(text)


def test_other_data_is_allowed_when_it_is_asked_for(make: Make) -> None:
    ablation = make("allow_different_data = true\n" + RANK + '[[variant]]\nname = "seed"\ntraining = {seed = 5}\n')
    assert ablation.variants[1].config.training.seed == 5


def test_a_missing_base_is_named(write: Write) -> None:
    file = write(RANK + RATE)
    file.with_name("base.toml").unlink()
    with pytest.raises(NotFoundError, match=r"base\.toml"):
        make_ablation(file, load_ablation(file))


SEARCH = """
[search]
metric = "{metric}"
samples = {samples}
[search.parameters]
optimizer.learning_rate = {{min = 1e-5, max = 1e-2, log = true}}
"network.network_dim" = [2, 4, 8]
"""


def test_samples_are_the_same_each_time_and_none_is_there_twice(make: Make) -> None:
    first, second = (make(SEARCH.format(metric="val_loss", samples=6)).variants for _ in range(2))
    assert first == second
    assert len({each.config.identity for each in first}) == 6
    assert [each.name for each in first] == [f"s{number:03d}" for number in range(1, 7)]
    assert all(set(each.overrides) == {"optimizer.learning_rate", "network.network_dim"} for each in first)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("val_loss", "full_body.on_modle"), "figures"),
        (("val_loss", "full_body.on_model"), "needs pictures"),
        (("network.network_dim", "network.network_dims"), "did you mean `network_dim`"),
        (("[2, 4, 8]", "[2]"), "two values or more"),
        (("[2, 4, 8]", "[2, 2]"), "stands there twice"),
        (("min = 1e-5", "min = 1.0"), "must be below"),
        (("[search]", "include_base = true\n[search]"), "goes with"),
        (("samples = 4", "samples = 4\nfirst_rung = 3"), "beyond the 2 epochs"),
        (('"network.network_dim"', '"training.max_train_epochs"'), "other lengths"),
        (("optimizer.learning_rate = {min = 1e-5, max = 1e-2, log = true}\n", ""), "hold 2 different samples"),
    ],
)
def test_a_search_that_finds_nothing_is_refused(make: Make, change: tuple[str, str], why: str) -> None:
    text = SEARCH.format(metric="val_loss", samples=4)
    assert change[0] in text
    with pytest.raises(UserError, match=why):
        make(text.replace(*change))


@given(
    st.integers(-1000, 1000),
    st.integers(1, 1000),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_draws_stay_inside_their_range(low: int, width: int, whole: bool, log: bool, seed: int) -> None:
    start = abs(low) + 1 if log else low
    values = Range(min=start, max=start + width, log=log)
    if not whole:
        values = Range(min=start / 7, max=(start + width) / 7, log=log)
    for _ in range(5):
        drawn = draw(values, np.random.default_rng(seed))
        assert values.min <= drawn <= values.max
        assert isinstance(drawn, int) == whole


def test_rungs_end_with_the_last_epoch(make: Make) -> None:
    search = make(SEARCH.format(metric="val_loss", samples=4)).settings.search
    assert search is not None
    base = make(RANK + RATE).base
    found = {
        epochs: rungs(search, base.with_changes(training={"max_train_epochs": epochs})) for epochs in (1, 2, 9, 10)
    }
    assert found == {1: (1,), 2: (1, 2), 9: (1, 3, 9), 10: (1, 3, 9, 10)}


def test_a_process_that_was_given_up_for_dead_leaves_the_record_to_the_other(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("rank", make(RANK + RATE).variants[0].config, tmp_path / "rank.json", "key", num_workers=2)

    def taken_over(config: object, **options: object) -> None:
        write_record(task.record, task.read().changed(starts=2, pid=2, node="other"))
        raise TakenOverError("another process trains this trial since")

    monkeypatch.setattr("onmodel.ablation.variant.train", taken_over)
    found = run_variant(task, pid=1, node="cut off", report=lambda rung: None)
    assert found == task.read()
    assert (found.status, found.starts, found.node) == (Status.RUNNING, 2, "other")
