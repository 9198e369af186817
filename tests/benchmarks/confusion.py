"""Shared by the accuracy benchmarks: counting right answers and printing them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onmodel.core.vocabulary import Attribute, ShotType


@dataclass(frozen=True, slots=True)
class Answer:
    """What is true of a picture and what was said."""

    true_shot: ShotType
    said_shot: ShotType
    true_attributes: frozenset[str]
    said_attributes: frozenset[str]


def shot_accuracy(answers: Sequence[Answer]) -> float:
    """Per cent of pictures with the right shot type."""
    return 100 * sum(a.true_shot is a.said_shot for a in answers) / len(answers)


def balanced_shot_accuracy(answers: Sequence[Answer]) -> float:
    """Mean over the shot types that occur of the per cent found: common types do not flatter it."""
    kinds = [[a for a in answers if a.true_shot is shot] for shot in ShotType]
    shares = [shot_accuracy(kind) for kind in kinds if kind]
    return sum(shares) / len(shares)


def attribute_accuracy(answers: Sequence[Answer], name: str) -> tuple[float, float]:
    """Per cent right, and balanced: the mean of the per cents right where it is true and where it is not."""
    right: dict[bool, list[bool]] = {True: [], False: []}
    for answer in answers:
        truth = name in answer.true_attributes
        right[truth].append((name in answer.said_attributes) == truth)
    both = [100 * sum(part) / len(part) for part in right.values() if part]
    return 100 * sum(map(sum, right.values())) / len(answers), sum(both) / len(both)


def print_confusion(answers: Iterable[Answer]) -> None:
    """Rows are the truth, columns what was said."""
    counts = Counter((a.true_shot, a.said_shot) for a in answers)
    print("\n" + " " * 14 + "".join(f"{shot.value:>14}" for shot in ShotType) + "   <- said")
    for true in ShotType:
        if any(counts[true, said] for said in ShotType):
            print(f"{true.value:<14}" + "".join(f"{counts[true, said] or '.':>14}" for said in ShotType))
    print()


def report(label: str, answers: Sequence[Answer], shot_target: float, attribute_target: float) -> None:
    """One line a figure: name | value | target | met or not met."""
    value = shot_accuracy(answers)
    met = "met" if value > shot_target else "not met"
    print(f"{label}: shot type accuracy ({len(answers)} pictures) | {value:.1f} % | > {shot_target:g} % | {met}")
    print(f"{label}: shot type balanced accuracy | {balanced_shot_accuracy(answers):.1f} % | - | -")
    for attribute in Attribute:
        plain, balanced = attribute_accuracy(answers, attribute.value)
        met = "met" if plain > attribute_target else "not met"
        true = sum(attribute.value in a.true_attributes for a in answers)
        name = f"{label}: {attribute.value} accuracy (true in {true})"
        print(f"{name} | {plain:.1f} % | > {attribute_target:g} % | {met}")
        print(f"{label}: {attribute.value} balanced accuracy | {balanced:.1f} % | - | -")
