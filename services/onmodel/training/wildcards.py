"""Alternatives in captions, written `{a|b|c}`."""

import re
from collections.abc import Callable

_CHOICE = re.compile(r"\{([^{}]+)\}")
_OPENED, _CLOSED = "\ufdd0", "\ufdd1"
"""Stand for braces that are text: code points that Unicode keeps for a program's own use."""


def choose(line: str, drawn: Callable[[int], int]) -> str:
    """The line with one of the alternatives of each `{a|b|c}` in it; `{{` and `}}` are braces.

    As sd-scripts does it with `enable_wildcard` (`process_caption` of its `train_util.py`).

    Args:
        drawn: of how many alternatives, which one is taken, from 0.
    """

    def taken(found: re.Match[str]) -> str:
        alternatives = found[1].split("|")
        return alternatives[drawn(len(alternatives))]

    kept = line.replace("{{", _OPENED).replace("}}", _CLOSED)
    return _CHOICE.sub(taken, kept).replace(_OPENED, "{").replace(_CLOSED, "}")
