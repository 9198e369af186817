"""A dataset folder as a typed object: pictures, captions, repeats. Reads names and captions, not pixels.

Layouts: pictures beside same-stem `.txt` or `.caption` files; `10_name class/` repeat folders (sd-scripts);
`metadata.jsonl` with `file_name` and `text`; an sd-scripts dataset TOML given instead of a folder.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onmodel.core.config import read_mapping
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import content_hash
from onmodel.core.images import SUFFIXES, read_bytes

CAPTION_SUFFIXES = (".txt", ".caption")
METADATA = "metadata.jsonl"
_REPEATS = re.compile(r"(\d+)_(.*)")


@dataclass(frozen=True)
class Picture:
    """One picture file of a dataset."""

    path: Path
    caption: str = ""
    """The first line of what is written about it."""
    repeats: int = 1
    """How many times an epoch shows it."""
    class_tokens: str | None = None
    """What the repeat folder's name says behind the number, e.g. "zibo boy"."""
    variants: tuple[str, ...] = ()
    """Further lines, each a caption of its own; sd-scripts draws one of all lines with `enable_wildcard`."""

    def bytes(self) -> bytes:
        """The file's bytes. Raises ImageError where it cannot be read."""
        return read_bytes(self.path)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file's bytes, 64 hex digits. Raises ImageError where it cannot be read."""
        return content_hash(self.bytes())


@dataclass(frozen=True)
class Dataset:
    """All pictures of a dataset, ordered by path."""

    path: Path
    """The folder (for a dataset TOML: the folder that holds it)."""
    pictures: tuple[Picture, ...]

    def relative(self, picture: Picture) -> str:
        """A picture's path below the dataset's folder, with forward slashes; absolute where it lies elsewhere."""
        try:
            return picture.path.relative_to(self.path).as_posix()
        except ValueError:
            return picture.path.as_posix()

    @property
    def hash(self) -> str:
        """SHA-256 over every picture's name, content, caption and repeats."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            row = [self.relative(picture), picture.hash, picture.caption, picture.repeats, *picture.variants]
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()


def load_dataset(path: Path) -> Dataset:
    """Read a dataset folder, or an sd-scripts dataset TOML.

    Raises:
        NotFoundError: no such folder or file.
        UserError: nothing in it is a picture (says what is there and what was expected), or it cannot be read.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such dataset folder; check the path")
    if path.is_file():
        if path.suffix != ".toml":
            raise UserError(f"{path}: is a file; give the folder that holds the pictures, or a dataset TOML")
        return _from_toml(path)
    pictures = _read_folder(path)
    if not pictures:
        raise UserError(
            f"{path}: {_what_is_there(path)}; expected pictures ({_formats()}) with .txt captions beside them"
        )
    return Dataset(path, tuple(sorted(pictures, key=lambda p: p.path)))


def _read_folder(path: Path) -> list[Picture]:
    """Pictures of the folder itself and of its repeat folders; without either, of all plain subfolders."""
    files, folders = _list(path)
    named = {picture.path: picture for picture in _pictures_of(path, files)}
    for folder in folders:
        repeats, tokens = repeats_of(folder.name)
        if repeats is None:
            continue
        inner, _ = _list(folder)
        for picture in _pictures_of(folder, inner):
            # One that metadata.jsonl names too is the same picture; what is written beside it says more.
            said = picture if picture.caption else named.get(picture.path, picture)
            named[picture.path] = replace(said, repeats=repeats, class_tokens=tokens)
    return list(named.values())


def repeats_of(folder_name: str) -> tuple[int | None, str | None]:
    """Repeats and class tokens of a folder's name: "10_zibo boy" is (10, "zibo boy"); (None, None) for other names."""
    found = _REPEATS.fullmatch(folder_name)
    return (int(found[1]), found[2].strip() or None) if found else (None, None)


def _list(path: Path) -> tuple[list[Path], list[Path]]:
    try:
        entries = sorted(e for e in path.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{path}: cannot be listed ({error.strerror}); check its permissions") from None
    return [e for e in entries if e.is_file()], [e for e in entries if e.is_dir()]


def _pictures_of(path: Path, files: list[Path]) -> list[Picture]:
    images = [f for f in files if f.suffix.lower() in SUFFIXES]
    captions = {f.name: f for f in files if f.suffix.lower() in CAPTION_SUFFIXES}
    metadata = _read_metadata(path / METADATA) if (path / METADATA) in files else {}
    pictures = [_captioned(image, metadata.get(image.name, _caption_beside(image, captions))) for image in images]
    # metadata.jsonl may name pictures in subfolders, as Hugging Face's image folders do.
    pictures += [
        _captioned(path / name, text) for name, text in metadata.items() if "/" in name and (path / name).is_file()
    ]
    return pictures


def _captioned(path: Path, text: str) -> Picture:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return Picture(path, lines[0] if lines else "", variants=tuple(lines[1:]))


def with_captions(picture: Picture, suffix: str) -> Picture:
    """`picture` with the captions of the file that ends in `suffix`, where there is one beside it."""
    beside = picture.path.with_suffix(suffix)
    if not beside.is_file():
        return picture
    said = _captioned(picture.path, _read_text(beside))
    return replace(picture, caption=said.caption, variants=said.variants)


def _caption_beside(image: Path, captions: dict[str, Path]) -> str:
    for suffix in CAPTION_SUFFIXES:
        for name in (image.stem + suffix, image.name + suffix):
            if name in captions:
                return _read_text(captions[name])
    return ""


def _read_text(path: Path) -> str:
    try:
        # Captions written on Windows may begin with a byte order mark.
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UserError(f"{path}: the caption is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: the caption cannot be read ({error.strerror}); check its permissions") from None


def _read_metadata(path: Path) -> dict[str, str]:
    return {row["file_name"]: str(row.get("text", "")).strip() for row in metadata_rows(path)}


def metadata_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metadata.jsonl, each with a `file_name`. Raises UserError naming a line that is none."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number} is not JSON ({error}); mend that line") from None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise UserError(f'{path}: line {number} needs "file_name" and "text"; mend that line')
        rows.append(row)
    return rows


def _what_is_there(path: Path) -> str:
    files, folders = _list(path)
    if not files and not folders:
        return "the folder is empty"
    kinds = Counter(f.suffix.lower() or "no suffix" for f in files)
    parts = [f"{count} {kind} file{'s' if count > 1 else ''}" for kind, count in kinds.most_common(4)]
    if folders:
        names = ", ".join(f.name for f in folders[:3])
        parts.append(f"{len(folders)} folder{'s' if len(folders) > 1 else ''} ({names}) not named like `10_name class`")
    return "no picture in it; there are " + ", ".join(parts)


def _formats() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))


def _from_toml(path: Path) -> Dataset:
    """sd-scripts' dataset config. Regularisation pictures do not show the character: they are left out."""
    pictures = [p for subset in load_subsets(path) if not subset.options.get("is_reg") for p in subset.pictures]
    if not pictures:
        raise UserError(f"{path}: its subsets hold no picture; check each `image_dir`")
    return Dataset(path.parent, tuple(sorted(pictures, key=lambda p: p.path)))


@dataclass(frozen=True)
class Subset:
    """One `[[datasets.subsets]]` table of an sd-scripts dataset config."""

    options: dict[str, Any]
    """Its keys, over those of its `[[datasets]]` table, over those of `[general]`."""
    pictures: tuple[Picture, ...]


def load_subsets(path: Path) -> list[Subset]:
    """Read sd-scripts' dataset config: `[[datasets]]` of `[[datasets.subsets]]` with `image_dir` and `num_repeats`.

    Raises:
        UserError: not such a file; a subset without `image_dir`.
        NotFoundError: a folder that does not exist.
    """
    table = read_mapping(path)
    datasets: Any = table.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise UserError(f"{path}: has no [[datasets]] table; an sd-scripts dataset config needs one")
    general: Any = table.get("general", {})
    found: list[Subset] = []
    for outer in _tables(datasets, path, "datasets"):
        for subset in _tables(outer.get("subsets", []), path, "datasets.subsets"):
            options = {**general, **outer, **subset}
            options.pop("subsets", None)
            found.append(Subset(options, tuple(_subset(options, path))))
    return found


def _tables(value: Any, path: Path, name: str) -> Iterable[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{path}: `{name}` must be a list of tables, written [[{name}]]")
    return value


def _subset(options: dict[str, Any], source: Path) -> list[Picture]:
    if not isinstance(options.get("image_dir"), str):
        raise UserError(f"{source}: a subset has no `image_dir`; name its folder")
    folder = (source.parent / Path(options["image_dir"]).expanduser()).resolve()
    if not folder.is_dir():
        raise NotFoundError(f"{source}: image_dir {folder} does not exist; check the path")
    files, _ = _list(folder)
    suffix = str(options.get("caption_extension", ".txt"))
    prefix, ending = str(options.get("caption_prefix", "")), str(options.get("caption_suffix", ""))
    tokens = options.get("class_tokens")
    found: list[Picture] = []
    for picture in _pictures_of(folder, files):
        said = with_captions(picture, suffix)
        lines = [
            " ".join(part for part in (prefix, line, ending) if part)
            for line in (said.caption or picture.caption or str(tokens or ""), *said.variants)
        ]
        repeats = int(options.get("num_repeats", 1))
        found.append(Picture(picture.path, lines[0], repeats, tokens, tuple(lines[1:])))
    return found
