"""Captions written from a template, several a picture, into a derived set; or only put right where they are wrong."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from onmodel.core.config import Config
from onmodel.core.errors import UserError
from onmodel.core.files import folder_aside
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.analysis import Row
from onmodel.dataset.audit import Finding, audit, expect, usual_ages
from onmodel.dataset.captions import (
    CONTEXT,
    HIDDEN,
    PHRASES,
    PLACE,
    background_said,
    is_subject,
    says_company,
    segments,
    unique,
    without_shots,
)
from onmodel.dataset.derived import (
    Names,
    carry_facts,
    carry_labels,
    check_place,
    class_tokens,
    folder_of,
    inherited,
    read_lineage,
    write_lineage,
)
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.mend import Expected, mend

Slot = Literal["trigger", "subject", "shot", "tags", "company", "hidden", "background"]
SLOTS: tuple[Slot, ...] = ("trigger", "subject", "shot", "tags", "company", "hidden", "background")
Mode = Literal["template", "fix"]
MOST_LINES = 16
Describe = Callable[[Sequence[bytes]], Sequence[str]]
"""Encoded pictures to one sentence each; empty where a picture cannot be described."""


class CaptionConfig(Config):
    """How captions are worded."""

    trigger: str | None = None
    """Word that stands for the character; None reads it from the captions."""
    class_word: str | None = None
    """What the character is: "boy", "rabbit"."""
    age: str | None = None
    """Its age in words: "teenage boy", "elderly woman", "12 years old"."""
    variants: int = Field(default=1, ge=1, le=MOST_LINES)
    """Captions a picture, each on a line of its own, the plainest first."""
    template: tuple[Slot, ...] = SLOTS
    """Order of the tags. Trigger and subject come first, so that `keep_tokens` holds them when tags are shuffled."""
    shots: dict[ShotType, tuple[str, ...]] = PHRASES
    """Ways to say each shot type; variants take turns."""
    context: dict[str, tuple[str, ...]] = CONTEXT
    """Ways to say each attribute and a plain background; variants take turns."""
    recaption: bool = False
    """Describe every picture anew with the captioning model, not only those whose captions describe nothing."""
    seed: int = 0
    """Of the order of tags in further captions."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.template)) != len(self.template):
            raise ValueError("`template` names a part twice")
        for name, ways, known in (("shots", self.shots, set(PHRASES)), ("context", self.context, set(CONTEXT))):
            if set(ways) - known or not all(ways.values()):
                raise ValueError(f"`{name}` needs at least one phrase for each of: {', '.join(sorted(known))}")
        for name, value in (("trigger", self.trigger), ("class_word", self.class_word)):
            if value is not None and ("," in value or not value.strip()):
                raise ValueError(f"`{name}` must be one tag: words without a comma")
        return self

    @property
    def expected(self) -> Expected:
        return Expected(self.trigger, self.class_word, self.age)

    def way(self, name: str, variant: int) -> str:
        """A phrase for an attribute or "plain_background"."""
        ways = self.context.get(name) or CONTEXT[name]
        return ways[variant % len(ways)]


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """What was found and written."""

    pictures: int
    unreadable: int
    trigger: str | None
    """Given, or read from the captions."""
    findings: tuple[Finding, ...]
    output_dir: Path | None = None
    changed: int = 0
    """Pictures whose first caption is another now."""
    left: tuple[Finding, ...] = ()
    """What is still wrong with the captions that were written."""
    described: int = 0
    """Pictures that the captioning model described."""

    @property
    def contradictions(self) -> tuple[Finding, ...]:
        """Findings that make a caption false."""
        return tuple(each for each in self.findings if not each.is_note)

    @property
    def counts(self) -> dict[str, int]:
        """Problem -> pictures that have it, the most frequent first."""
        pairs = {(each.problem.value, each.file) for each in self.findings}
        return dict(Counter(sorted(problem for problem, _ in pairs)).most_common())


def check(dataset: Dataset, rows: Mapping[str, Row], config: CaptionConfig) -> CaptionResult:
    """Audit a dataset's captions; nothing is written.

    Args:
        dataset: pictures with captions.
        rows: what was seen in each picture, by its path below the dataset; without a row the words alone are checked.
        config: trigger, class word and age to expect.

    Raises:
        UserError: `age` says no age.
    """
    expected, usual = _expected(dataset, config)
    findings: list[Finding] = []
    for picture in dataset.pictures:
        name = dataset.relative(picture)
        findings += audit(name, _lines(picture), rows.get(name), expected, usual)
    unreadable = sum(row.error is not None for row in rows.values())
    return CaptionResult(len(dataset.pictures), unreadable, expected.trigger, tuple(findings))


def _expected(dataset: Dataset, config: CaptionConfig) -> tuple[Expected, Any]:
    captions = [picture.caption for picture in dataset.pictures]
    expected = expect(captions, config.expected)
    # Asked for here, so that a phrase without an age is refused before anything is looked at.
    _ = expected.ages
    return expected, usual_ages(captions) if config.age is None else None


def _lines(picture: Picture) -> list[str]:
    return [picture.caption, *picture.variants]


def write_captions(
    dataset: Dataset,
    rows: Mapping[str, Row],
    output_dir: Path,
    config: CaptionConfig,
    *,
    mode: Mode = "template",
    describe: Describe | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> CaptionResult:
    """Write a derived set: the same pictures with captions put right, or written anew from the template.

    Args:
        dataset: the originals; not touched.
        rows: as for `check`.
        output_dir: made whole or not at all; an earlier derived set there is replaced.
        config: wording.
        mode: "template" writes every caption in the template's order; "fix" changes wrong captions alone, and no more
            of them than is wrong.
        describe: a captioning model for pictures whose captions describe nothing (all with `config.recaption`).
        advance: called with the number of pictures written.

    Raises:
        UserError: `age` says no age, or `output_dir` holds something else.
        ResourceError: the disk is full.
    """
    check_place([dataset.path, *{p.path.parent for p in dataset.pictures}], output_dir)
    result = check(dataset, rows, config)
    wrong = {each.file for each in result.findings}
    expected, usual = _expected(dataset, config)
    described = {} if describe is None else _described(dataset, rows, expected, config, describe)
    tokens, names = class_tokens(dataset), Names()
    before = read_lineage(dataset.path)
    lineage: list[dict[str, Any]] = []
    left: list[Finding] = []
    with folder_aside(output_dir) as aside:
        for number, picture in enumerate(dataset.pictures):
            name = dataset.relative(picture)
            row = rows.get(name)
            if row is not None and row.error is not None:
                advance(1)
                continue
            lines = _rewritten(picture, name, row, expected, config, mode, described.get(name), name in wrong, number)
            left += audit(name, lines, row, expected, usual)
            target = aside / folder_of(picture, tokens) / f"{names.free(picture.path.stem)}{picture.path.suffix}"
            target.parent.mkdir(exist_ok=True)
            _copy(picture.path, target)
            target.with_suffix(".txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            found = [each for each in result.findings if each.file == name]
            line = _lineage(target.relative_to(aside), picture, name, row, lines, found)
            lineage.append({**inherited(before.get(name, {})), "dataset": str(dataset.path.resolve()), **line})
            advance(1)
        if not lineage:
            raise UserError(f"{dataset.path}: none of its {len(dataset.pictures)} pictures can be read")
        write_lineage(aside, lineage)
        carry_facts(dataset.path, aside, {str(line["hash"]): str(line["file"]) for line in lineage})
        carry_labels(dataset.path, aside, {str(line["hash"]): str(line["file"]) for line in lineage})
    changed = sum(line["caption"] != line["caption_before"] for line in lineage)
    return CaptionResult(
        result.pictures, result.unreadable, result.trigger, result.findings, output_dir, changed, tuple(left),
        len(described),
    )  # fmt: skip


def _rewritten(
    picture: Picture,
    name: str,
    row: Row | None,
    expected: Expected,
    config: CaptionConfig,
    mode: Mode,
    description: str | None,
    wrong: bool,
    number: int,
) -> list[str]:
    """The captions of one picture."""
    caption = picture.caption if description is None else description
    if mode == "template":
        rng = np.random.default_rng([config.seed, number])
        return compose(mend(caption, row, expected), row, expected, config, rng)
    if description is None and not wrong:
        return _lines(picture) if picture.caption else []
    lines = [mend(line, row, expected) for line in (caption, *picture.variants)]
    return list(dict.fromkeys(line for line in lines if line))


def compose(
    caption: str, row: Row | None, expected: Expected, config: CaptionConfig, rng: np.random.Generator
) -> list[str]:
    """Captions in the template's order, `config.variants` at most, no two alike; the first is the plainest.

    Args:
        caption: what is known in words, already put right by `mend`.
        row: what was seen; None leaves out what only the picture could say.
        expected: trigger and subject.
        config: wording.
        rng: of the order of tags in further captions.
    """
    seen = row is not None and row.error is None
    shot = row.shot_type if row is not None and seen else ShotType.UNCLASSIFIED
    attributes = frozenset(row.attributes) if row is not None and seen else frozenset[str]()
    slots = _slots(caption, expected, keep_shots=shot is ShotType.UNCLASSIFIED)
    if expected.subject is not None and slots["subject"]:
        slots["subject"] = [expected.subject]
    lines: list[str] = []
    # A few more tries than lines: with few tags some orders and phrases come twice.
    for variant in range(config.variants * 4):
        if len(lines) == config.variants:
            break
        said: dict[Slot, list[str]] = {slot: list(tags) for slot, tags in slots.items()}
        if shot is not ShotType.UNCLASSIFIED:
            ways = config.shots.get(shot) or PHRASES[shot]
            said["shot"] = [ways[variant % len(ways)]]
        _fill(said, row, attributes, config, variant)
        if variant:
            said["tags"] = [said["tags"][int(i)] for i in rng.permutation(len(said["tags"]))]
        line = unique(", ".join(tag for slot in config.template for tag in said[slot]))
        if line and line not in lines:
            lines.append(line)
    return lines


def _slots(caption: str, expected: Expected, *, keep_shots: bool) -> dict[Slot, list[str]]:
    """A caption's parts by what they are about."""
    slots: dict[Slot, list[str]] = {slot: [] for slot in SLOTS}
    trigger = (expected.trigger or "").lower()
    for part in segments(caption if keep_shots else without_shots(caption)):
        if trigger and part.lower() == trigger:
            slots["trigger"].append(part)
        elif not slots["subject"] and not slots["tags"] and is_subject(part):
            slots["subject"].append(part)
        elif says_company(part) and len(part.split()) <= 5:
            slots["company"].append(part)
        elif HIDDEN.search(part) and len(part.split()) <= 5:
            slots["hidden"].append(part)
        elif PLACE.match(part) or background_said(part) or part.lower().endswith("background"):
            slots["background"].append(part)
        else:
            slots["tags"].append(part)
    return slots


def _fill(
    said: dict[Slot, list[str]], row: Row | None, attributes: frozenset[str], config: CaptionConfig, variant: int
) -> None:
    """Say what was seen and no word says yet."""
    whole = ", ".join(tag for tags in said.values() for tag in tags)
    if Attribute.MULTI_CHARACTER in attributes and not says_company(whole):
        said["company"].append(config.way(Attribute.MULTI_CHARACTER.value, variant))
    if Attribute.OCCLUSION in attributes and not HIDDEN.search(whole):
        said["hidden"].append(config.way(Attribute.OCCLUSION.value, variant))
    # Without a character nothing says which part of the picture is background.
    if row is not None and row.main is not None and not PLACE.search(whole):
        busy = Attribute.COMPLEX_BACKGROUND in attributes
        said["background"].append(
            config.way(Attribute.COMPLEX_BACKGROUND.value if busy else "plain_background", variant)
        )


def _described(
    dataset: Dataset, rows: Mapping[str, Row], expected: Expected, config: CaptionConfig, describe: Describe
) -> dict[str, str]:
    """Captions from the model by file, for the pictures that need one; the model sees them all in batches."""
    wanted: list[Picture] = []
    for picture in dataset.pictures:
        row = rows.get(dataset.relative(picture))
        if row is not None and row.error is not None:
            continue
        slots = _slots(picture.caption, expected, keep_shots=False)
        if config.recaption or not (slots["tags"] or slots["background"]):
            wanted.append(picture)
    sentences = describe([picture.bytes() for picture in wanted]) if wanted else []
    found: dict[str, str] = {}
    for picture, sentence in zip(wanted, sentences, strict=True):
        if sentence:
            # What a person wrote first, such as the trigger, stays first.
            kept = "" if config.recaption else picture.caption
            found[dataset.relative(picture)] = ", ".join(part for part in (kept, sentence) if part)
    return found


def _copy(source: Path, target: Path) -> None:
    # A copy and no link: who edits the derived set must not change the original.
    shutil.copyfile(source, target)


def _lineage(
    file: Path, picture: Picture, name: str, row: Row | None, lines: Sequence[str], findings: Sequence[Finding]
) -> dict[str, Any]:
    return {
        "file": file.as_posix(),
        "hash": picture.hash,
        "source": name,
        "source_hash": picture.hash,
        "operation": "caption",
        "shot_type": None if row is None else row.shot_type.value,
        "attributes": [] if row is None else sorted(row.attributes),
        "repeats": picture.repeats,
        "caption_before": picture.caption,
        "caption": lines[0] if lines else "",
        "variants": list(lines[1:]),
        "mended": sorted({each.problem.value for each in findings}),
    }
