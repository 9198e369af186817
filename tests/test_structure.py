"""The structure holds: dependencies point one way, and Ray stays in thin adapters."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "services" / "onmodel"

# Each part may import itself and what stands to its right here.
LOOKING = {"core", "common", "detection", "scoring", "serving", "toybox"}
TRYING = {*LOOKING, "dataset", "evaluation", "training"}
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "common": {"core"},
    "detection": {"core", "common", "toybox"},
    "scoring": {"core", "common", "toybox"},
    "toybox": {"core"},
    "jobs": {"core", "common"},
    "serving": {"core", "detection", "scoring", "common", "toybox", "jobs"},
    "doctor": {*LOOKING, "jobs"},
    "dataset": LOOKING,
    "film": {*LOOKING, "dataset"},
    "curation": {*LOOKING, "dataset", "film"},
    "training": {*LOOKING, "dataset"},
    "evaluation": {*LOOKING, "dataset", "training"},
    "ablation": TRYING,
    "diagnosis": {*TRYING, "curation", "film"},
    "cli": {*TRYING, "ablation", "curation", "diagnosis", "doctor", "film", "jobs"},
    # Uses the product as its users do.
    "experiments": {*TRYING, "cli", "film"},
}

RAY_ADAPTERS = {
    "ablation/ray_tune.py",
    "common/metrics.py",
    "detection/app.py",
    "evaluation/ray_draw.py",
    "experiments/ray_make.py",
    "film/ray_data.py",
    "jobs/app.py",
    "jobs/model.py",
    "jobs/reach.py",
    "scoring/app.py",
    "training/ray_alone.py",
    "training/ray_cluster.py",
    "training/ray_train.py",
}


def modules() -> list[Path]:
    return [p for p in sorted(SOURCE.rglob("*.py")) if "/v1/" not in p.as_posix()]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} if node.module != "onmodel" else {f"onmodel.{a.name}" for a in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_dependencies_point_one_way(path: Path) -> None:
    parts = path.relative_to(SOURCE).parts
    if len(parts) == 1:
        return
    own = parts[0]
    used = {name.split(".")[1] for name in imported(path) if name.startswith("onmodel.")} - {own, "__version__"}
    assert used <= MAY_IMPORT[own], f"{own} must not import {used - MAY_IMPORT[own]}"


def test_ray_stays_in_its_adapters() -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in modules()
        if any(name == "ray" or name.startswith("ray.") for name in imported(path))
    }
    assert {user for user in users if not user.startswith("serving/")} <= RAY_ADAPTERS


def test_modules_stay_readable() -> None:
    long = {p.name: n for p in modules() if (n := len(p.read_text().splitlines())) > 450}
    assert not long, f"split these modules: {long}"


def test_every_page_escapes_what_it_shows() -> None:
    """File names and captions come from anybody."""
    for file in SOURCE.rglob("*"):
        if file.suffix in (".html", ".j2", ".js"):
            text = file.read_text(encoding="utf-8")
            found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\|\s*safe|autoescape", text)
            assert not found, f"{file}: {found[0]}"
        elif file.suffix == ".py" and "Environment(" in (text := file.read_text(encoding="utf-8")):
            made = re.findall(r"\bEnvironment\(", text)
            assert len(made) == text.count("autoescape=True"), f"{file}: an environment without autoescape"
