"""Commands that the README and `docs/` show are ones that `onmodel` understands, and what they link to exists."""

import re
import shlex
from pathlib import Path

import pytest

from onmodel.cli.main import load_verb

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# `sh`: what needs another machine, so that the README's test cannot run it.
BLOCK = re.compile(r"```(?:ba)?sh\n(.*?)```", re.DOTALL)


def shown(page: Path) -> list[str]:
    """The `onmodel` lines of a page's bash blocks, continued lines joined."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if line.startswith("onmodel ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_it_is_shown_with(page: Path) -> None:
    for line in shown(page):
        _, verb, *arguments = shlex.split(line, comments=True)
        # Parses the arguments as the command line does and calls nothing; a wrong option or value raises.
        load_verb(verb).make_context(verb, arguments).close()
        if "--" in arguments:
            inner, *rest = arguments[arguments.index("--") + 1 :]
            load_verb(inner).make_context(inner, rest).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_linked_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_the_data_engine_shows_every_step() -> None:
    verbs = [line.split()[1] for line in shown(ROOT / "docs" / "data-engine.md")]
    assert {"analyze", "extract", "cluster", "curate", "caption", "augment", "merge"} <= set(verbs)
