"""What a round applies, with what a project has and allows; and what a journal keeps."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from onmodel.cli.main import load_verb
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.vocabulary import ShotType
from onmodel.detection.config import DetectorConfig
from onmodel.diagnosis.decide import decide
from onmodel.diagnosis.diagnose import diagnose
from onmodel.diagnosis.facts import analysis_facts
from onmodel.diagnosis.fixes import WaitingForCuration, Workshop, curated
from onmodel.diagnosis.journal import Choice, Decision, Journal
from onmodel.diagnosis.project import Project, load_project
from onmodel.diagnosis.rules import rule_table
from onmodel.diagnosis.sources import Names, Sources, slots_of
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import Services

from .made import analysis, fact

SHOTS = {ShotType.CLOSE_UP: 60, ShotType.FULL_BODY: 4}
ANALYSIS = analysis({"zibo, a teenage boy": 64}, SHOTS)


def project(**changes: Any) -> Project:
    value = {"name": "z", "dataset": "d", "references": "r", "training": "t.toml", "output_dir": "o", "trigger": "zibo"}
    return Project.model_validate({**value, "class": "boy", **changes})


def choices(tried: set[str] | None = None, extra: dict[str, float] | None = None, **changes: Any) -> dict[str, Choice]:
    sources = Sources(analysis=ANALYSIS)
    facts = analysis_facts(ANALYSIS) | {name: fact(value) for name, value in (extra or {}).items()}
    found = diagnose(facts, slots_of(sources, Path("out"), Names()))
    made = decide(2, found, ANALYSIS, project(**changes), tried or set(), dataset="d", trial=None)
    return {choice.rule: choice for choice in made.choices}


def test_without_materials_only_what_crops_can_make_is_applied() -> None:
    found = choices(allowed=["augment"])
    assert found["medium_lacking"].action == "applied"
    assert found["company_lacking"].action == "not possible"
    assert "companions" in found["company_lacking"].why
    with_some = choices(allowed=["augment"], materials={"companions": ["c"]})
    assert with_some["company_lacking"].step == "augment"


def test_a_film_goes_before_composites_and_repeats() -> None:
    found = choices(film={"files": ["f.mp4"]}, materials={"companions": ["c"]})
    assert {found[rule].step for rule in ("close_up_heavy", "proportions_unstable", "company_lacking")} == {"extract"}
    without = choices(allowed=["mix"])
    assert without["proportions_unstable"].step == "mix", "some full bodies are there"
    assert without["medium_lacking"].action == "not allowed", "no medium shot is there to be shown more often"


def test_what_is_not_allowed_or_was_tried_is_said() -> None:
    found = choices({"medium_lacking"}, allowed=["captions"])
    assert found["medium_lacking"].action == "tried before"
    assert found["close_up_heavy"].action == "not allowed"
    assert not any(choice.step for choice in found.values())


def test_one_change_of_the_parameters_a_round() -> None:
    extra = {"overall.identity": 0.1, "training.showings": 2.0, "scale.lower.on_model": 0.3, "gap.far": 0.5}
    found = choices(extra=extra, allowed=["parameters"])
    steps = [found[rule].step for rule in ("under_training", "too_strong")]
    assert sorted(steps, key=str) == [None, "parameters"]


def test_a_person_is_needed_where_somebody_else_is_shown() -> None:
    found = choices(extra={"set.strangers": 50.0})
    assert found["identity_mixed"].action == "not possible"
    assert "onmodel curate" in found["identity_mixed"].why


def test_the_mix_of_a_decision_is_in_the_order_of_the_work() -> None:
    def choice(step: Any) -> Choice:
        return Choice(rule="r", cause="c", expected_gain=0.1, action="applied", step=step, why="", evidence=())

    made = Decision(
        number=1, dataset="d", trial=None, conclusion="", choices=tuple(map(choice, ("mix", "augment", "captions")))
    )
    assert made.steps == ("captions", "augment", "mix")


def test_a_folder_is_one_projects(tmp_path: Path) -> None:
    given = project(output_dir=tmp_path / "work")
    Journal(given.output_dir).claim(given)
    Journal(given.output_dir).claim(given.model_copy(update={"rounds": 9, "num_workers": 2}))
    with pytest.raises(UserError, match="other settings"):
        Journal(given.output_dir).claim(given.model_copy(update={"trigger": "mirel"}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text.txt").write_text("x")
    with pytest.raises(UserError, match="not a project's folder"):
        Journal(tmp_path / "mine").claim(given)


PROJECT = """name = "zibo"
dataset = "d"
references = "d"
training = "t.toml"
output_dir = "o"
trigger = "zibo"
class = "boy"
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("round = 3", "did you mean `rounds`"),
        ('allowed = ["pray"]', "allowed"),
        ("scales = [0.7]", "hold 1.0"),
        ("rounds = 0", "rounds"),
        ('test_suite = "mine.json"', "mine.json: no such test suite"),
        ('[materials]\nbackground = ["d"]', "did you mean `backgrounds`"),
        ('[materials]\nbackgrounds = ["gone"]', "gone: no such folder of backgrounds"),
        ("[film]\nfiles = []", "files"),
    ],
)
def test_a_wrong_project_is_said_in_a_sentence(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "t.toml").write_text("")
    file = tmp_path / "project.toml"
    file.write_text(PROJECT + line + "\n")
    with pytest.raises(UserError, match=said):
        load_project(file)
    # The command says it before it loads or starts anything.
    with pytest.raises(UserError, match=said):
        load_verb("improve").main([str(file)], standalone_mode=False)


def test_paths_are_those_beside_the_project_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "t.toml").write_text("")
    file = tmp_path / "project.toml"
    file.write_text(PROJECT)
    found = load_project(file)
    assert (found.dataset, found.output_dir) == (tmp_path / "d", tmp_path / "o")
    with pytest.raises(NotFoundError):
        load_project(tmp_path / "other.toml")


def test_the_project_file_of_the_manual_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    block = page.split("```toml\n", 1)[1].split("```", 1)[0]
    assert Project.model_validate(tomllib.loads(block)).film is not None


def test_the_manual_names_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    assert all(f"`{rule.id}`" in page for rule in rule_table().rule)


def test_a_person_is_asked_before_frames_are_taken(tmp_path: Path) -> None:
    clusters, target = tmp_path / "clusters", tmp_path / "curated"
    asked: list[str] = []

    def shop(answer: bool | None) -> Workshop:
        def ask(question: str) -> bool:
            asked.append(question)
            return bool(answer)

        detector, scorer = DetectorConfig.preset("toybox"), ScorerConfig()
        services = Services(None, {}, 1.0)
        return Workshop(project(), services, detector, scorer, "", None if answer is None else ask)

    with pytest.raises(UserError, match="no cluster is like the references"):
        curated(shop(None), clusters, target)
    own = clusters / "zibo"
    own.mkdir(parents=True)
    (own / "1.png").write_bytes(b"")
    assert curated(shop(None), clusters, target) == own
    assert not asked
    assert curated(shop(True), clusters, target) == own
    assert "1 frames are grouped as zibo" in asked[0]
    with pytest.raises(WaitingForCuration, match=f"onmodel curate {clusters} --output-dir {target}"):
        curated(shop(False), clusters, target)
    target.mkdir()
    assert curated(shop(False), clusters, target) == target, "what a person wrote is taken, and nobody asked again"
    assert len(asked) == 2
