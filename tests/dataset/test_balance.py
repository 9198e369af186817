"""Repeats bring the mix nearer to the ranges."""

from onmodel.dataset.balance import MAX_REPEATS, Group, choose_repeats, distance, effective_shares
from onmodel.dataset.recommended import RECOMMENDED, Recommended


def group(*names: str) -> Group:
    return frozenset(names)


COUNTS = {group("close_up"): 50, group("medium"): 12, group("full_body"): 12, group("far"): 2, group(): 44}


def test_scarce_categories_are_repeated() -> None:
    ones = dict.fromkeys(COUNTS, 1)
    # Nothing here has an attribute, so only the shot types can come nearer.
    any_share = (0.0, 100.0)
    shots = Recommended(multi_character=any_share, occlusion=any_share, complex_background=any_share)
    repeats = choose_repeats(COUNTS, shots, 475)
    assert repeats[group()] == 1
    assert all(1 <= value <= MAX_REPEATS for value in repeats.values())
    assert repeats[group("medium")] > repeats[group("close_up")]
    before, after = effective_shares(COUNTS, ones), effective_shares(COUNTS, repeats)
    assert distance(after, shots) < 0.5 * distance(before, shots)


def test_a_mix_within_its_ranges_is_left_alone() -> None:
    counts = {
        group("close_up"): 120, group("close_up", "complex_background"): 20, group("medium"): 70,
        group("medium", "multi_character", "complex_background"): 30, group("full_body"): 60,
        group("full_body", "multi_character", "occlusion", "complex_background"): 30, group("far"): 20,
    }  # fmt: skip
    assert distance(effective_shares(counts, dict.fromkeys(counts, 1)), RECOMMENDED) == 0
    assert set(choose_repeats(counts, RECOMMENDED, 350).values()) == {1}


def test_the_limit_holds() -> None:
    repeats = choose_repeats(COUNTS, RECOMMENDED, 475, max_repeats=3)
    assert max(repeats.values()) <= 3
