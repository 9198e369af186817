"""Each figure moves with its own fault, on renders whose truth is known."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import Decision, ShotType
from onmodel.evaluation.evaluate import measure
from onmodel.evaluation.identity import RECOGNISED, STRANGER, Identity, gallery, scale_of
from onmodel.evaluation.metrics import AVERAGE_TARGET, TARGETS, Figure, Judged, Outcome, figure, target_results
from onmodel.evaluation.observe import Seen
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.suite import Prompt
from onmodel.evaluation.tasks import Options, strangers_in
from onmodel.toybox.render import Rendered, render
from onmodel.toybox.scene import random_scene

from .world import OURS, SUITE, Painter, World, draw, own_painter, references, stranger_painter, task

Measure = Callable[[Painter, str], Evaluation]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, world: World) -> Measure:
    folder = tmp_path_factory.mktemp("worlds")
    options = Options(references=references(folder / "references", world))

    def run(painter: Painter, name: str) -> Evaluation:
        return measure([task(folder / name, world, painter)], SUITE, options, world)[0]

    return run


@pytest.fixture(scope="module")
def perfect(measured: Measure) -> Evaluation:
    return measured(own_painter, "perfect")


def value(evaluation: Evaluation, metric: str, scenario: str | None = None) -> float:
    found = (evaluation.scenarios[scenario] if scenario else evaluation.overall)[metric].mean
    assert found is not None
    return found


def mixed(share: float, fault: Painter) -> Painter:
    """The character itself, but `fault` in that share of the pictures."""

    def paint(prompt: Prompt, variation: int, seed: int) -> Rendered:
        faulty = (prompt.index + variation * 2) % 3 < round(3 * share)
        return (fault if faulty else own_painter)(prompt, variation, seed)

    return paint


def test_the_character_itself_scores_near_the_top(perfect: Evaluation) -> None:
    assert value(perfect, "identity") > 0.7
    assert value(perfect, "on_model") > 0.65
    for metric in ("found", "framing", "count_right"):
        assert value(perfect, metric) == 1.0
    assert perfect.calibration is not None
    assert perfect.calibration.separation > 0.9
    assert [t.scenario for t in perfect.targets] == [*(t.scenario for t in TARGETS), "all"]
    assert perfect.targets[-1].target == AVERAGE_TARGET


def test_strangers_score_near_zero(measured: Measure) -> None:
    result = measured(stranger_painter, "strangers")
    assert abs(value(result, "identity")) < 0.15
    assert value(result, "on_model") <= 0.25
    assert value(result, "framing") == 1.0


def nobody(prompt: Prompt, variation: int, seed: int) -> Rendered:
    picture = draw("close_up", 0)
    return dataclasses.replace(picture, truth=dataclasses.replace(picture.truth, characters=()))


def alone(prompt: Prompt, variation: int, seed: int) -> Rendered:
    return draw("full_body" if prompt.scenario == "multi_character" else prompt.scenario, seed)


def twins(prompt: Prompt, variation: int, seed: int) -> Rendered:
    if prompt.scenario != "multi_character":
        return own_painter(prompt, variation, seed)
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, character=OURS, multi_character=True, occlusion=False, complex_background=False)
    people = tuple(dataclasses.replace(p, character=OURS) for p in scene.people)
    return render(dataclasses.replace(scene, people=people), 96)


FAULTS: list[tuple[str, Painter, str, str | None, tuple[tuple[str, str | None], ...]]] = [
    ("stranger", stranger_painter, "identity", None, (("found", None), ("framing", None), ("count_right", None))),
    ("nobody", nobody, "found", None, (("consistency_whole", "multi_character"),)),
    ("alone", alone, "robustness", "multi_character", (("found", None), ("on_model", "close_up"))),
    ("twins", twins, "robustness", "multi_character", (("found", None), ("on_model", "occlusion"))),
]


@pytest.mark.parametrize(("name", "fault", "metric", "scenario", "others"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_figure_falls_with_its_own_fault(
    measured: Measure,
    name: str,
    fault: Painter,
    metric: str,
    scenario: str | None,
    others: tuple[tuple[str, str | None], ...],
) -> None:
    shares = [0.0, 0.34, 0.67, 1.0]
    results = [measured(mixed(share, fault), f"{name}{share}") for share in shares]
    fallen = [value(r, metric, scenario) for r in results]
    assert np.corrcoef(stats.rankdata(shares), stats.rankdata(fallen))[0, 1] <= -0.9
    for other, where in others:
        if name == "nobody":
            continue
        assert np.ptp([value(r, other, where) for r in results]) == 0.0


def test_a_missing_companion_and_a_twin_are_told_apart(measured: Measure) -> None:
    def outcomes(result: Evaluation) -> set[str]:
        return {p.outcome for p in result.pictures if p.scenario == "multi_character"}

    assert outcomes(measured(alone, "all alone")) == {"companion missing"}
    assert "companion looks like ours" in outcomes(measured(twins, "all twins"))


def test_memorisation_is_the_nearest_training_picture(tmp_path: Path, world: World) -> None:
    own = references(tmp_path / "references", world)
    made = task(tmp_path / "trial", world, own_painter)
    copied = tuple(p.path for p in made.pictures[:2])
    copying = dataclasses.replace(made, trial=dataclasses.replace(made.trial, training_pictures=copied))
    result = measure([copying], SUITE, Options(references=own), world)[0]
    assert result.scenarios["close_up"]["memorisation"].values[0] == 1.0
    assert value(result, "memorisation", "occlusion") < 0.99
    assert measure([made], SUITE, Options(references=own), world)[0].overall["memorisation"].mean is None


def test_figures_are_not_measured_twice(tmp_path: Path) -> None:
    world = World()
    options = Options(references=references(tmp_path / "references", world))
    made = task(tmp_path / "trial", world, own_painter)
    first = measure([made], SUITE, options, world)
    asked = world.embedded
    assert measure([made], SUITE, options, world) == first
    assert world.embedded == asked, "a second run looks at nothing"
    (made.folder / "evaluation.json").write_text("{}")
    assert measure([made], SUITE, options, world) == first, "a damaged file is measured again"


def test_one_bad_picture_is_counted_and_left_out(tmp_path: Path) -> None:
    world = World()
    options = Options(references=references(tmp_path / "references", world))
    made = task(tmp_path / "trial", world, own_painter)
    made.pictures[0].path.write_bytes(b"not a picture")
    result = measure([made], SUITE, options, world)[0]
    assert result.pictures[0].outcome == "unreadable"
    assert result.overall["found"].count == len(made.pictures) - 1
    assert any("1 pictures could not be read" in w for w in result.warnings)


def test_references_are_needed(tmp_path: Path) -> None:
    world = World()
    made = task(tmp_path / "trial", world, own_painter)
    with pytest.raises(UserError, match="--references"):
        measure([made], SUITE, Options(), world)
    with pytest.raises(UserError, match="reference pictures"):
        gallery([], [])


def test_a_scale_needs_both_sides() -> None:
    row = np.eye(4, dtype=np.float32)
    assert scale_of(row[:1], row) is None
    assert scale_of(row, row[:0]) is None
    found = scale_of(row[:3], row[3:])
    assert found is not None
    assert found.separation == 0.5


def crop(row: npt.NDArray[np.float32]) -> Seen:
    row = (row / np.linalg.norm(row)).astype(np.float32)
    return Seen(Decision(ShotType.CLOSE_UP, frozenset(), 0, "made up"), 1, row, (row,), ())


def bound(spread: float, seed: int = 0) -> float:
    """The bound of references that lie so far around one point, with strangers around another."""
    rng = np.random.default_rng(seed)
    ours, theirs = np.eye(64)[0], np.eye(64)[1]
    own = [crop(ours + spread * rng.normal(size=64) / 8) for _ in range(40)]
    other = [crop(theirs + 0.3 * rng.normal(size=64) / 8) for _ in range(40)]
    return Identity(gallery(own, other)).recognised


def test_the_bound_gives_way_where_references_are_unlike_one_another() -> None:
    assert bound(0.1) == RECOGNISED
    assert STRANGER < bound(2.0) < RECOGNISED


@given(st.floats(0.0, 4.0), st.integers(0, 100))
def test_the_bound_lies_between_half_and_surely(spread: float, seed: int) -> None:
    assert STRANGER <= bound(spread, seed) <= RECOGNISED


def test_a_picture_counts_from_the_galleries_bound_on(measured: Measure) -> None:
    found = measured(mixed(0.34, stranger_painter), "bound")
    assert found.calibration is not None
    limit = found.calibration.recognised
    told = [
        (row.outcome, row.identity)
        for row in found.pictures
        if row.scenario == "close_up" and row.outcome in (Outcome.RIGHT.value, Outcome.NOT_OURS.value)
    ]
    assert {outcome for outcome, _ in told} == {Outcome.RIGHT.value, Outcome.NOT_OURS.value}
    for outcome, identity in told:
        assert identity is not None
        assert (outcome == Outcome.RIGHT.value) == (identity >= limit)


def test_the_base_models_pictures_are_found_where_another_trial_keeps_them(perfect: Evaluation, tmp_path: Path) -> None:
    assert perfect.base_pictures is not None
    theirs = sorted(Path(perfect.base_pictures).glob("*.png"))
    assert theirs
    assert strangers_in(tmp_path) == []
    assert strangers_in(tmp_path, [perfect]) == theirs


def test_targets_are_the_same_whatever_could_be_measured() -> None:
    """Where no character was drawn twice there is no consistency; two models still stand side by side."""
    shown = Figure(mean=0.5, low=0.4, high=0.6, count=4, values=(0.5,))
    scenarios = {target.scenario: {target.metric: shown} for target in TARGETS}
    whole = target_results(scenarios)
    gaps = target_results({**scenarios, TARGETS[0].scenario: {}})
    assert [(t.scenario, t.metric) for t in whole] == [(t.scenario, t.metric) for t in gaps]
    assert (gaps[0].value, gaps[0].met, gaps[-1].value, gaps[-1].met) == (None, None, None, None)
    assert whole[-1].value == 0.5
    assert len(target_results({TARGETS[0].scenario: {}})) == 1


def test_an_interval_ends_where_a_cosine_does() -> None:
    """Of two prompts that differ the t distribution knows next to nothing, but no cosine is above 1."""
    drawn = {
        prompt: [Judged(prompt, "close_up", None, (), 0.0, 1.0, fidelity, 0.0)]
        for prompt, fidelity in enumerate((0.9, -0.1))
    }
    found = figure("prompt_fidelity", drawn)
    assert (found.low, found.mean, found.high) == (-1.0, 0.4, 1.0)
