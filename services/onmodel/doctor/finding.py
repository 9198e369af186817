"""What one check found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer."""

    checked: str
    level: Level
    found: str
    advice: str = ""
    """What to do; empty when it is well."""


def ok(checked: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(checked, "ok", found)


def warning(checked: str, found: str, advice: str) -> Finding:
    """It works, but not well or not for everything."""
    return Finding(checked, "warning", found, advice)


def wrong(checked: str, found: str, advice: str) -> Finding:
    """Something cannot work."""
    return Finding(checked, "wrong", found, advice)
