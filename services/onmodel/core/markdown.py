"""Text for Markdown."""


def plain(text: str) -> str:
    """Text that Markdown takes literally: no markup, no table cell of its own."""
    cleaned = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        cleaned = cleaned.replace(sign, f"\\{sign}")
    return cleaned
