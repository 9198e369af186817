"""Captions put right: what contradicts the picture or itself is said otherwise, all other words stay."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.ages import (
    Age,
    Ages,
    AgeWord,
    age_words,
    clash,
    contradictions,
    parse_age,
    replace_age,
    with_article,
)
from onmodel.dataset.analysis import Row
from onmodel.dataset.captions import (
    CONTEXT,
    HIDDEN,
    PLACE,
    is_subject,
    said_shots,
    says_company,
    says_detail,
    says_nobody,
    segments,
    unique,
    with_background,
    with_context,
    with_shot,
    without_company,
    without_shots,
)

_MEDIUM = re.compile(
    r"^(?:an? |the )?(?:\w+ )?(?:photo|picture|image|render|rendering|drawing|painting|screenshot|still|frame) of$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What captions of a dataset should say of its character."""

    trigger: str | None = None
    class_word: str | None = None
    age: str | None = None
    """A phrase such as "teenage boy"."""

    @property
    def ages(self) -> Ages:
        """Ages that fit. Raises UserError where `age` says none."""
        return frozenset(Age) if self.age is None else parse_age(self.age)

    @property
    def subject(self) -> str | None:
        """Who is shown, in words: "a teenage boy"; None where neither class word nor age is known."""
        nouns = self.age is not None and any(word.noun for word in age_words(self.age))
        if self.age is not None and (nouns or self.class_word is None):
            # "teenage" alone is no noun.
            return with_article(self.age if nouns or self.age[:1].isdigit() else f"{self.age} character")
        if self.class_word is None:
            return None
        if self.age is None or self.age[:1].isdigit():
            return with_article(self.class_word)
        return with_article(f"{self.age} {self.class_word}")


def own_part(caption: str) -> str:
    """What a caption says of the character itself: company, and words about it, left out."""
    return without_company(caption)


def names_somebody(part: str) -> bool:
    """Whether a part speaks of a character: "a grey rabbit", "young boy in a hat"."""
    return is_subject(part) or bool(age_words(own_part(part)))


def shows_nobody(caption: str, row: Row | None, expected: Expected) -> bool:
    """Whether a picture is known to show nobody; where it was not looked at, whether the caption says so throughout."""
    if row is not None and row.error is None:
        return not row.instances
    trigger = (expected.trigger or "").lower()
    named = any(is_subject(part) or (trigger and trigger in part.lower()) for part in segments(caption))
    return says_nobody(caption) is not None and not named


def mend(caption: str, row: Row | None, expected: Expected) -> str:
    """A caption without what `audit` finds wrong with it, its other words as they were.

    A wrong age without `expected.age` stays: nobody says which is right. Auditing the result finds nothing else, and
    mending it again changes nothing.
    """
    # What one fix leaves may be wrong in another way: "portrait of zibo with a friend" holds three tags.
    for _ in range(4):
        before, caption = caption, _mended(caption, row, expected)
        if caption == before:
            break
    return caption


def _mended(caption: str, row: Row | None, expected: Expected) -> str:
    caption = unique(caption)
    seen = row is not None and row.error is None
    nobody = shows_nobody(caption, row, expected)
    denied = says_nobody(caption)
    if denied is not None and row is not None and row.instances:
        caption = ", ".join(part for part in segments(caption) if part != denied)
    empty = not segments(caption)
    if not nobody:
        caption = _mended_ages(caption, expected)
    if row is not None and seen:
        caption = _matched(caption, row)
    if nobody:
        caption = _without_character(caption, expected)
    else:
        detail = (row is not None and row.shot_type is ShotType.UNCLASSIFIED) or says_detail(caption)
        caption = named(caption, expected, subject=not detail)
    said = said_shots(caption)
    if any(not other.shots & said[0].shots for other in said[1:]):
        caption = _first_shot(caption, said[0].text)
    if empty and row is not None and seen and row.instances:
        caption = with_context(with_shot(caption, row.shot_type), row.attributes)
    return unique(caption)


def _matched(caption: str, row: Row) -> str:
    """A caption that says the shot type, company and background that were seen, where it says any."""
    said = said_shots(caption)
    if row.shot_type is not ShotType.UNCLASSIFIED and any(row.shot_type not in each.shots for each in said):
        caption = with_shot(caption, row.shot_type)
    if says_company(caption) and len(row.instances) <= 1 and Attribute.MULTI_CHARACTER not in row.attributes:
        caption = without_company(caption)
    if not says_company(caption) and Attribute.MULTI_CHARACTER in row.attributes:
        parts = segments(caption)
        at = next((n for n, part in enumerate(parts) if n and PLACE.search(part)), len(parts))
        caption = ", ".join([*parts[:at], CONTEXT[Attribute.MULTI_CHARACTER.value][0], *parts[at:]])
    if row.main is not None:
        caption = with_background(caption, Attribute.COMPLEX_BACKGROUND in row.attributes)
    return caption


def _mended_ages(caption: str, expected: Expected) -> str:
    """A caption whose age words fit the expected age, or else the first one said."""
    own = own_part(caption)
    words = age_words(own)
    allowed, phrase = expected.ages, expected.age
    if phrase is None:
        pair = contradictions(words)
        if pair is None:
            return caption
        allowed, phrase = pair[0].ages, pair[0].text
    for word in clash(words, allowed):
        caption = _replaced(caption, word, phrase)
    return unique(caption)


def _replaced(caption: str, word: AgeWord, phrase: str) -> str:
    """A caption with one age word said otherwise; a tag that would only repeat the phrase goes."""
    parts = segments(caption)
    for number, part in enumerate(parts):
        # The same words in a part about company are about somebody else.
        inner = next((w for w in age_words(own_part(part)) if w.text == word.text), None)
        if inner is None or word.text not in part:
            continue
        start = part.index(word.text)
        changed = replace_age(part, AgeWord(word.text, start, word.ages, word.noun), phrase)
        said_already = any(phrase.lower() in other.lower() for n, other in enumerate(parts) if n != number)
        whole = part.lower().removeprefix("a ").removeprefix("an ") == word.text.lower()
        parts[number] = "" if whole and said_already else changed
        break
    return ", ".join(part for part in parts if part)


def named(caption: str, expected: Expected, *, subject: bool = True) -> str:
    """A caption that starts with the trigger as a tag of its own, the subject behind it unless it is a detail's."""
    trigger, who = expected.trigger, expected.subject
    parts = segments(caption)
    if trigger is not None:
        if not parts or parts[0].lower() != trigger.lower():
            parts = [trigger, *_untriggered(parts, trigger, who)]
        else:
            parts = [trigger, *_untriggered(parts[1:], trigger, who)]
    if subject and who is not None:
        at = 0 if trigger is None else 1
        here = [n for n, part in enumerate(parts) if n >= at and is_subject(part)]
        if here:
            moved = parts.pop(here[0])
            fits = not clash(age_words(moved), expected.ages) and (
                expected.class_word is None or expected.class_word.lower() in moved.lower()
            )
            who = moved if fits else who
        parts.insert(at, who)
    return ", ".join(parts)


def _untriggered(parts: Sequence[str], trigger: str, subject: str | None) -> list[str]:
    """Parts without the trigger: "zibo running" is "running", "photo of zibo" names the subject instead."""
    left: list[str] = []
    for part in parts:
        lower = part.lower()
        if trigger.lower() not in lower.split():
            left.append(part)
            continue
        start = lower.split().index(trigger.lower())
        words = part.split()
        if start == 0 or _MEDIUM.match(" ".join(words[:start])):
            rest = " ".join(words[start + 1 :])
        else:
            rest = " ".join([*words[:start], subject or "the character", *words[start + 1 :]])
        if rest:
            left.append(rest)
    return left


def _without_character(caption: str, expected: Expected) -> str:
    """A caption of a picture without anyone: trigger, subject, shot type and company go; an empty rest says so."""
    trigger = (expected.trigger or "").lower()
    parts = [
        part
        for part in segments(without_company(without_shots(caption)))
        if not names_somebody(part) and (not trigger or trigger not in part.lower()) and not HIDDEN.search(part)
    ]
    return ", ".join(parts) or "no people"


def _first_shot(caption: str, phrase: str) -> str:
    """A caption with the first of several shot types alone, in its place."""
    parts: list[str] = []
    kept = False
    for part in segments(caption):
        said = said_shots(part)
        if said and not kept and said[0].text == phrase:
            kept = True
            parts.append(part if len(said) == 1 else f"{without_shots(part)}, {phrase}".removeprefix(", "))
        else:
            left = without_shots(part) if said else part
            parts.append(left)
    return ", ".join(part for part in parts if part)
