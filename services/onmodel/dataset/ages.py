"""Ages in captions: which words say one, which of them exclude each other, and how to say another instead."""

import re
from dataclasses import dataclass
from enum import StrEnum

from onmodel.core.errors import UserError


class Age(StrEnum):
    """Stages of life that captions tell apart."""

    BABY = "baby"
    CHILD = "child"
    TEEN = "teen"
    YOUNG_ADULT = "young adult"
    ADULT = "adult"
    OLD = "old"


Ages = frozenset[Age]
_B, _C, _T, _Y, _A, _O = Age
_GROWN = frozenset({_Y, _A, _O})

# What a noun allows by itself, and what an adjective before it leaves. "boy" is a child or a teenager;
# "young boy" is a child, and "young man" a teenager at the least.
NOUNS: dict[str, Ages] = {
    "baby": frozenset({_B}), "infant": frozenset({_B}), "newborn": frozenset({_B}), "toddler": frozenset({_B, _C}),
    "kid": frozenset({_C}), "child": frozenset({_C}), "schoolboy": frozenset({_C, _T}),
    "schoolgirl": frozenset({_C, _T}), "boy": frozenset({_C, _T}), "girl": frozenset({_C, _T, _Y}),
    "teenager": frozenset({_T}), "teen": frozenset({_T}), "adolescent": frozenset({_T}), "youth": frozenset({_T, _Y}),
    "man": _GROWN, "woman": _GROWN, "lady": _GROWN, "gentleman": _GROWN, "guy": frozenset({_T}) | _GROWN,
    "adult": _GROWN, "grown-up": _GROWN, "grandfather": frozenset({_O}), "grandmother": frozenset({_O}),
    "grandpa": frozenset({_O}), "grandma": frozenset({_O}), "senior": frozenset({_O}), "elder": frozenset({_O}),
    "person": frozenset(Age), "character": frozenset(Age), "figure": frozenset(Age), "male": frozenset(Age),
    "female": frozenset(Age), "human": frozenset(Age), "student": frozenset({_C, _T, _Y}),
}  # fmt: skip
_ADJECTIVES: dict[str, Ages] = {
    "baby": frozenset({_B}), "little": frozenset({_B, _C}), "small": frozenset({_B, _C}),
    "young": frozenset({_B, _C, _T, _Y}), "teenage": frozenset({_T}), "teenaged": frozenset({_T}),
    "teen": frozenset({_T}), "adolescent": frozenset({_T}), "preteen": frozenset({_C, _T}), "adult": _GROWN,
    "grown": _GROWN, "mature": frozenset({_A, _O}), "middle-aged": frozenset({_A}), "elderly": frozenset({_O}),
    "old": frozenset({_O}), "aged": frozenset({_O}), "senior": frozenset({_O}),
}  # fmt: skip
# A word that says no age may stand between adjective and noun: "teenage red-haired boy".
_BETWEEN = r"(?:[a-z]+(?:-[a-z]+)? )??"
_WORD = re.compile(
    rf"\b(?:(?P<adjective>{'|'.join(sorted(_ADJECTIVES, key=len, reverse=True))}) {_BETWEEN})?"
    rf"1?(?P<noun>{'|'.join(sorted(NOUNS, key=len, reverse=True))})\b(?! (?:blue|pink))",
    re.IGNORECASE,
)
_YEARS = re.compile(r"\b(?P<years>\d{1,3})[- ]?(?:years?[- ]old|yo|y/o)\b", re.IGNORECASE)
_LONE = re.compile(r"^(?:an? )?(?P<adjective>" + "|".join(_ADJECTIVES) + r")$", re.IGNORECASE)
_DECADE = (12, 19, 30, 60)
"""First year beyond child, teenager, young adult and adult."""


@dataclass(frozen=True, slots=True)
class AgeWord:
    """A phrase of a caption that says an age."""

    text: str
    start: int
    """Its first character's place in the text it was found in."""
    ages: Ages
    noun: str | None = None
    """The noun in it, lower case: "boy" of "young boy"."""

    @property
    def tells(self) -> bool:
        """Whether it says anything: "a person" is of any age."""
        return self.ages != frozenset(Age)


def age_words(text: str) -> list[AgeWord]:
    """All phrases of `text` that say or allow an age, in order."""
    found = [_read(match) for match in _WORD.finditer(text)]
    for match in _YEARS.finditer(text):
        years = int(match["years"])
        stage = Age.BABY if years < 2 else list(Age)[1 + sum(years > last for last in _DECADE)]
        found.append(AgeWord(match[0], match.start(), frozenset({stage})))
    lone = _LONE.match(text.strip())
    if lone and not found:
        found.append(AgeWord(lone[0], 0, _ADJECTIVES[lone["adjective"].lower()]))
    return sorted((word for word in found if word.tells), key=lambda word: word.start)


def _read(match: re.Match[str]) -> AgeWord:
    noun, adjective = match["noun"].lower(), match["adjective"]
    ages = NOUNS[noun]
    if adjective is not None:
        said = _ADJECTIVES[adjective.lower()]
        # "young" and "little" narrow what the noun allows; where they can't, as in "old boy", they say it alone.
        ages = (ages & said) or said
        if adjective.lower() == "young" and noun in ("boy", "girl"):
            ages = frozenset({_C})
    return AgeWord(match[0], match.start(), ages, noun)


def parse_age(text: str) -> Ages:
    """The ages that a phrase such as "teenage boy", "elderly woman" or "12 years old" allows.

    Raises:
        UserError: nothing in it says an age.
    """
    words = age_words(text)
    allowed = frozenset(Age)
    for word in words:
        allowed &= word.ages
    if not words or not allowed:
        why = "contradicts itself" if words else "says no age"
        raise UserError(
            f"--age {text!r} {why}; write a phrase such as 'teenage boy', 'elderly woman' or '12 years old'"
        )
    return allowed


def clash(words: list[AgeWord], allowed: Ages) -> list[AgeWord]:
    """The words that no one of the `allowed` ages fits."""
    return [word for word in words if not word.ages & allowed]


def contradictions(words: list[AgeWord]) -> tuple[AgeWord, AgeWord] | None:
    """Two of the words that exclude each other, or None."""
    for index, first in enumerate(words):
        for second in words[index + 1 :]:
            if not first.ages & second.ages:
                return first, second
    return None


def replace_age(text: str, word: AgeWord, phrase: str) -> str:
    """`text` with `word` said as `phrase`, without an article before it that would no longer fit.

    A phrase without a noun, such as "12 years old", goes behind the word's noun.
    """
    before, after = text[: word.start], text[word.start + len(word.text) :]
    if not any(w.noun for w in age_words(phrase)):
        phrase = f"{word.noun or 'person'}, {phrase}" if word.noun else phrase
    article = re.search(r"\b(an?) $", before, re.IGNORECASE)
    if article:
        before = before[: article.start(1)] + with_article(phrase).split(" ", 1)[0] + " "
    return before + phrase + after


def with_article(phrase: str) -> str:
    """ "a teenage boy", "an old man"; a phrase that has an article, or is no noun ("12 years old"), stays."""
    if re.match(r"(?:an?|the) ", phrase, re.IGNORECASE) or re.match(r"\d", phrase):
        return phrase
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"
