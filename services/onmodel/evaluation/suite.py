"""Test suites: what a character model is asked to draw, by scenario, in JSON.

    {"name": "character", "trigger": "zibo", "class": "boy", "age": "teenage boy", "companions": ["an old man"],
     "negative_prompt": "blurry", "seeds": [1, 2, 3, 4], "steps": 25, "guidance_scale": 7.0,
     "scenarios": {"close_up": ["close-up portrait of {trigger}, a {age}", …], …}}

Slots are written `{trigger}`, `{class}`, `{age}`, `{companion}`; further ones come from the table `slots`.
"""

import difflib
import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.config import Config, load
from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES

PACKAGED = Path(__file__).parent / "suites"
"""Suites that come with the package, named without their suffix: `character`, `toybox`."""

Prompts = tuple[str, ...]
Sampler = Literal["ddim", "dpm", "euler", "default"]


class Scenarios(Config):
    """Prompts of each scenario; one left out is not tested."""

    close_up: Prompts = ()
    medium: Prompts = ()
    full_body: Prompts = ()
    far: Prompts = ()
    multi_character: Prompts = ()
    complex_background: Prompts = ()
    occlusion: Prompts = ()

    @field_validator("*")
    @classmethod
    def _not_blank(cls, prompts: Prompts) -> Prompts:
        for number, prompt in enumerate(prompts, 1):
            if not prompt.strip():
                raise ValueError(f"prompt {number} is empty; write it or remove it")
        if len(set(prompts)) != len(prompts):
            raise ValueError("the same prompt stands here twice; remove one")
        return prompts


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a suite with its slots filled."""

    index: int
    """Position in the whole suite, from 0; `pPPP` of file names."""
    scenario: str
    template: str
    text: str
    """What the model is given."""
    plain: str
    """`text` without the trigger word, which no scorer knows."""


class TestSuite(Config):
    """A test suite as its file holds it."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    name: str = "suite"
    trigger: str | None = None
    """The trigger word; None takes the one that the checkpoint was trained with."""
    class_word: str = Field(default="character", alias="class")
    age: str | None = None
    """Class with its age, as in "teenage boy"; None repeats the class."""
    companions: Prompts = ("another person",)
    """Values of `{companion}`, taken in turn."""
    slots: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    negative_prompt: str = ""
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    """One variation of every prompt for each."""
    steps: int = Field(default=25, ge=1, le=1000)
    guidance_scale: float = Field(default=7.0, ge=0)
    width: int | None = Field(default=None, ge=8, le=4096)
    height: int | None = Field(default=None, ge=8, le=4096)
    sampler: Sampler = "ddim"
    scenarios: Scenarios

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(seeds) < 2 or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("needs at least two different seeds, none negative: consistency compares variations")
        return seeds

    @field_validator("width", "height")
    @classmethod
    def _side(cls, side: int | None) -> int | None:
        if side is not None and side % 8:
            raise ValueError("must be a multiple of 8")
        return side

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.companions:
            raise ValueError("`companions` is empty; name at least one or leave the key out")
        known = {*self._values("", 0), *self.slots}
        for scenario in CATEGORIES:
            for prompt in getattr(self.scenarios, scenario):
                for slot in _slots_of(prompt):
                    if slot not in known:
                        near = difflib.get_close_matches(slot, sorted(known), n=1, cutoff=0.5)
                        hint = f"did you mean {{{near[0]}}}?" if near else f"known slots: {', '.join(sorted(known))}"
                        raise ValueError(f"`scenarios.{scenario}`: unknown slot {{{slot}}} in {prompt!r}; {hint}")
        if not self.tested:
            raise ValueError("`scenarios` holds no prompt; add some")
        return self

    @property
    def tested(self) -> tuple[str, ...]:
        """The scenarios that have prompts, in the table's order."""
        return tuple(name for name in CATEGORIES if getattr(self.scenarios, name))

    def _values(self, trigger: str, index: int) -> dict[str, str]:
        extra = {
            name: value if isinstance(value, str) else value[index % len(value)] for name, value in self.slots.items()
        }
        return {
            "trigger": trigger,
            "class": self.class_word,
            "age": self.age or self.class_word,
            "companion": self.companions[index % len(self.companions)],
            **extra,
        }

    def prompts(self, trigger: str | None = None) -> tuple[Prompt, ...]:
        """Every prompt with its slots filled, scenario by scenario; `trigger` where the suite names none.

        Raises:
            UserError: a prompt has `{trigger}` and neither the suite nor the caller names one.
        """
        word = self.trigger or trigger
        filled: list[Prompt] = []
        for scenario in self.tested:
            for position, template in enumerate(getattr(self.scenarios, scenario)):
                if word is None and "trigger" in _slots_of(template):
                    raise UserError(f"suite {self.name}: no trigger word; add `trigger` to the suite or pass --trigger")
                text = tidy(template.format(**self._values(word or "", position)))
                plain = tidy(template.format(**self._values("", position)))
                filled.append(Prompt(len(filled), scenario, template, text, plain))
        return tuple(filled)

    def noise_seed(self, prompt: Prompt, variation: int) -> int:
        """Seed of the starting noise of one picture, 0 to 2^31-1, from the prompt's template and the variation's seed.

        It depends on nothing else, so every model starts the same picture from the same noise; and two prompts never
        share noise, so that what one prompt shows is evidence of its own.
        """
        digest = hashlib.sha256(f"{prompt.template}\0{self.seeds[variation]}".encode()).digest()
        return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF

    def with_slots(self, changes: Mapping[str, str | None]) -> Self:
        """A copy with `trigger`, `class` or `age` replaced where the value is not None."""
        given = {key: value for key, value in changes.items() if value is not None}
        return self.model_validate({**self.model_dump(by_alias=True), **given})

    def resized(self, prompts: int, variations: int, steps: int) -> Self:
        """A copy with at most `prompts` prompts a scenario, the first ones, seeds 1 to `variations`, and `steps`."""
        value = self.model_dump(by_alias=True)
        value["scenarios"] = {name: templates[:prompts] for name, templates in value["scenarios"].items()}
        return self.model_validate({**value, "seeds": tuple(range(1, variations + 1)), "steps": steps})


def tidy(text: str) -> str:
    """One space between words, and none left where an empty slot stood ("of , a boy" becomes "of a boy")."""
    text = " ".join(text.split()).replace(" ,", ",").replace(",,", ",")
    for word in ("of", "with", "a", "and"):
        text = text.replace(f" {word}, ", f" {word} ")
    return text.strip(" ,")


def _slots_of(template: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(
            f"prompt {template!r}: {error}; write slots as {{trigger}} and literal braces doubled"
        ) from None


def load_suite(name_or_path: str | Path) -> TestSuite:
    """Read a suite from a file, or a packaged one by name. Raises UserError naming the nearest known key."""
    packaged = PACKAGED / f"{name_or_path}.json"
    path = Path(name_or_path)
    return load(TestSuite, packaged if packaged.is_file() and not path.exists() else path)
