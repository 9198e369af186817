"""Which of the pictures that could be made are made, and how often each is shown: chosen, looked at, chosen again."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onmodel.core.errors import ImageError
from onmodel.core.vocabulary import Attribute
from onmodel.dataset.candidates import Planned, seen_as
from onmodel.dataset.facts import Outcome
from onmodel.dataset.making import Maker
from onmodel.dataset.mix import Mix, Pool, choose_mix
from onmodel.dataset.recommended import LABELS, Recommended
from onmodel.detection.convert import Detected

ROUNDS = 5
"""Times that what the detector contradicts is replaced by something else."""
CHECKED_AT_ONCE = 32
Verify = Callable[[Sequence[bytes]], Sequence[Outcome]]
"""Encoded pictures to what a detector sees in them, in order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an epoch should be."""

    recommended: Recommended
    size: int
    max_repeats: int
    max_synthetic: float
    """Share, 0 to 1."""


class Sure:
    """The items, and which of them a detector has confirmed."""

    def __init__(
        self, items: list[Planned], maker: Maker, verify: Verify | None, knows: bool, refused: Counter[str]
    ) -> None:
        self.items = items
        self.outcomes: dict[int, Outcome] = {}
        self._maker = maker
        self._verify = verify
        self._knows = knows
        self._refused = refused
        self.gone: set[int] = set()
        """Contradicted, or not to be made."""

    def is_sure(self, number: int) -> bool:
        return self._verify is None or self.items[number].operation == "copy" or number in self.outcomes

    def check(self, numbers: Sequence[int]) -> None:
        """Make and look at items; those that are confirmed get the categories that were seen."""
        assert self._verify is not None
        for start in range(0, len(numbers), CHECKED_AT_ONCE):
            part: list[int] = []
            data: list[bytes] = []
            for number in numbers[start : start + CHECKED_AT_ONCE]:
                try:
                    data.append(self._maker.pixels(number, self.items[number])[0])
                    part.append(number)
                except ImageError:
                    self._leave_out(number, "the original cannot be read")
            for number, outcome in zip(part, self._verify(data) if data else (), strict=True):
                self.outcomes[number] = outcome
                seen = confirmed(self.items[number], outcome, self._knows)
                if isinstance(seen, str):
                    self._leave_out(number, f"made and left out: {seen}")
                else:
                    self.items[number] = seen

    def _leave_out(self, number: int, why: str) -> None:
        self.gone.add(number)
        self._refused[why] += 1

    def leave_out_unsure(self) -> None:
        """What was never looked at is not made any more."""
        self.gone |= {number for number in range(len(self.items)) if not self.is_sure(number)}


def confirmed(item: Planned, outcome: Outcome, knows_things_in_front: bool) -> Planned | str:
    """A made picture with the categories that a detector sees, or a clause saying what it contradicts."""
    if not isinstance(outcome, Detected):
        return "the detector cannot read it"
    decision = outcome.decision
    if decision.shot_type is not item.shot:
        return f"meant as {LABELS[item.shot.value]}, seen as {LABELS[decision.shot_type.value]}"
    seen = {attribute.value for attribute in decision.attributes}
    recipe = item.recipe
    if recipe is not None and recipe.companion is not None and Attribute.MULTI_CHARACTER not in seen:
        return "the other character is not seen as one"
    if Attribute.OCCLUSION in item.attributes:
        if not knows_things_in_front:
            seen.add(Attribute.OCCLUSION.value)
        elif recipe is not None and recipe.foreground is not None and Attribute.OCCLUSION not in seen:
            return "the thing in front is not seen as one"
    return seen_as(item, item.shot, frozenset(seen))


def settle(sure: Sure, wanted: Wanted) -> dict[int, int]:
    """Item -> repeats. What is contradicted makes room for something else, until all that is chosen is confirmed."""
    chosen: dict[int, int] = {}
    for turn in range(ROUNDS + 1):
        chosen = _choose(sure, wanted)
        unsure = [number for number in chosen if not sure.is_sure(number)]
        if not unsure:
            break
        sure.check(unsure)
        if turn == ROUNDS - 1:
            sure.leave_out_unsure()
    return chosen


def _choose(sure: Sure, wanted: Wanted) -> dict[int, int]:
    pools: dict[Pool, list[int]] = {}
    members: dict[tuple[frozenset[str], bool, bool], list[int]] = {}
    for number, item in enumerate(sure.items):
        if number not in sure.gone:
            members.setdefault((item.group, item.operation == "copy", item.synthetic), []).append(number)
    for (group, given, synthetic), numbers in members.items():
        pools[Pool(group, len(numbers), given, synthetic)] = numbers
    mix = choose_mix(
        list(pools), wanted.recommended, wanted.size, max_repeats=wanted.max_repeats, max_synthetic=wanted.max_synthetic
    )
    return _pick(sure, list(pools.values()), mix)


def _pick(sure: Sure, pools: Sequence[Sequence[int]], mix: Mix) -> dict[int, int]:
    """Which pictures of each pool: confirmed ones first, then those whose parts were used least."""
    used: Counter[str] = Counter()
    chosen: dict[int, int] = {}

    def order(number: int) -> tuple[bool, int, int, int]:
        item = sure.items[number]
        return (not sure.is_sure(number), sum(used[each] for each in item.ingredients), item.variant, number)

    for index, numbers in enumerate(pools):
        repeats = mix.repeats(index)
        left = list(numbers)
        for count in repeats:
            best = min(left, key=order)
            left.remove(best)
            used.update(sure.items[best].ingredients)
            chosen[best] = count
    return dict(sorted(chosen.items()))
