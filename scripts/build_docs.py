"""Build the docs site from the repository's Markdown: `python scripts/build_docs.py [--out site]`.

The pages are README.md, docs/ and what is generated from the code (docs_commands, docs_contracts). Links that lead to
other files of the repository get a page with that file, so that the site stands on its own. A link that leads nowhere,
or to a heading that is not there, ends the build.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "scripts" / "docs_site.toml"
STYLE = ROOT / "scripts" / "docs_site.css"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^(```|~~~)")
PICTURES = {".png", ".jpg", ".svg"}
FOLDERS = {Path("protos/onmodel"): Path("reference/contracts.md")}
"""Folders that pages link to, and the page that shows what lies in them."""
LANGUAGES = {".toml": "toml", ".yaml": "yaml", ".json": "json", ".proto": "protobuf", ".py": "python"}


class Site:
    """The folder of pages that the generator reads."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.places: dict[Path, Path] = {Path("README.md"): Path("index.md")}
        for page in sorted((root / "docs").rglob("*.md")):
            relative = page.relative_to(root)
            self.places[relative] = relative.relative_to("docs")
        self.waiting = list(self.places)

    def lay_out(self) -> None:
        """Write every page, and whatever a page links to."""
        while self.waiting:
            source = self.waiting.pop()
            target = self.folder / self.places[source]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix in PICTURES:
                shutil.copyfile(self.root / source, target)
            else:
                target.write_text(self._page(source), encoding="utf-8")

    def _page(self, source: Path) -> str:
        text = (self.root / source).read_text(encoding="utf-8")
        if source.suffix != ".md":
            return (
                f"# {source.name}\n\n`{source}`\n\n````{LANGUAGES.get(source.suffix, 'text')}\n{text.rstrip()}\n````\n"
            )
        lines: list[str] = []
        fenced = False
        for line in text.splitlines():
            fenced ^= FENCE.match(line) is not None
            lines.append(line if fenced else LINK.sub(lambda found: self._link(source, found), line))
        return "\n".join(lines) + "\n"

    def _link(self, source: Path, found: re.Match[str]) -> str:
        path, sign, anchor = found[2].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found[0]
        place = Path(os.path.normpath(source.parent / path))
        if not (self.root / place).exists():
            raise SystemExit(f"{source}: links to {path}, which is not there; mend the link")
        relative = os.path.relpath(self._place(source, place), self.places[source].parent)
        return f"{found[1]}{relative}{sign}{anchor}{found[3]}"

    def _place(self, source: Path, place: Path) -> Path:
        """Where in the site a file of the repository is; one that is not there yet is brought."""
        if place in FOLDERS:
            return FOLDERS[place]
        if (self.root / place).is_dir():
            raise SystemExit(f"{source}: links to the folder {place}; link to a file in it")
        if place not in self.places:
            inside = place.relative_to("docs") if place.parts[0] == "docs" else Path("files") / place
            kept = place.suffix in {*PICTURES, ".md"}
            self.places[place] = inside if kept else inside.with_name(f"{place.name}.md")
            self.waiting.append(place)
        return self.places[place]


def generate(folder: Path) -> None:
    """Write the pages that come from the code."""
    from docs_commands import commands_page, configs_page
    from docs_contracts import clients_page, contracts_page

    pages = {"commands": commands_page, "config": configs_page, "contracts": contracts_page, "clients": clients_page}
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        (folder / f"{name}.md").write_text(page(), encoding="utf-8")


def build(root: Path, work: Path, out: Path) -> None:
    """Lay out the pages of the repository at `root` in `work`, emptied first, and put the built site at `out`."""
    shutil.rmtree(work, ignore_errors=True)
    Site(root, work / "docs").lay_out()
    generate(work / "docs" / "reference")
    (work / "docs" / "assets").mkdir()
    shutil.copyfile(STYLE, work / "docs" / "assets" / "onmodel.css")
    shutil.copyfile(CONFIG, work / "zensical.toml")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "zensical.toml"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # The generator's own traceback says nothing that its list of dead links does not.
        raise SystemExit((done.stdout + done.stderr).partition("Traceback")[0].rstrip())
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(work / "site", out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "docs")
    arguments = parser.parse_args()
    build(arguments.root, arguments.work, arguments.out)
    sys.stdout.write(f"{arguments.out / 'index.html'}\n")


if __name__ == "__main__":
    main()
