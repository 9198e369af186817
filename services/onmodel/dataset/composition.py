"""Compositions: how many pictures of each category a merged set should hold, in JSON.

    {"close_up": 140, "medium": 100, "full_body": 100, "far": 30, "multi_character": 60,
     "occlusion": {"min": 30, "max": 44}}

Shot types exclude each other and share out the total; attributes overlap them and are counted on the same pictures.
A number is what is wanted. Of a shot type no more than that is taken. Of an attribute more is taken only where the
shot types could not be filled otherwise. A range `{"min": 30, "max": 44}` is met by anything within it and its `max`
is never exceeded; `{"min": 30}` allows any more. A shot type that is not named is not taken, an attribute that is not
named may come in any number.

`total` is the sum of the shot types unless it is written, so the default composition makes 370 pictures: the rest of
"about 400" would be pictures of no known shot type, which teach no framing. They are taken only where `unclassified`
asks for them. Counts scale to another size with `Composition.scaled` (`--total 400` makes 151/108/108/33/65).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from onmodel.core.config import Config, load
from onmodel.core.errors import NotFoundError
from onmodel.core.vocabulary import CATEGORIES, Attribute, ShotType

PACKAGED = Path(__file__).parent / "compositions"
"""Compositions that come with the package, named without their suffix: `default`, `balanced`."""
SHOTS: tuple[str, ...] = tuple(shot.value for shot in ShotType)
"""The exclusive ones, unclassified last."""
ATTRIBUTES: tuple[str, ...] = tuple(attribute.value for attribute in Attribute)
NAMES: tuple[str, ...] = (*CATEGORIES, ShotType.UNCLASSIFIED.value)
"""Every name that may stand in a composition, in the table's order."""


class Span(Config):
    """From `min` to `max` pictures, both included."""

    min: int = Field(default=0, ge=0)
    max: int | None = Field(default=None, ge=0)
    """None allows any number."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}; swap or correct them")
        return self


class Bare(Span):
    """A number that was written bare: as much as that is wanted, and of an attribute more is only avoided."""


def _wanted(value: Any) -> Any:
    """Numbers are judged here: pydantic's own answer for a union names every branch of it."""
    if isinstance(value, dict | Span):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    problem = "is negative; give 0 or more pictures" if whole else 'must be a whole number or {"min": …, "max": …}'
    if not whole or value < 0:
        raise ValueError(problem)
    return Bare(min=value, max=value)


Count = Annotated[Span, BeforeValidator(_wanted)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the programme keeps to for one category, in pictures."""

    minimum: int
    """Fewer is a shortfall."""
    maximum: int
    """More is never taken."""
    preferred: int
    """More is taken only where a shortfall would grow otherwise; at most `maximum`."""


_NONE = Bare(min=0, max=0)


class Composition(Config):
    """How many pictures of each category are wanted."""

    total: int | None = Field(default=None, ge=1)
    """Pictures of the whole set; None is the sum of the shot types."""
    close_up: Count = _NONE
    medium: Count = _NONE
    full_body: Count = _NONE
    far: Count = _NONE
    unclassified: Count = _NONE
    """Pictures of no known shot type."""
    multi_character: Count | None = None
    occlusion: Count | None = None
    complex_background: Count | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        most = self._most()
        if self.total is None and most is None:
            open_ended = next(name for name in SHOTS if self.span(name).max is None)
            raise ValueError(f"`{open_ended}` has no `max`, so `total` must say how many pictures there are; add it")
        if self.total is None and not most:
            raise ValueError("asks for no pictures of any shot type; give at least one a number")
        least = sum(self.span(name).min for name in SHOTS)
        if least > self.size:
            raise ValueError(f"the shot types ask for at least {least} pictures, but `total` is {self.size}; raise it")
        if most is not None and most < self.size:
            raise ValueError(
                f"the shot types allow at most {most} pictures, but `total` is {self.size}; lower it, or let "
                f'`unclassified` fill up: {{"max": {self.size - most}}}'
            )
        for name in ATTRIBUTES:
            if self.span(name).min > self.size:
                raise ValueError(f"`{name}`: {self.span(name).min} pictures of a total of {self.size} cannot have it")
        return self

    def span(self, name: str) -> Span:
        """What was asked of one of `NAMES`; an attribute that was not named may come in any number."""
        found: Span | None = getattr(self, name)
        return Span() if found is None else found

    def _most(self) -> int | None:
        ends = [self.span(name).max for name in SHOTS]
        known = [end for end in ends if end is not None]
        return sum(known) if len(known) == len(ends) else None

    @property
    def size(self) -> int:
        """Pictures of the whole set."""
        return self.total if self.total is not None else self._most() or 0

    def limits(self, name: str) -> Limits:
        """The bounds of one of `NAMES`, none above the set's size."""
        span = self.span(name)
        most = self.size if span.max is None else min(span.max, self.size)
        soft = name in ATTRIBUTES and isinstance(span, Bare)
        return Limits(span.min, self.size if soft else most, most)

    def scaled(self, total: int) -> "Composition":
        """The same mix for a set of `total` pictures, in whole pictures; shot types sum as before.

        Upper ends of shot types are shared out by largest remainders, so that numbers still sum to the total.
        """
        factor = total / self.size
        ends = {name: self.span(name).max for name in SHOTS}
        upper = _share_out({name: end * factor for name, end in ends.items() if end is not None})
        changed: dict[str, Any] = {"total": total}
        for name in NAMES:
            span = getattr(self, name)
            if span is None:
                continue
            end = upper.get(name, None if span.max is None else round(span.max * factor))
            if isinstance(span, Bare):
                changed[name] = end
            else:
                least = int(span.min * factor)
                changed[name] = {"min": least if end is None else min(least, end), "max": end}
        return Composition.model_validate(changed)

    def written(self) -> dict[str, Any]:
        """The composition as its file holds it, with the total."""
        rows: dict[str, Any] = {"total": self.size}
        for name in NAMES:
            span = getattr(self, name)
            if isinstance(span, Bare):
                rows[name] = span.min
            elif span is not None:
                rows[name] = {key: value for key, value in (("min", span.min), ("max", span.max)) if value is not None}
        return rows


def _share_out(wanted: dict[str, float]) -> dict[str, int]:
    """Whole numbers near `wanted` that keep its sum: the largest remainders are rounded up."""
    whole = {name: int(value + 1e-9) for name, value in wanted.items()}
    spare = round(sum(wanted.values())) - sum(whole.values())
    for name in sorted(wanted, key=lambda name: whole[name] - wanted[name])[: max(spare, 0)]:
        whole[name] += 1
    return whole


def load_composition(name_or_path: str | Path) -> Composition:
    """Read a composition from a file, or a packaged one by name. Raises UserError naming a wrong key."""
    packaged, path = PACKAGED / f"{name_or_path}.json", Path(name_or_path)
    if path.is_file() or path.suffix == ".json":
        return load(Composition, path)
    if not packaged.is_file():
        known = ", ".join(sorted(file.stem for file in PACKAGED.glob("*.json")))
        raise NotFoundError(f"{name_or_path}: no such composition; give a JSON file or one of {known}")
    return load(Composition, packaged)
