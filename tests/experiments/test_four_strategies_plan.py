"""What the experiment consists of: every trial of the plan, alike in all that is not what it tests."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES
from onmodel.experiments.dose import SHOTS, dosed
from onmodel.experiments.four_strategies import main
from onmodel.experiments.plan import (
    DOSES,
    STRATEGIES,
    Layout,
    Settings,
    TrialPlan,
    Unit,
    claim,
    config_of,
    suite_for,
    trials_of,
    units_of,
    weak_areas,
)
from onmodel.toybox.dataset import BALANCED_SHARES
from onmodel.toybox.wording import vocabulary
from onmodel.training.mix import solve_mix
from onmodel.training.stages import resolve_stages

LAYOUT = Layout(Path("work"))


def config(kind: str, categories: list[frozenset[str]] | None = None):
    (trial,) = [t for t in trials_of(Settings(characters=("mirel",), seeds=(2,))) if t.kind == kind]
    return config_of(Settings(), trial, LAYOUT, categories or [])


def test_a_first_stop_leaves_whole_units_of_every_character() -> None:
    trials = trials_of(Settings())
    assert len(trials) == 54 == len({trial.name for trial in trials})
    units = [trial.unit for trial in trials]
    assert units == [unit for unit in units_of(Settings()) for _ in STRATEGIES]
    assert {unit.character for unit in units[:18]} == {"zibo", "mirel", "tokko"}
    assert len({unit.own_seed for unit in units}) == 9


def test_trials_differ_in_what_they_test_alone() -> None:
    base = config("baseline")
    assert base.training.max_train_steps == 400
    for kind in ("a", "b"):
        same = config(kind).model_dump()
        assert same["data"].pop("train_data_dir").endswith(f"sets/mirel_2/{kind}")
        expected = base.model_dump()
        expected["data"].pop("train_data_dir")
        for value in (same, expected):
            value["training"].pop("output_dir")
            value["training"].pop("output_name")
        assert same == expected
    other = config("c")
    assert other.data == base.data
    assert (other.network.network_dim, other.network.network_alpha) == (64, 32)
    assert other.optimizer.learning_rate == pytest.approx(0.8 * base.optimizer.learning_rate)
    assert other.advanced.noise_offset == 0.05


@pytest.mark.parametrize("steps", [400, 40, 17])
def test_stages_take_as_many_steps_as_a_whole_run(steps: int) -> None:
    (trial,) = [t for t in trials_of(Settings(characters=("zibo",), seeds=(1,))) if t.kind == "d"]
    staged = resolve_stages(config_of(Settings(steps=steps), trial, LAYOUT, [frozenset({"close_up"})]))
    assert sum(stage.config.training.max_train_steps or 0 for stage in staged) == steps
    rates = [stage.config.optimizer.learning_rate for stage in staged]
    assert rates == pytest.approx([1e-3, 5e-4, 2e-4])


pictures = st.lists(
    st.builds(
        lambda shot, marks: frozenset({shot, *marks} - {"unclassified"}),
        st.sampled_from(["close_up", "medium", "full_body", "far", "unclassified"]),
        st.sets(st.sampled_from(["multi_character", "occlusion", "complex_background"])),
    ),
    min_size=1,
    max_size=40,
)


@given(pictures)
@settings(max_examples=60, deadline=None)
def test_weak_areas_can_be_had_on_any_set(categories: list[frozenset[str]]) -> None:
    mix = weak_areas(categories)
    if mix:
        solved = solve_mix(dict(mix), [sorted(each) for each in categories], [1] * len(categories), "test")
        assert all(abs(solved.shares[name] - asked) < 0.1 for name, asked in mix.items())


def test_the_suite_asks_ten_prompts_a_scenario_in_words_that_the_model_knows() -> None:
    suite = suite_for(Settings(), "mirel")
    prompts = suite.prompts()
    assert [sum(p.scenario == name for p in prompts) for name in CATEGORIES] == [10] * 7
    assert len(prompts) * len(suite.seeds) == 140
    known = set(vocabulary())
    said = {word for p in prompts for word in p.text.replace("-", " ").replace(",", " ").split()}
    assert said <= known
    assert len({p.text for p in prompts}) == 70


@given(st.sampled_from(CATEGORIES), st.sampled_from(DOSES))
def test_a_dose_changes_its_category_and_keeps_the_rest_in_proportion(category: str, per_cent: int) -> None:
    shares = dosed(category, per_cent)
    assert getattr(shares, category) == per_cent / 100
    others = [name for name in SHOTS if name != category]
    ratios = [getattr(shares, name) / getattr(BALANCED_SHARES, name) for name in others]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert sum(shares.shot_types().values()) == pytest.approx(sum(BALANCED_SHARES.shot_types().values()))


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(UserError, match="run the step prepare first"):
        claim(work, None)
    first = claim(work, Settings(seeds=(4,)))
    assert claim(work, None) == first == claim(work, first)
    with pytest.raises(UserError, match="other settings"):
        claim(work, Settings())
    with pytest.raises(UserError, match="not held out"):
        claim(tmp_path / "other", Settings(characters=("nobody",)))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="no experiment's folder"):
        claim(tmp_path / "taken", Settings())


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--step", "make"]) == 2
    assert "run the step prepare first" in capsys.readouterr().err
    claim(tmp_path / "work", Settings.reduced())
    assert main([str(tmp_path / "work"), "--step", "make"]) == 2
    assert "unpack its sets" in capsys.readouterr().err
    assert main([str(tmp_path / "work"), "--step", "judge"]) == 2
    assert "no trial is made yet" in capsys.readouterr().err
    assert main([str(tmp_path / "work"), "--step", "report"]) == 2
    assert "run the step judge first" in capsys.readouterr().err
    assert main([str(tmp_path / "work"), "--step", "unpack", str(tmp_path / "nothing.tar")]) == 2
    assert "no tar file there" in capsys.readouterr().err


def test_names_of_units_and_trials() -> None:
    assert TrialPlan(Unit("zibo", 3), "b_d", "b").name == "zibo_3_b_d"
