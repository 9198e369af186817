"""Docstrings, help lines and comments as Markdown."""

import re

CODE = re.compile(r"(``?[^`]+``?)")
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):$")


def inline(text: str) -> str:
    """One paragraph of plain text as Markdown: what stands in backquotes stays code, signs that mean markup do not."""
    parts = CODE.split(" ".join(text.split()))
    for number, part in enumerate(parts):
        if number % 2 == 0:
            parts[number] = re.sub(r"([\\*_<>\[\]#$^~{}])", r"\\\1", part)
    return "".join(parts)


def prose(text: str) -> str:
    """A docstring as Markdown: paragraphs joined, the lists under `Args:`, `Returns:` and `Raises:` as lists."""
    parts: list[str] = []
    for block in filter(None, re.split(r"\n\s*\n", text.strip())):
        lines = block.splitlines()
        heading = SECTION.match(lines[0].strip())
        if heading is None:
            parts.append(inline(block))
            continue
        parts.append(f"**{heading[1]}**")
        parts.append("\n".join(f"- {inline(item)}" for item in _items(lines[1:])))
    return "\n\n".join(parts)


def _items(lines: list[str]) -> list[str]:
    """The entries of a docstring's section: a line that is indented more goes on with the one above."""
    depth = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    items: list[str] = []
    for line in lines:
        if items and len(line) - len(line.lstrip()) > depth:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line.strip())
    return [re.sub(r"^(\*{0,2}\w+):", r"`\1`:", item) for item in items]


def cell(text: str) -> str:
    """Text for a cell of a table, in one line."""
    return " ".join(text.split()).replace("|", r"\|")
