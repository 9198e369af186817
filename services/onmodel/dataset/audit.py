"""Captions checked against themselves and against what the pictures show; each finding with evidence and a fix."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.ages import Age, Ages, age_words, clash, contradictions
from onmodel.dataset.analysis import Row
from onmodel.dataset.captions import (
    background_said,
    is_subject,
    repeated,
    said_shots,
    says_company,
    says_detail,
    says_nobody,
    segments,
)
from onmodel.dataset.mend import Expected, mend, names_somebody, own_part, shows_nobody
from onmodel.dataset.recommended import LABELS


class Problem(StrEnum):
    """What can be wrong with a caption."""

    EMPTY = "empty caption"
    NO_TRIGGER = "trigger missing"
    TRIGGER_NOT_FIRST = "trigger not first"
    NO_SUBJECT = "class word missing"
    AGES = "ages contradict"
    WRONG_AGE = "other age"
    ABSENT = "named but absent"
    UNSAID = "there but denied"
    COMPANY_ABSENT = "company absent"
    COMPANY_UNSAID = "company unsaid"
    WRONG_SHOT = "other shot type"
    SHOTS = "shot types contradict"
    WRONG_BACKGROUND = "other background"
    REPEATED = "repeated tag"


NOTES = frozenset({Problem.COMPANY_UNSAID, Problem.REPEATED, Problem.NO_SUBJECT, Problem.TRIGGER_NOT_FIRST})
"""Findings that weaken a caption without making it false; `--check` fails on the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one caption."""

    file: str
    line: int
    """Line of the caption file, from 1."""
    problem: Problem
    evidence: str
    fix: str
    caption: str

    @property
    def is_note(self) -> bool:
        """Whether the caption is only weaker for it, not false."""
        return self.problem in NOTES


@dataclass(frozen=True, slots=True)
class _Subject:
    caption: str
    row: Row | None
    """What was seen; None where it is not known."""
    expected: Expected
    line: int = 1


def expect(captions: Sequence[str], expected: Expected) -> Expected:
    """`expected`, its trigger read from the captions where none is given: the first part that most of them share."""
    if expected.trigger is not None:
        return expected
    firsts = Counter(segments(caption)[0].lower() for caption in captions if segments(caption))
    if not firsts:
        return expected
    word, count = firsts.most_common(1)[0]
    shared = count >= 0.6 * firsts.total() and count > 1 and len(word.split()) <= 2 and not is_subject(word)
    return Expected(word if shared else None, expected.class_word, expected.age)


def usual_ages(captions: Sequence[str]) -> Ages | None:
    """The ages that most captions that say one agree on; None where they say none, or no two thirds agree."""
    said: Counter[Age] = Counter()
    total = 0
    for caption in captions:
        words = age_words(own_part(caption))
        if words and not contradictions(words):
            total += 1
            allowed = frozenset(Age)
            for word in words:
                allowed &= word.ages
            said.update(allowed)
    most = {age for age, count in said.items() if count >= 2 / 3 * total}
    return frozenset(most) if total >= 3 and most else None


def audit(
    file: str, lines: Sequence[str], row: Row | None, expected: Expected, usual: Ages | None = None
) -> list[Finding]:
    """What is wrong with a picture's captions.

    Args:
        file: the picture's name, for the findings.
        lines: its captions, one or more; none is an empty caption.
        row: what was seen in the picture; None checks the words alone.
        expected: trigger, class word and age.
        usual: ages that the dataset's captions agree on, used where `expected` has no age.
    """
    found: list[Finding] = []
    for number, caption in enumerate(lines or [""], start=1):
        subject = _Subject(caption, row, expected, number)
        for check in _CHECKS:
            for problem, evidence, fix in check(subject, usual):
                found.append(Finding(file, number, problem, evidence, fix, caption))
            if found and found[-1].problem is Problem.EMPTY:
                break
    return found


Said = list[tuple[Problem, str, str]]
"""Problem, evidence and fix of each finding of a check."""


def _empty(item: _Subject, usual: Ages | None) -> Said:
    if segments(item.caption):
        return []
    return [(Problem.EMPTY, "nothing is written", f"write {mend('', item.row, item.expected)!r}")]


def _trigger(item: _Subject, usual: Ages | None) -> Said:
    trigger, parts = item.expected.trigger, segments(item.caption)
    if trigger is None or _nobody(item):
        return []
    if trigger.lower() not in item.caption.lower():
        return [(Problem.NO_TRIGGER, f"{trigger!r} is not in it", f"put {trigger!r} first")]
    if parts[0].lower() != trigger.lower():
        return [(Problem.TRIGGER_NOT_FIRST, f"starts with {parts[0]!r}", f"put {trigger!r} first, as a tag of its own")]
    return []


def _named_subject(item: _Subject, usual: Ages | None) -> Said:
    subject, word = item.expected.subject, item.expected.class_word
    # A picture of no shot type is a detail: who it belongs to need not be said.
    detail = (item.row is not None and item.row.shot_type is ShotType.UNCLASSIFIED) or says_detail(item.caption)
    if subject is None or detail or _nobody(item):
        return []
    if any(is_subject(part) for part in segments(item.caption)[:3]) or (word and word.lower() in item.caption.lower()):
        return []
    return [(Problem.NO_SUBJECT, f"no {word or item.expected.age!r} among the first tags", f"write {subject!r} second")]


def _ages(item: _Subject, usual: Ages | None) -> Said:
    if _nobody(item):
        return []
    words = age_words(own_part(item.caption))
    pair = contradictions(words)
    said = item.expected.age
    if pair is not None:
        keep = f"keep {said!r}" if said else f"keep {pair[0].text!r}, which comes first"
        return [(Problem.AGES, f"{pair[0].text!r} and {pair[1].text!r} exclude each other", keep)]
    allowed = item.expected.ages if said else usual
    wrong = clash(words, allowed) if allowed is not None else []
    if not wrong:
        return []
    if said:
        return [(Problem.WRONG_AGE, f"{wrong[0].text!r}, not {said!r}", f"write {said!r}")]
    assert allowed is not None
    most = " or ".join(sorted(allowed))
    return [(Problem.WRONG_AGE, f"{wrong[0].text!r}, where most captions say {most}", "say which with --age")]


def _absent(item: _Subject, usual: Ages | None) -> Said:
    trigger = item.expected.trigger
    if not _nobody(item):
        return []
    named = trigger if trigger is not None and trigger.lower() in item.caption.lower() else None
    someone = named or next((part for part in segments(item.caption) if names_somebody(part)), None)
    if someone is None:
        return []
    return [(Problem.ABSENT, f"names {someone!r}, and nobody is found", "take the character out of the caption")]


def _denied(item: _Subject, usual: Ages | None) -> Said:
    part = says_nobody(item.caption)
    if part is None or item.row is None or not item.row.instances:
        return []
    evidence = f"{part!r}, and {len(item.row.instances)} found, {item.row.instances[0].confidence:.0%} sure"
    return [(Problem.UNSAID, evidence, f"take {part!r} out")]


def _company(item: _Subject, usual: Ages | None) -> Said:
    if item.row is None or item.row.error is not None:
        return []
    says, seen = says_company(item.caption), len(item.row.instances)
    if says and seen <= 1 and Attribute.MULTI_CHARACTER not in item.row.attributes:
        what = "one character is found" if seen else "nobody is found"
        return [(Problem.COMPANY_ABSENT, f"names company, and {what}", "take the company out of the caption")]
    if not says and Attribute.MULTI_CHARACTER in item.row.attributes:
        return [(Problem.COMPANY_UNSAID, f"{seen} characters are found, one is named", "add 'with another character'")]
    return []


def _shots(item: _Subject, usual: Ages | None) -> Said:
    said = said_shots(item.caption)
    row = item.row
    seen = ShotType.UNCLASSIFIED if row is None or row.error is not None else row.shot_type
    for other in said[1:]:
        if not other.shots & said[0].shots:
            keep = LABELS[seen.value] if seen is not ShotType.UNCLASSIFIED else said[0].text
            return [(Problem.SHOTS, f"{said[0].text!r} and {other.text!r} exclude each other", f"keep {keep!r}")]
    if row is None or seen is ShotType.UNCLASSIFIED:
        return []
    wrong = [each for each in said if seen not in each.shots]
    if not wrong:
        return []
    evidence = f"{wrong[0].text!r}, but it is {LABELS[seen.value]}: {row.reason}"
    return [(Problem.WRONG_SHOT, evidence, f"write {LABELS[seen.value]!r}")]


def _background(item: _Subject, usual: Ages | None) -> Said:
    said = background_said(item.caption)
    # Without a character nothing says which part of the picture is background.
    if said is None or item.row is None or item.row.main is None:
        return []
    busy = Attribute.COMPLEX_BACKGROUND in item.row.attributes
    if busy == said[1]:
        return []
    return [
        (Problem.WRONG_BACKGROUND, f"{said[0]!r}, but it is {'busy' if busy else 'plain'}",
         f"write '{'detailed' if busy else 'plain'} background'")
    ]  # fmt: skip


def _repeated(item: _Subject, usual: Ages | None) -> Said:
    return [(Problem.REPEATED, f"{tag!r} stands twice", "keep the first") for tag in repeated(item.caption)]


_CHECKS: tuple[Callable[[_Subject, Ages | None], Said], ...] = (
    _empty, _trigger, _named_subject, _ages, _absent, _denied, _company, _shots, _background, _repeated,
)  # fmt: skip


def _nobody(item: _Subject) -> bool:
    return shows_nobody(item.caption, item.row, item.expected)
