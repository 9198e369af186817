"""The docs site: it builds without a dead link, stands on its own, and has a page for all that a user types."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from onmodel.cli.main import VERBS
from onmodel.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("docs")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def build(folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    script, out, work = ROOT / "scripts" / "build_docs.py", folder / "site", folder / "work"
    argv = [sys.executable, str(script), "--root", str(root), "--out", str(out), "--work", str(work)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def anchors(page: Path) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def test_every_link_and_picture_of_the_site_is_there(site: Path) -> None:
    """Of the HTML, so that also what the generated pages link to is looked at."""
    pages = {page: anchors(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 20
    for page in pages:
        body = page.read_text(encoding="utf-8")
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', body):
            path, _, anchor = unquote(target).partition("#")
            if "://" in path or path.startswith(("data:", "mailto:")):
                continue
            file = (page.parent / path).resolve() if path else page
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), f"{page.relative_to(site)}: {target}"
            if anchor and file in pages and not anchor.startswith("__"):
                assert anchor in pages[file], f"{page.relative_to(site)}: {target}"


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text(encoding="utf-8")):
            assert "://" not in tag, f"{page.name}: {tag}"


def test_every_page_is_in_the_nav() -> None:
    nav = (ROOT / "scripts" / "docs_site.toml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f'"{page.relative_to(ROOT / "docs")}"' in nav, f"{page.name}: give it a place in scripts/docs_site.toml"


def test_every_verb_and_key_has_its_place(site: Path) -> None:
    assert set(VERBS) <= anchors(site / "reference" / "commands.html")
    keys = (site / "reference" / "config.html").read_text(encoding="utf-8")
    for section in (TrainConfig.model_fields[name].annotation for name in ("model", "network", "data", "advanced")):
        for key in getattr(section, "model_fields", {}):
            assert f"<code>{key}</code>" in keys, key
    clients = anchors(site / "reference" / "clients.html")
    for method in (
        "detectionclient-detect",
        "detectionclient-model-info",
        "scoringclient-embed-images",
        "jobclient-follow",
    ):
        assert method in clients
    contracts = (site / "reference" / "contracts.html").read_text(encoding="utf-8")
    for proto in (ROOT / "protos").rglob("*.proto"):
        for name in re.findall(
            r"^\s*(?:rpc|message|service|enum) (\w+)", proto.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert name in contracts, f"{proto.name}: {name}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[heading](training.md#no-such-heading)", "anchor does not exist"),
        ("![picture](images/gone.png)", "images/gone.png"),
    ],
)
def test_a_dead_link_ends_the_build(tmp_path: Path, line: str, said: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for entry in ROOT.iterdir():
        if entry.name != "docs":
            (root / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "docs", root / "docs")
    with (root / "docs" / "probe.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{line}\n")
    done = build(tmp_path, root)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "probe.md" in done.stdout + done.stderr
    assert not (tmp_path / "site").exists()
