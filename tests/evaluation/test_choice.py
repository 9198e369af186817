"""Fronts hold nothing that is beaten, a beaten candidate is never recommended, and the order does not matter."""

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onmodel.core.errors import UserError
from onmodel.evaluation.choice import choose, distances, dominated, read_choice, write_choice
from onmodel.evaluation.metrics import Figure
from onmodel.evaluation.record import Evaluation

from .made import SCENARIOS, evaluation

MADE = evaluation("trial_9", {})
PROMPTS = 4
NAMES = ("identity", "prompt_fidelity", "memorisation")

Points = npt.NDArray[np.float64]
# Few different values, so that ties and dominance are common.
points = arrays(np.float64, st.tuples(st.integers(2, 6), st.just(3)), elements=st.integers(0, 4).map(float))


def figure(values: Points, known: bool = True) -> Figure:
    mean = float(values.mean()) if known else None
    low, high = (None, None) if mean is None else (mean - 0.02, mean + 0.02)
    shown = tuple(float(v) if known else None for v in values)
    return Figure(mean=mean, low=low, high=high, count=len(values) if known else 0, values=shown)


def candidate(epoch: int, scale: float, values: Points, *, memorised: bool = True) -> Evaluation:
    """An evaluation of the given values (prompts, identity and fidelity and memorisation)."""
    scenarios = {
        name: {m: figure(values[n * PROMPTS : (n + 1) * PROMPTS, k], memorised or k < 2) for k, m in enumerate(NAMES)}
        for n, name in enumerate(SCENARIOS)
    }
    overall = {m: figure(values[:, k], memorised or k < 2) for k, m in enumerate(NAMES)}
    name = f"trial_9-{epoch:06d}.safetensors"
    changes = {"checkpoint": name, "epoch": epoch, "scale": scale, "scenarios": scenarios, "overall": overall}
    return MADE.model_copy(update=changes)


def spread(means: Points, noise: float = 0.0, seed: int = 0) -> list[Evaluation]:
    """A candidate for each row of means, the prompts scattered about it."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(len(SCENARIOS) * PROMPTS, 3)) * 0.1
    return [candidate(n + 1, 1.0, row + shared + rng.normal(size=shared.shape) * noise) for n, row in enumerate(means)]


@given(points)
def test_nothing_on_the_front_is_beaten(rows: Points) -> None:
    out = dominated(rows)
    assert not out.all()
    for n, row in enumerate(rows):
        beaten = any((other >= row).all() and (other > row).any() for other in rows)
        assert out[n] == beaten


@given(points, st.floats(0, 2))
def test_the_nearest_is_on_the_front(rows: Points, noise: float) -> None:
    far = distances(rows, np.full(3, noise), np.array([2.0, 1.0, 1.0]))
    out = dominated(rows)
    for n in np.flatnonzero(out):
        better = [far[m] for m, other in enumerate(rows) if (other >= rows[n]).all() and (other > rows[n]).any()]
        assert far[n] > min(better)


@settings(max_examples=15, deadline=None)
@given(points, st.randoms(use_true_random=False))
def test_a_choice_is_on_the_front_and_does_not_depend_on_order(rows: Points, order: random.Random) -> None:
    given_ = spread(rows / 10)
    choice = choose(given_)
    assert choice.best.on_front
    assert choice.recommended != choice.runner_up
    assert sum(c.chosen for c in choice.candidates) == pytest.approx(1, abs=1e-3)
    for scenario in choice.scenarios.values():
        assert scenario.best in scenario.front
    order.shuffle(given_)
    assert choose(given_) == choice


def test_the_best_of_everything_is_sure() -> None:
    choice = choose(spread(np.array([[0.4, 0.2, 0.8], [0.9, 0.3, 0.7], [0.5, 0.25, 0.9]]), noise=0.02))
    assert choice.best.name == "trial_9-000002 at 1"
    assert [c.on_front for c in choice.candidates] == [False, True, False]
    assert choice.best.chosen > 0.99
    assert choice.confidence.startswith("Sure: chosen again in 100 of 100")
    assert "identity 9" in choice.reason
    assert {a.verdict.value for a in choice.against} == {"better"}


def test_a_compromise_beats_the_extremes() -> None:
    # Under-trained, about right, over-trained: much more likeness for little, then little more for much.
    rows = np.array([[0.1, 0.32, 0.70], [0.75, 0.31, 0.74], [0.80, 0.22, 0.97]])
    assert choose(spread(rows, noise=0.01)).best.epoch == 2


def test_equals_are_hardly_decided() -> None:
    choice = choose(spread(np.full((4, 3), 0.5), noise=0.1, seed=4))
    assert choice.best.chosen < 0.8
    assert "not decided" in choice.confidence


def test_without_training_pictures_memorisation_is_left_out() -> None:
    rng = np.random.default_rng(0)
    given_ = [candidate(n, 1.0, rng.random((20, 3)), memorised=False) for n in (1, 2)]
    choice = choose(given_)
    assert choice.objectives == ("identity", "prompt_fidelity")
    assert choice.reason.endswith("Memorisation is left out: the training pictures are not known.")


def test_what_cannot_be_chosen_from_is_explained() -> None:
    first, second = spread(np.array([[0.5, 0.5, 0.5], [0.6, 0.5, 0.5]]))
    with pytest.raises(UserError, match="at least two"):
        choose([first])
    with pytest.raises(UserError, match="given twice"):
        choose([first, first])
    with pytest.raises(UserError, match="another trial"):
        choose([first, second.model_copy(update={"trial_folder": "elsewhere"})])
    with pytest.raises(UserError, match="another suite"):
        choose([first, second.model_copy(update={"suite": "other"})])


def test_the_file_reads_back(tmp_path: Path) -> None:
    choice = choose(spread(np.array([[0.5, 0.5, 0.5], [0.6, 0.5, 0.6]])))
    assert read_choice(write_choice(choice, tmp_path)) == choice
