"""Verdicts need evidence, intervals cover, and a lack in the training mix stands beside the failure it explains."""

import numpy as np
import pytest

from onmodel.core.errors import UserError
from onmodel.evaluation.compare import ALL, Mix, compare, names_of
from onmodel.evaluation.statistics import Verdict, interval, paired

from .made import SCENARIOS, evaluation

POOR = dict.fromkeys(SCENARIOS, 0.1)
GOOD = dict.fromkeys(SCENARIOS, 0.9)


def test_a_clear_difference_is_called_better() -> None:
    found = compare([evaluation("a", POOR), evaluation("b", GOOD, seed=1)])
    overall = found.pair("b", ALL)
    assert overall is not None
    assert overall.verdict is Verdict.BETTER
    assert found.verdict.startswith("b is better than a:")
    back = compare([evaluation("b", GOOD, seed=1), evaluation("a", POOR)]).pair("a", ALL)
    assert back is not None
    assert back.verdict is Verdict.WORSE
    assert back.difference == pytest.approx(-(overall.difference or 0))


def test_the_same_model_against_itself_is_not_decided() -> None:
    found = compare([evaluation("a", GOOD), evaluation("b", GOOD)])
    assert {p.verdict for p in found.pairs} == {Verdict.NOT_DECIDED}
    assert "the share on model is not decided" in found.verdict
    assert "identity" not in found.verdict


def test_identity_is_told_where_it_is_decided() -> None:
    change = {"close_up": 0.0, "occlusion": 1.0}
    found = compare([evaluation("a", GOOD | {"occlusion": 0.0}), evaluation("b", GOOD | change)])
    assert "Its identity is better in occlusion; worse in close-up. " in found.verdict
    back = compare([evaluation("a", POOR), evaluation("b", GOOD, seed=1)])
    now, then = (e.overall["identity"].mean or 0 for e in back.evaluations[::-1])
    assert f"Its identity is better over all, {now:.0%} against {then:.0%};".replace("%", " %") in back.verdict


def test_false_verdicts_are_rare() -> None:
    rng = np.random.default_rng(3)
    called = 0
    for _ in range(200):
        chance = rng.beta(4, 2, size=10)
        first, second = (rng.binomial(4, chance) / 4 for _ in range(2))
        called += paired(list(first), list(second)).verdict is Verdict.BETTER
    assert called <= 10


@pytest.mark.parametrize("prompts", [4, 10, 40])
def test_intervals_cover_the_true_mean(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    covered = 0
    for _ in range(200):
        found = interval(list(rng.normal(0.6, 0.1, size=prompts)))
        assert found is not None
        covered += found.low <= 0.6 <= found.high
    assert 184 <= covered <= 198


def test_intervals_at_the_edges() -> None:
    assert interval([]) is None
    assert interval([float("nan")]) is None
    one = interval([0.4])
    assert one is not None
    assert (one.low, one.high) == (0.0, 1.0), "one prompt says nothing of the spread"
    perfect = interval([1.0, 1.0, 1.0, 1.0], share_of=12)
    assert perfect is not None
    assert perfect.low < 0.8, "12 of 12 is no proof of 100 %"
    assert paired([0.0, 0.0], [1.0, 1.0]).verdict is Verdict.NOT_DECIDED, "two prompts decide nothing"


def test_lower_is_better_where_the_metric_says_so() -> None:
    assert paired([0.9] * 5, [0.5] * 5, higher_is_better=False).verdict is Verdict.BETTER


def test_different_suites_and_doubles_are_refused() -> None:
    one, other = evaluation("a", GOOD), evaluation("b", GOOD)
    with pytest.raises(UserError, match="another suite"):
        compare([one, other.model_copy(update={"suite": "another"})])
    with pytest.raises(UserError, match="at least two"):
        compare([one])
    with pytest.raises(UserError, match="given twice"):
        compare([one, one])


def test_names_tell_checkpoints_and_scales_apart() -> None:
    one = evaluation("trial", GOOD)
    later = one.model_copy(update={"checkpoint": "trial-000008.safetensors"})
    weaker = one.model_copy(update={"scale": 0.8})
    assert names_of([one, later]) == ("trial-000004", "trial-000008")
    assert names_of([one, weaker]) == ("trial-000004 at 1", "trial-000004 at 0.8")


def test_a_lack_in_the_mix_stands_beside_its_failure() -> None:
    first = evaluation("a", {**GOOD, "full_body": 0.0, "occlusion": 0.0})
    shares = {"close_up": 41.4, "full_body": 10.2, "occlusion": 0.0, "complex_background": 25.0}
    found = compare(
        [first, evaluation("b", GOOD, seed=2)],
        mixes={"a": Mix(pictures=128, shares=shares)},
        recommended={"full_body": (25, 30), "occlusion": (8, 12), "complex_background": (20, 30)},
    )
    assert set(found.explanations) == {"a"}
    sentences = " ".join(found.explanations["a"])
    assert "Full body: 10.2 % of the training pictures (recommended from 25 %); 0 of 12" in sentences
    assert "Occlusion: 0.0 %" in sentences
    assert "Complex background" not in sentences, "its share is as recommended"
    assert "mostly not recognised" in sentences
