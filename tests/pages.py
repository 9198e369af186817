"""Blocks of code that a page of Markdown shows."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_BLOCK = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """One block of code."""

    kind: str
    title: str
    """Name of the file that it is; empty where none is said."""
    text: str


def blocks(page: str, *kinds: str) -> Iterator[Block]:
    """The blocks in a page's text, in order; of these kinds, where some are given."""
    found = (Block(*parts) for parts in _BLOCK.findall(page))
    return (block for block in found if not kinds or block.kind in kinds)


def commands(block: Block) -> Sequence[str]:
    """Lines of a block of shell, continued ones joined."""
    return [line.strip() for line in block.text.replace("\\\n", " ").splitlines()]
