"""What the README and `docs/` show is right: commands, configs, Python, links."""

import ast
import importlib
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from onmodel.ablation.config import AblationConfig, SearchSection
from onmodel.cli.main import load_verb
from onmodel.core.config import Config, validate
from onmodel.dataset.composition import Composition
from onmodel.diagnosis.project import Project
from onmodel.evaluation.suite import TestSuite
from onmodel.jobs.service import JobsArgs
from onmodel.training.config import TrainConfig
from pages import blocks, commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FORMS: tuple[tuple[str, type[Config]], ...] = (
    ("data", TrainConfig),
    ("base", AblationConfig),
    ("metric", SearchSection),
    ("test_suite", Project),
    ("scenarios", TestSuite),
    ("close_up", Composition),
    ("allowed_roots", JobsArgs),
)
"""A key that only configs of one form have."""


def shown(page: Path) -> list[str]:
    """The `onmodel` lines of a page, continued lines joined."""
    # `sh`: what needs another machine, so that the README's test cannot run it.
    found = blocks(page.read_text(encoding="utf-8"), "bash", "sh")
    return [line for block in found for line in commands(block) if line.startswith("onmodel ")]


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


def parsed(kind: str, text: str) -> dict[str, Any]:
    """What a block holds; of an application in a Serve config and of a lone `[search]`, what stands in it."""
    value = {"toml": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load}[kind](text)
    value = value[0]["args"] if isinstance(value, list) else value
    return value["search"] if list(value) == ["search"] else value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_config_is_one(page: Path) -> None:
    for kind, _, text in blocks(page.read_text(encoding="utf-8"), "toml", "json", "yaml"):
        value = parsed(kind, text)
        model = next((form for key, form in FORMS if key in value), None)
        assert model is not None, f"{page.name}: which config is this? Name a key of it in FORMS.\n{text}"
        validate(model, value, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles_and_imports_what_exists(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{page.name}: {node.module} has no {name.name}"


def test_the_page_of_the_data_engine_shows_every_step() -> None:
    verbs = [line.split()[1] for line in shown(ROOT / "docs" / "data-engine.md")]
    assert {"analyze", "extract", "cluster", "curate", "caption", "augment", "merge"} <= set(verbs)
