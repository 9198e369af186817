"""Reference pages about what a user types: every verb with its options, every key of every config file.

Generated from the code when the site is built (`scripts/build_docs.py`), never committed: what the pages say is what
the installed version does.
"""

import ast
import enum
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from docs_text import cell, inline, prose
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from onmodel.ablation.config import AblationConfig
from onmodel.cli.main import VERBS, load_verb
from onmodel.dataset.composition import Composition
from onmodel.dataset.merge import MergeConfig
from onmodel.dataset.recaption import CaptionConfig
from onmodel.dataset.recommended import Recommended
from onmodel.detection.app import DetectionArgs
from onmodel.detection.config import DetectorConfig
from onmodel.diagnosis.project import Project
from onmodel.evaluation.suite import TestSuite
from onmodel.film.cluster import ClusterConfig
from onmodel.film.extract import ExtractConfig
from onmodel.film.profile import Profile
from onmodel.jobs.service import JobsArgs
from onmodel.scoring.app import ScoringArgs
from onmodel.training.config import TrainConfig

CONFIGS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Training", "`onmodel train FILE.toml`. sd-scripts' own files are read too.", TrainConfig),
    ("Test suite", "`--test-suite FILE.json` of `evaluate` and `compare`.", TestSuite),
    ("Ablation", "`onmodel ablate FILE.toml`.", AblationConfig),
    ("Project", "`onmodel improve FILE.toml`.", Project),
    ("Profile", "`--profile FILE.json` of `extract`; `--plan` writes one.", Profile),
    ("Extraction", "`--config FILE` of `extract`, TOML or JSON.", ExtractConfig),
    ("Clustering", "`--config FILE` of `cluster`, TOML or JSON.", ClusterConfig),
    ("Captions", "`--config FILE` of `caption`, TOML or JSON.", CaptionConfig),
    ("Composition", "`--composition FILE.json` of `merge` and `curate`.", Composition),
    ("Merging", "`--merge-config FILE` of `merge`, TOML or JSON.", MergeConfig),
    ("Recommended ranges", "`--recommended FILE` of `analyze` and `curate`, TOML or JSON.", Recommended),
    ("Detector", "`--detector-config FILE.toml` of every verb that looks at pictures.", DetectorConfig),
    ("Detection service", "`args` of the application `detection` in a Serve config.", DetectionArgs),
    ("Scoring service", "`args` of the application `scoring` in a Serve config.", ScoringArgs),
    ("Job service", "`args` of the application `jobs` in a Serve config.", JobsArgs),
)
"""(heading, where it is given, model): every file or table that a user writes."""

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}
PLAIN_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "any"}


def commands_page() -> str:
    """Markdown of every verb: what it does, its arguments and its options, from typer's own help."""
    parts = [
        "# Commands\n\nEvery verb ends with `--help`. Exit codes: 0 done, 1 a check found something, 2 wrong input.\n"
    ]
    for name in VERBS:
        command = load_verb(name)
        parts.append(f"## onmodel {name} {{ #{name} }}\n\n{prose(_help(command))}\n")
        inner = getattr(command, "commands", None)
        if inner is None:
            parts.append(_parameters(command, name))
            continue
        for verb, each in inner.items():
            parts.append(f"### onmodel {name} {verb} {{ #{name}-{verb} }}\n\n{prose(_help(each))}\n")
            parts.append(_parameters(each, f"{name} {verb}"))
    return "\n".join(parts)


def _help(command: Any) -> str:
    """A verb's whole docstring, where it has one; its list of verbs shows the first line alone."""
    return inspect.getdoc(command.callback) or command.help or ""


def _parameters(command: Any, name: str) -> str:
    context = command.context_class(command, info_name=f"onmodel {name}")
    usage = " ".join(["onmodel", name, *command.collect_usage_pieces(context)])
    rows = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    lines = [f"```text\n{usage}\n```\n", "| option | |", "|---|---|"]
    lines += [f"| `{cell(names)}` | {cell(inline(text))} |" for names, text in rows]
    return "\n".join(lines) + "\n"


def configs_page() -> str:
    """Markdown of every config's keys: type, limits, default and meaning, from the pydantic models."""
    parts = ["# Config files\n\nAn unknown key is an error that names the nearest known one.\n"]
    for heading, where, model in CONFIGS:
        root = heading.lower().replace(" ", "-")
        parts.append(f"## {heading}\n\n{where} {prose(inspect.cleandoc(model.__doc__ or ''))}\n")
        tables = _tables(model)
        for inner, paths in tables.items():
            if inner is not model:
                title = paths[0] if len(paths) == 1 else f"{inner.__name__} ({', '.join(map(_last, paths))})"
                note = prose(inspect.cleandoc(inner.__doc__ or ""))
                parts.append(f"### {inline(title)} {{ #{_anchor(root, paths)} }}\n\n{note}\n")
            parts.append(_keys(inner, tables, root))
    return "\n".join(parts)


def _anchor(root: str, paths: list[str]) -> str:
    return "-".join([root, *paths[0].replace("_", "-").split(".")])


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _tables(model: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """Each model of a config, outermost first, with the paths of the tables that it is the form of."""
    tables: dict[type[BaseModel], list[str]] = {model: [""]}
    queue = [(model, "")]
    for outer, start in queue:
        for name, field in outer.model_fields.items():
            for inner in _models(field.annotation):
                path = _join(start, field.alias or name)
                if inner not in tables:
                    queue.append((inner, path))
                tables.setdefault(inner, []).append(path)
    return tables


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _keys(model: type[BaseModel], tables: dict[type[BaseModel], list[str]], root: str) -> str:
    notes = field_notes(model)
    lines = ['<div class="keys" markdown>\n', "| key | type and default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        shown = type_text(field.annotation, _limits(field))
        inner = next(_models(field.annotation), None)
        if inner is not None:
            shown = f"[{shown}](#{_anchor(root, tables[inner])})"
        note = notes.get(name) or field.description or ""
        form = f"{cell(shown)}<br>{cell(_default(field))}"
        lines.append(f"| `{field.alias or name}` | {form} | {cell(prose(note))} |")
    return "\n".join([*lines, "\n</div>\n"])


def field_notes(model: type[Any]) -> dict[str, str]:
    """The docstrings that stand below the fields of a class of OnModel, its bases' included."""
    notes: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not owner.__module__.startswith("onmodel."):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, note in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = note.value if isinstance(note, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    notes[field.target.id] = inspect.cleandoc(text.value)
    return notes


def type_text(annotation: Any, limits: str = "") -> str:
    """A type as a reader of TOML or JSON knows it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        text = " or ".join(type_text(each) for each in arguments if each is not type(None))
    elif origin is Literal:
        text = " or ".join(f"`{value}`" for value in arguments)
    elif origin in (list, tuple, set, frozenset):
        kinds = dict.fromkeys(type_text(each) for each in arguments if each is not Ellipsis)
        text = f"list of {' or '.join(kinds)}"
    elif origin is dict:
        text = f"table of {type_text(arguments[1])}"
    elif hasattr(annotation, "__metadata__"):
        text = type_text(arguments[0])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        text = "table"
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        text = " or ".join(f"`{member.value}`" for member in annotation)
    else:
        text = PLAIN_TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return f"{text} {limits}".strip()


def _limits(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(each, name)}" for each in field.metadata for name, sign in BOUNDS.items() if _has(each, name)
    ]
    return f"({', '.join(found)})" if found else ""


def _has(constraint: Any, name: str) -> bool:
    return getattr(constraint, name, None) is not None


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "empty"
    if field.default is PydanticUndefined:
        return "**required**"
    value = field.default
    if value is None:
        return "absent"
    if isinstance(value, BaseModel):
        return "the defaults below"
    if isinstance(value, tuple | list | dict) and len(value) == 0:
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    shown = str(list(value)) if isinstance(value, tuple) else repr(value) if isinstance(value, str) else str(value)
    return f"`{shown.replace(chr(39), chr(34))}`"


if __name__ == "__main__":
    sys.stdout.write(commands_page() + configs_page())
