"""Facts: the same from inputs in any order, and numbers that can be told by hand."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from onmodel.core.vocabulary import Box, Decision, ShotType
from onmodel.diagnosis.facts import analysis_facts, gap, trial_facts
from onmodel.diagnosis.sources import Sources
from onmodel.diagnosis.training_set import MeasuredPicture, MeasuredSet, set_facts, shows_who_it_is
from onmodel.evaluation.observe import Part, Seen
from onmodel.evaluation.trial import Trial

from .made import analysis, evaluation

TWO_AGES = {"zibo, a teenage boy, close-up": 12, "zibo, a little boy, close-up": 8}


def test_evaluations_in_any_order_give_the_same_facts() -> None:
    given = [evaluation(0.4, epoch=2), evaluation(0.6, epoch=4), evaluation(0.7, epoch=4, scale=0.7)]
    facts = [trial_facts(order) for order in permutations(given)]
    assert all(each == facts[0] for each in facts)
    assert facts[0]["epoch.earlier.on_model"].value == pytest.approx(-0.2)
    assert facts[0]["epoch.earlier.epoch"].value == 2
    assert facts[0]["scale.lower.on_model"].value == pytest.approx(0.1)
    assert facts[0]["scale.lower.on_model"].at == "0.7"
    assert "scale.higher.on_model" not in facts[0]


def test_the_best_of_several_earlier_checkpoints_is_the_one_compared() -> None:
    given = [evaluation(rate, epoch=epoch) for epoch, rate in ((2, 0.5), (4, 0.8), (6, 0.3), (8, 0.6))]
    facts = trial_facts(given)
    assert facts["epoch.earlier.on_model"].value == pytest.approx(0.2)
    assert facts["epoch.earlier.epoch"].value == 4
    assert facts["epoch.rise.on_model"].value == pytest.approx(0.3)


def test_a_later_epoch_is_later_whatever_its_name() -> None:
    given = [evaluation(0.5, epoch=9, trial="b"), evaluation(0.9, epoch=10, trial="a")]
    assert trial_facts(given)["overall.on_model"].value == pytest.approx(0.9)


def test_a_gap_is_what_lacks_most() -> None:
    good = evaluation({"close_up": 0.95, "medium": 0.85, "full_body": 0.6})
    assert gap(good, "close_up") == 0
    assert gap(good, "medium") == 0
    assert gap(good, "full_body") == pytest.approx(0.8 - 0.6)
    assert gap(evaluation(0.85), "close_up") == pytest.approx(0.9 - 0.85)


def test_shares_have_intervals_and_the_recommended_range_beside_them() -> None:
    shots = {ShotType.CLOSE_UP: 15, ShotType.FULL_BODY: 5}
    facts = analysis_facts(analysis({"zibo, a boy": 20}, shots))
    share = facts["share.full_body"]
    assert (share.value, share.count) == (25.0, 20)
    assert 8 < share.low < 25 < share.high < 50
    assert facts["recommended.full_body"].value == 25
    assert facts["share.far"].low == facts["share.far"].value == 0


def test_ages_are_counted_against_the_usual_one() -> None:
    facts = analysis_facts(analysis(TWO_AGES))
    assert facts["captions.ages"].value == 40
    assert facts["captions.ages"].count == 20
    one_age = analysis_facts(analysis({"zibo, a teenage boy": 12, "zibo, a boy": 8}))
    assert one_age["captions.ages"].value == 0, "a boy may be a teenager"


def test_a_trigger_that_most_captions_lack_has_to_be_told() -> None:
    captions = {"zibo, a boy, close-up": 4, "a boy, close-up": 6}
    assert "captions.no_trigger" not in analysis_facts(analysis(captions))
    assert analysis_facts(analysis(captions), "zibo")["captions.no_trigger"].value == 60


def test_the_trigger_is_the_one_that_was_asked_with_not_what_a_folder_is_called() -> None:
    trial = Trial("t", Path("t/t-000001.safetensors"), "toybox", "my_folder", (), None)
    said = analysis({"zibo, a boy, close-up": 10})
    assert Sources(trial, (evaluation(0.5),), said).trigger == "zibo"
    assert Sources(trial, (), said).trigger == "zibo"
    assert Sources(trial, (), said, word="mirel").trigger == "mirel"
    assert Sources(trial).trigger == "my_folder"


def measured(own: float, other: float) -> MeasuredSet:
    values = [own + 0.01 * n for n in range(12)] + [other + 0.01 * n for n in range(8)]
    pictures = tuple(MeasuredPicture(file=f"{n:03d}.png", identity=v) for n, v in enumerate(values))
    return MeasuredSet(key="k", pictures=pictures, reference_nearest=tuple(0.5 + 0.02 * n for n in range(20)))


def test_another_age_shows_in_the_build_where_the_scorer_sees_none() -> None:
    """A child's head is a third larger for its body; which way round makes no difference."""
    for own, other in ((0.27, 0.36), (0.36, 0.27)):
        pictures = tuple(
            MeasuredPicture(file=f"{n:03d}.png", identity=0.8, head_to_body=(own, other)[n >= 10] + 0.001 * (n % 5))
            for n in range(20)
        )
        kept = MeasuredSet(key="k", pictures=pictures, reference_nearest=())
        split = set_facts(kept, {f"{n:03d}.png": n >= 10 for n in range(20)}, None)["set.split_by_age"]
        assert split.at == "head size for the body"
        assert split.low < split.value < split.high
        assert 0.25 < split.value < 0.32


def test_pictures_of_another_age_are_no_strangers() -> None:
    minority = {f"{n:03d}.png": n >= 12 for n in range(20)}
    facts = set_facts(measured(0.8, 0.2), minority, None)
    assert facts["set.strangers"].value == 0
    assert facts["set.split_by_age"].low > 0.5
    unsaid = set_facts(measured(0.8, 0.2), {}, None)
    assert unsaid["set.strangers"].value == 40
    assert "set.split_by_age" not in unsaid


@pytest.mark.parametrize(("nearest", "copied"), [(0.6, 0.0), (0.95, 100.0)])
def test_copies_are_nearer_than_unseen_pictures(nearest: float, copied: float) -> None:
    facts = set_facts(measured(0.8, 0.8), {}, evaluation(0.5, nearest=nearest))
    assert facts["set.copied"].value == copied
    assert facts["set.copied"].low < facts["set.copied"].high


@pytest.mark.parametrize(
    ("shot", "hidden", "characters", "shown"),
    [
        (ShotType.CLOSE_UP, (), 1, True),
        (ShotType.FULL_BODY, (), 1, True),
        (ShotType.FAR, (), 1, False),
        # A hand or a piece of clothes, which a scorer takes for nobody's: a set with many would seem to show strangers.
        (ShotType.UNCLASSIFIED, (), 1, False),
        (ShotType.MEDIUM, (Box(0, 0.5, 1, 1),), 1, False),
        (ShotType.MEDIUM, (), 2, False),
    ],
)
def test_only_pictures_that_show_who_it_is_can_show_a_stranger(
    shot: ShotType, hidden: tuple[Box, ...], characters: int, shown: bool
) -> None:
    row = np.full(4, 0.5, dtype=np.float32)
    part = Part(row, row, None, hidden)
    seen = Seen(Decision(shot, frozenset(), 0, "made up"), characters, row, (row,) * characters, (part,) * characters)
    assert shows_who_it_is(seen) is shown
