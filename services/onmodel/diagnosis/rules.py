"""The rules of the diagnosis as data: `rules.toml` read and checked, and what a rule says of given facts."""

from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.config import Config, load
from onmodel.core.vocabulary import CATEGORIES
from onmodel.diagnosis.facts import Facts

PACKAGED = Path(__file__).parent / "rules.toml"
Kind = Literal["augment", "extract", "captions", "curate", "parameters"]
"""What mends a cause: `augment` and `extract` add pictures, `captions` rewrites them, `curate` needs a person,
`parameters` changes the training config."""


class Condition(Config):
    """One fact that must lie beyond a threshold."""

    fact: str
    below: float | str | None = None
    above: float | str | None = None
    """A number, or another fact's name."""
    full: float
    """Where the evidence is as strong as it can be."""
    sure: bool = True
    """The whole interval must lie beyond the threshold; false: the value alone."""
    unit: Literal["%", "share", "times", "number"]
    why: str
    """Where the threshold comes from."""
    evidence: str
    """With {value}, {low}, {high}, {count}, {at}, {threshold}."""

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.below is None) == (self.above is None):
            raise ValueError("give `below` or `above`, one of the two")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the facts that it looks at."""
        limit = self.above if self.below is None else self.below
        return (self.fact, limit) if isinstance(limit, str) else (self.fact,)

    def strength(self, facts: Facts) -> float | None:
        """How strong the evidence is, above 0 to 1; 0 where the condition does not hold; None where a fact is missing.

        Between the threshold and `full` it grows evenly with the fact's value.
        """
        if any(name not in facts for name in self.needs):
            return None
        fact, limit = facts[self.fact], self.threshold(facts)
        sign = 1.0 if self.below is None else -1.0
        bound = fact.value if not self.sure else (fact.low if sign > 0 else fact.high)
        if sign * (bound - limit) <= 0:
            return 0.0
        # A value on the far side of `full`, or a threshold beyond it, is as strong as can be.
        span = sign * (self.full - limit)
        return 1.0 if span <= 0 else min(1.0, max(1e-6, sign * (fact.value - limit) / span))

    def threshold(self, facts: Facts) -> float:
        """The number that the fact is held against."""
        limit = self.above if self.below is None else self.below
        assert limit is not None
        return facts[limit].value if isinstance(limit, str) else limit

    def say(self, facts: Facts) -> str:
        """The evidence as a sentence's part."""
        fact = facts[self.fact]
        texts = {name: _written(getattr(fact, name), self.unit) for name in ("value", "low", "high")}
        threshold = _written(self.threshold(facts), self.unit)
        return self.evidence.format(**texts, count=fact.count, at=fact.at, threshold=threshold)


def _written(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.0f} %"
    if unit == "share":
        return f"{100 * value:.0f} %"
    return f"{value:.3g} times" if unit == "times" else f"{value:g}"


class Change(Config):
    """One key of the next trial's training config."""

    key: str = Field(pattern=r"^\w+\.\w+$")
    set: float | int | str | None = None
    times: float | None = None
    """Multiplied with what stands there; nothing where nothing does."""
    least: float | None = None
    fact: str | None = None
    """Set to this fact's value, rounded."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.set, self.times, self.fact)) != 1:
            raise ValueError("give one of `set`, `times`, `fact`")
        return self


class Rule(Config):
    """One cause of failure."""

    id: str = Field(pattern=r"^[a-z_]+$")
    cause: str
    scenarios: tuple[str, ...]
    """Which ones it explains."""
    kind: Kind
    wants: tuple[str, ...] = ()
    """Categories of which the set should have more."""
    material: Literal["backgrounds", "companions", "foregrounds"] | None = None
    """What composites are made of that mend it; None: crops do."""
    fix: str
    commands: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    when: tuple[Condition, ...] = Field(min_length=1)
    """All must hold."""
    any: tuple[Condition, ...] = ()
    """Where some are given, one of them must hold too; the strongest counts."""
    also: tuple[Condition, ...] = ()
    """Further evidence, named where it holds; nothing hangs on it."""
    gain: str | None = None
    """Fact that says what mending it adds to the average, where that was tried: better than any guess from the gaps."""

    @field_validator("scenarios", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return CATEGORIES if value == "all" else value

    @model_validator(mode="after")
    def _known_scenarios(self) -> Self:
        unknown = set(self.scenarios) - set(CATEGORIES)
        if unknown:
            raise ValueError(f'`scenarios`: {", ".join(sorted(unknown))} unknown; "all", or of {", ".join(CATEGORIES)}')
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Every fact that it cannot do without."""
        looked_at = [name for condition in self.when for name in condition.needs]
        named = [self.gain, *(c.fact for c in self.changes)]
        return tuple(dict.fromkeys([*looked_at, *(name for name in named if name is not None)]))

    def strength(self, facts: Facts) -> float | None:
        """Of the weakest of its conditions: 0 where one does not hold, None where that hangs on a missing fact."""
        found = [condition.strength(facts) for condition in self.when]
        if self.any:
            either = [condition.strength(facts) for condition in self.any]
            found.append(max((s for s in either if s), default=None if None in either else 0.0))
        if 0.0 in found:
            return 0.0
        lacking = any(name not in facts for name in self.needs)
        return None if lacking or None in found else min(s for s in found if s is not None)

    def missing(self, facts: Facts) -> tuple[str, ...]:
        """Facts that it would need to be judged and that are not there."""
        either = [name for condition in self.any for name in condition.needs]
        return tuple(name for name in dict.fromkeys([*self.needs, *either]) if name not in facts)


class RuleTable(Config):
    """`rules.toml`."""

    rule: tuple[Rule, ...]
    measure: dict[str, str]
    """Beginning of a fact's name -> the command that measures it."""

    @model_validator(mode="after")
    def _different(self) -> Self:
        names = [rule.id for rule in self.rule]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"`rule`: {', '.join(twice)} stands there twice")
        for rule in self.rule:
            for name in rule.missing({}):
                if not any(name.startswith(start) for start in self.measure):
                    raise ValueError(f"`measure` has no command for the fact {name}")
        return self

    def command_for(self, fact: str) -> str:
        """The command that measures a missing fact, its slots not filled."""
        return next(command for start, command in self.measure.items() if fact.startswith(start))


@cache
def rule_table(path: Path = PACKAGED) -> RuleTable:
    """The packaged rules, or a file's. Raises UserError naming the wrong key."""
    return load(RuleTable, path)
