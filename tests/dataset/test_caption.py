"""Captions audited, mended and written in variants; on pictures with exact truth and on words alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import tree_hash
from onmodel.core.vocabulary import ShotType
from onmodel.dataset.ages import Age, age_words, contradictions, parse_age
from onmodel.dataset.analysis import InstanceRow, Row, analyze
from onmodel.dataset.audit import NOTES, Problem, audit, expect, usual_ages
from onmodel.dataset.captions import PHRASES, says_company, segments, without_company
from onmodel.dataset.derived import LINEAGE
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.labels import Label, read_labels, write_labels
from onmodel.dataset.mend import Expected, mend
from onmodel.dataset.recaption import CaptionConfig, check, write_captions

from .conftest import Trial

ZIBO = Expected("zibo", "boy", "teenage boy")


def row(shot: str = "full_body", attributes: tuple[str, ...] = (), count: int = 1, file: str = "a.png") -> Row:
    """A picture of so many characters."""
    one = InstanceRow(box=(10, 10, 50, 90), confidence=0.9, label="character")
    return Row(
        file=file, hash="0", width=100, height=100, shot_type=ShotType(shot), attributes=attributes,
        main=0 if count else None, reason="whole, 80 % of the picture's height", instances=(one,) * count,
    )  # fmt: skip


def problems(caption: str, seen: Row | None, expected: Expected = ZIBO) -> set[Problem]:
    return {finding.problem for finding in audit("a.png", [caption], seen, expected)}


@pytest.mark.parametrize(
    ("caption", "seen", "found", "mended"),
    [
        ("zibo, a teenage boy, full body, running", row(), set[Problem](), None),
        ("", row(), {Problem.EMPTY}, "zibo, a teenage boy, full body, plain background"),
        ("a boy, running", row(), {Problem.NO_TRIGGER}, "zibo, a boy, running"),
        ("a photo of zibo running", row(), {Problem.TRIGGER_NOT_FIRST, Problem.NO_SUBJECT},
         "zibo, a teenage boy, running"),
        ("zibo, running", row(), {Problem.NO_SUBJECT}, "zibo, a teenage boy, running"),
        ("zibo, an old man, running", row(), {Problem.WRONG_AGE}, "zibo, a teenage boy, running"),
        ("zibo, a boy, elderly man in a hat", row(), {Problem.AGES}, "zibo, a boy, teenage boy in a hat"),
        ("zibo, a boy, 40 years old", row(), {Problem.AGES}, "zibo, a boy, teenage boy"),
        ("zibo, a boy, close-up", row(), {Problem.WRONG_SHOT}, "zibo, a boy, full body"),
        ("zibo, a boy, portrait, wide shot", row("far"), {Problem.SHOTS}, "zibo, a boy, wide shot"),
        ("zibo, a boy, with a friend", row(), {Problem.COMPANY_ABSENT}, "zibo, a boy"),
        ("zibo, a boy, in a park", row(attributes=("multi_character",), count=2), {Problem.COMPANY_UNSAID},
         "zibo, a boy, with another character, in a park"),
        ("zibo, a boy, plain background", row(attributes=("complex_background",)), {Problem.WRONG_BACKGROUND},
         "zibo, a boy, detailed background"),
        ("zibo, a boy, running, Running", row(), {Problem.REPEATED}, "zibo, a boy, running"),
        ("zibo, a boy, full body, in a park", row("unclassified", count=0), {Problem.ABSENT}, "in a park"),
        ("zibo, a boy", row("unclassified", count=0), {Problem.ABSENT}, "no people"),
        ("zibo, nobody, in a park", row(), {Problem.UNSAID, Problem.NO_SUBJECT}, "zibo, a teenage boy, in a park"),
        ("no people, in a park", row("unclassified", count=0), set[Problem](), None),
        ("no people, in a park", None, set[Problem](), None),
        ("zibo, detail of clothes", row("unclassified"), set[Problem](), None),
        # Words about somebody else, and about things, are no contradiction.
        ("zibo, a boy, next to an old man", row(attributes=("multi_character",), count=2), set[Problem](), None),
        ("zibo, a boy, with an old hat, baby blue shirt", row(), set[Problem](), None),
        ("zibo, a boy, full body, mountains in the distance", row(), set[Problem](), None),
    ],
)  # fmt: skip
def test_findings_and_their_fixes(caption: str, seen: Row | None, found: set[Problem], mended: str | None) -> None:
    assert problems(caption, seen) == found
    assert mend(caption, seen, ZIBO) == (caption if mended is None else mended)


def test_findings_name_evidence_and_fix() -> None:
    (shot,) = audit("b.png", ["zibo, a boy, close-up"], row(), ZIBO)
    assert shot.file == "b.png"
    assert shot.evidence == "'close-up', but it is full body: whole, 80 % of the picture's height"
    assert shot.fix == "write 'full body'"
    second = audit("b.png", ["zibo, a boy", "zibo, a girl, old man"], None, ZIBO)
    assert {finding.line for finding in second} == {2}


TAGS = [
    "zibo", "a boy", "a teenage boy", "an old man", "young boy in a hat", "toddler", "full body", "close-up portrait",
    "medium shot", "far away", "with a friend", "next to another character", "a photo of zibo waving",
    "plain background",
    "busy street", "in a park", "behind a bush", "red shirt", "red shirt", "nobody", "Zibo with two other characters",
    "12 years old", "standing beside an elderly woman", "two boys", "portrait of zibo in a room",
]  # fmt: skip
ROWS = [
    None, row(), row("close_up", ("complex_background",)), row("medium", ("multi_character", "occlusion"), 2),
    row("far", (), 1), row("unclassified", (), 1), row("unclassified", (), 0),
]  # fmt: skip
EXPECTED = [Expected(), Expected("zibo"), ZIBO, Expected("zibo", "rabbit"), Expected("zibo", None, "elderly woman")]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=6), st.sampled_from(ROWS), st.sampled_from(EXPECTED))
def test_a_mended_caption_is_right_and_stays(tags: list[str], seen: Row | None, expected: Expected) -> None:
    once = mend(", ".join(tags), seen, expected)
    left = {finding.problem for finding in audit("a", [once], seen, expected)}
    assert left <= ({Problem.EMPTY} if not once else set())
    assert mend(once, seen, expected) == once


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=6))
def test_company_leaves_whole(tags: list[str]) -> None:
    assert not says_company(without_company(", ".join(tags)))


@pytest.mark.parametrize(
    ("phrase", "ages"),
    [
        ("teenage boy", {Age.TEEN}),
        ("12 years old", {Age.CHILD}),
        ("elderly woman", {Age.OLD}),
        ("girl", {Age.CHILD, Age.TEEN, Age.YOUNG_ADULT}),
        ("teenage spiky-haired boy", {Age.TEEN}),
    ],
)
def test_ages(phrase: str, ages: set[Age]) -> None:
    assert parse_age(phrase) == ages


def test_an_age_that_says_none_is_refused() -> None:
    with pytest.raises(UserError, match="says no age"):
        parse_age("blue")
    with pytest.raises(UserError, match="contradicts itself"):
        parse_age("old man, child")
    assert contradictions(age_words("a boy next door, 1boy, teenager")) is None


def test_trigger_and_age_are_read_from_the_captions() -> None:
    captions = ["zibo, a teenage boy"] * 5 + ["zibo, an old man"]
    assert expect(captions, Expected()).trigger == "zibo"
    assert expect(["a boy, running"] * 5, Expected()).trigger is None
    usual = usual_ages(captions)
    assert usual == {Age.TEEN}
    (finding,) = audit("a", [captions[-1]], None, Expected("zibo"), usual)
    assert finding.problem is Problem.WRONG_AGE
    assert finding.fix == "say which with --age"
    assert usual_ages(captions[:2]) is None


def seen_by(trial: Trial) -> dict[str, Row]:
    return {each.file: each for each in analyze(trial.dataset, trial.services()).rows}


def test_the_renderers_captions_are_right(trial: Trial) -> None:
    result = check(trial.dataset, seen_by(trial), CaptionConfig(age="teenage boy"))
    assert result.trigger == "zibo"
    # The decision about backgrounds is a threshold on pixels; all else is the renderer's truth.
    assert {finding.problem for finding in result.findings} <= {Problem.WRONG_BACKGROUND}


def test_every_fault_is_found_and_mended(trial: Trial, tmp_path: Path) -> None:
    seen = seen_by(trial)
    bodies = [name for name, each in seen.items() if each.shot_type is ShotType.FULL_BODY]
    faults = {
        bodies[0]: ("zibo, a teenage boy, close-up", Problem.WRONG_SHOT),
        bodies[1]: ("zibo, a toddler, full body", Problem.WRONG_AGE),
        bodies[2]: ("a teenage boy, full body", Problem.NO_TRIGGER),
        bodies[3]: ("", Problem.EMPTY),
    }
    for name, (caption, _) in faults.items():
        (trial.path / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    before = tree_hash(trial.path)
    config = CaptionConfig(trigger="zibo", class_word="boy", age="teenage boy")
    result = write_captions(trial.dataset, seen, tmp_path / "out", config, mode="fix")
    assert tree_hash(trial.path) == before
    for name, (_, problem) in faults.items():
        assert problem in {finding.problem for finding in result.findings if finding.file == name}
    assert not result.left
    texts = {p.path.name: p.caption for p in load_dataset(tmp_path / "out").pictures}
    assert {texts[name] for name in bodies[:3]} == {"zibo, a teenage boy, full body"}
    # Whatever was right stays to the letter.
    same = [p for p in trial.dataset.pictures if p.path.name not in {f.file for f in result.findings}]
    assert same
    assert all(texts[p.path.name] == p.caption for p in same)


def test_variants_are_lines_that_keep_their_order(trial: Trial, tmp_path: Path) -> None:
    seen, out = seen_by(trial), tmp_path / "out"
    config = CaptionConfig(trigger="zibo", age="teenage boy", variants=3)
    write_captions(trial.dataset, seen, out, config)
    made = load_dataset(out)
    assert len(made.pictures) == len(trial.dataset.pictures)
    for picture in made.pictures:
        lines = (picture.caption, *picture.variants)
        each = seen[picture.path.name]
        assert len(set(lines)) == len(lines) <= 3
        assert picture.path.with_suffix(".txt").read_text(encoding="utf-8").splitlines() == list(lines)
        if each.shot_type is ShotType.UNCLASSIFIED:
            continue
        assert len(lines) == 3
        for line in lines:
            parts = segments(line)
            assert parts[:2] == ["zibo", "a teenage boy"]
            assert parts[2] in PHRASES[each.shot_type]
            assert len(set(parts)) == len(parts)
    write_captions(trial.dataset, seen, tmp_path / "again", config)
    assert (out / LINEAGE).read_bytes() == (tmp_path / "again" / LINEAGE).read_bytes()


def test_lineage_and_facts_go_along(trial: Trial, tmp_path: Path) -> None:
    seen, out = seen_by(trial), tmp_path / "out"
    write_captions(trial.dataset, seen, out, CaptionConfig(trigger="zibo"))
    lines = [json.loads(line) for line in (out / LINEAGE).read_text(encoding="utf-8").splitlines()]
    assert {line["source"] for line in lines} == set(seen)
    for line in lines:
        assert line["hash"] == line["source_hash"] == seen[line["source"]].hash
        assert (out / line["file"]).is_file()
    assert len(list(Facts.open(out).items())) == len(seen)
    services = trial.services()
    analyze(load_dataset(out), services, model=services.detection.model_info())
    assert services.detection.asked == 0


def test_what_a_person_corrected_goes_along(trial: Trial, tmp_path: Path) -> None:
    picture = trial.dataset.pictures[0]
    write_labels(trial.path, [Label(file=picture.path.name, hash=picture.hash, shot_type=ShotType.FAR)])
    seen = seen_by(trial)
    assert seen[picture.path.name].shot_type is ShotType.FAR
    write_captions(trial.dataset, seen, tmp_path / "out", CaptionConfig(trigger="zibo"))
    assert read_labels(tmp_path / "out")[picture.hash].shot_type is ShotType.FAR
    assert "wide shot" in (tmp_path / "out" / picture.path.name).with_suffix(".txt").read_text(encoding="utf-8")


def test_repeat_folders_stay(trial: Trial, tmp_path: Path) -> None:
    folder = trial.path / "3_zibo boy"
    folder.mkdir()
    for path in sorted(trial.path.glob("*_000[0-4].*")):
        path.rename(folder / path.name)
    write_captions(trial.dataset, {}, tmp_path / "out", CaptionConfig(trigger="zibo"))
    made = load_dataset(tmp_path / "out")
    assert sorted(p.repeats for p in made.pictures) == [1] * 15 + [3] * 5
    assert {p.class_tokens for p in made.pictures} == {None, "zibo boy"}


def test_a_broken_picture_is_counted(trial: Trial, tmp_path: Path) -> None:
    (trial.path / "broken.png").write_bytes(b"no picture")
    seen = seen_by(trial)
    result = write_captions(trial.dataset, seen, tmp_path / "out", CaptionConfig(trigger="zibo"))
    assert (result.pictures, result.unreadable) == (21, 1)
    assert len(load_dataset(tmp_path / "out").pictures) == 20


def test_originals_are_never_written_into(trial: Trial) -> None:
    for place in (trial.path, trial.path / "inside", trial.path.parent):
        with pytest.raises(UserError, match="stays untouched"):
            write_captions(trial.dataset, {}, place, CaptionConfig())


@pytest.mark.parametrize(
    "wrong",
    [
        {"trigger": "zibo, boy"},
        {"variants": 0},
        {"template": ("trigger", "trigger")},
        {"context": {"weather": ("rain",)}},
        {"shots": {"medium": ()}},
    ],
)
def test_wrong_wording_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"trigger|variants|template|context|shots"):
        CaptionConfig.model_validate(wrong)


def test_own_words(trial: Trial, tmp_path: Path) -> None:
    config = CaptionConfig(
        trigger="zibo", template=("trigger", "shot", "background"), shots={ShotType.CLOSE_UP: ("face shot",)}
    )
    write_captions(trial.dataset, seen_by(trial), tmp_path / "out", config)
    close = [p for p in load_dataset(tmp_path / "out").pictures if "face shot" in p.caption]
    assert close
    assert all(p.caption.startswith("zibo, face shot, ") and len(segments(p.caption)) == 3 for p in close)


def test_notes_are_no_contradictions() -> None:
    assert Problem.WRONG_SHOT not in NOTES
    finding = audit("a", ["zibo, a boy, red shirt, red shirt"], None, ZIBO)
    assert all(each.is_note for each in finding)


def test_a_model_that_is_not_there() -> None:
    from onmodel.dataset.captioner import Captioner, CaptionerConfig

    with pytest.raises(NotFoundError, match=r"no config\.json"):
        Captioner(CaptionerConfig(path=Path("/nowhere")))
