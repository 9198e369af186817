"""Is the right software there, and are the bundled models whole?"""

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from onmodel import __version__
from onmodel.core.errors import NotFoundError, UserError
from onmodel.doctor.finding import Finding, ok, warning, wrong
from onmodel.toybox import models

PYTHON = SpecifierSet(">=3.11,<3.14")
NAMED = ("ray", "torch", "diffusers", "transformers", "grpcio", "protobuf")
"""Packages that have a line of their own; the others are told of when something is wrong with them."""


def check_versions(constraints: Path | None = None) -> Iterator[Finding]:
    """Python, and the packages against the ranges that OnModel was made for; with a file, against its pins too."""
    running = platform.python_version()
    found = f"{running}, onmodel {__version__}"
    if Version(running) in PYTHON:
        yield ok("python", found)
    else:
        yield wrong("python", found, f"OnModel needs Python {PYTHON}: make the environment with one of those")
    wanted = {item.name: item for item in _requirements()}
    problems = [problem for item in wanted.values() if (problem := _problem(item)) is not None]
    for name in NAMED:
        if not any(problem.checked == name for problem in problems):
            yield ok(name, f"{version(name)} (wanted {wanted[name].specifier})")
    yield from problems
    if not problems:
        yield ok("packages", f"{len(wanted)} requirements, all met")
    if constraints is not None:
        yield _pins(constraints)


def _requirements() -> Iterator[Requirement]:
    for text in requires("onmodel") or ():
        item = Requirement(text)
        if item.marker is None or item.marker.evaluate({"extra": ""}):
            yield item


def _problem(item: Requirement) -> Finding | None:
    remedy = f"pip install '{item}'"
    try:
        installed = version(item.name)
    except PackageNotFoundError:
        return wrong(item.name, "not installed", remedy)
    if not item.specifier.contains(installed, prereleases=True):
        return wrong(item.name, f"{installed}, wanted {item.specifier}", remedy)
    return None


def _pins(constraints: Path) -> Finding:
    """One finding: packages whose version differs from the pinned one. Raises UserError for a file that is none."""
    try:
        lines = constraints.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise NotFoundError(f"{constraints}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{constraints}: cannot be read as text ({error}); check the file") from None
    differ: list[str] = []
    for number, line in enumerate(lines, start=1):
        text = re.split(r"\s#|^#", line)[0].strip()
        if not text:
            continue
        try:
            item = Requirement(text)
        except InvalidRequirement as error:
            raise UserError(f"{constraints}: line {number} is no requirement ({error}); mend that line") from None
        if item.marker is not None and not item.marker.evaluate():
            continue
        try:
            installed = version(item.name)
        except PackageNotFoundError:
            continue
        if not item.specifier.contains(installed, prereleases=True):
            differ.append(f"{item.name} {installed} ({item.specifier})")
    if differ:
        shown = ", ".join(differ[:5]) + (f" and {len(differ) - 5} more" if len(differ) > 5 else "")
        return warning(
            "constraints", f"differ: {shown}", f"pip install -c {constraints} onmodel, to have what was tested"
        )
    return ok("constraints", f"{constraints}: nothing installed differs")


def check_models() -> Finding:
    """The bundled models are there and are those that were committed."""
    checked = "bundled models"
    remedy = "reinstall onmodel: toybox, demo and the default detector and scorer need them"
    try:
        differing = models.differing()
    except NotFoundError as error:
        return wrong(checked, str(error).split(";")[0], remedy)
    if differing:
        return wrong(checked, f"missing or changed: {', '.join(differing)}", remedy)
    return ok(checked, f"{len(models.files())} files, hashes right")
