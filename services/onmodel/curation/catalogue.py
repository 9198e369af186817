"""What there is to curate: every picture of a folder of clusters, or of any dataset, with what is known of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.images import SUFFIXES
from onmodel.dataset.analysis import HasDetection, Row, analyze
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import Dataset, Picture, load_dataset
from onmodel.dataset.known import recorded
from onmodel.dataset.labels import Label, read_labels

CLUSTERS_FILE = "clusters.parquet"
OUTLIERS = "outliers"
ID_LENGTH = 16
"""Hex digits of the content hash that name a picture on the page: 64 bits, and guessing one is hopeless."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture."""

    path: Path
    file: str
    """Path below the source folder, with forward slashes."""
    dataset: Path
    """The folder whose facts, labels and lineage are about it."""
    group: str
    """Name of the folder it lies in: its cluster."""
    row: Row
    """What analysis says, with the labels that came with the folder."""
    label: Label | None = None
    """The label that came with the folder."""
    pose: str | None = None
    similarity: float | None = None
    """How like the middle of its cluster it is, as `cluster` measured it."""

    @property
    def hash(self) -> str:
        """SHA-256 of the file's bytes; pictures that cannot be read are no entries."""
        assert self.row.hash is not None
        return self.row.hash

    @property
    def id(self) -> str:
        """The picture's name on the page."""
        return self.hash[:ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All pictures in the order of their clusters and names."""

    source: Path
    entries: tuple[Entry, ...]
    groups: tuple[str, ...]
    """Names of the folders, the largest first, outliers last."""
    nested: bool
    """Whether the groups are folders of their own rather than the source itself."""
    notes: tuple[str, ...] = ()
    """Sentences about what was left out."""
    by_id: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def entry(self, picture_id: str) -> Entry:
        """The picture of that id. Raises NotFoundError."""
        found = self.by_id.get(picture_id)
        if found is None:
            raise NotFoundError(f"{picture_id}: no such picture; reload the page")
        return found


def load_catalogue(
    source: Path,
    services: HasDetection,
    *,
    model: ModelInfo | None = None,
    chosen: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> Catalogue:
    """Read a folder of cluster folders, or any dataset that `load_dataset` reads.

    What was found in the pictures comes from the facts beside them; pictures without are analysed as `analyze` does.

    Args:
        source: the folder, or a dataset TOML; nothing in it is changed but its facts.
        services: asked for `.detection` only when a picture is in no facts.
        model: what the services would detect with, where that is known without starting them.
        chosen: whether the user chose that model; otherwise facts that another model left complete are taken.
        advance: called with the number of pictures done.

    Raises:
        NotFoundError: no such folder.
        UserError: no picture in it, or none that can be read.
        ServiceError: the detection service fails.
    """
    datasets, nested = read_source(source)
    root = source.parent if source.is_file() else source
    clusters = _read_clusters(root)
    entries: dict[str, Entry] = {}
    failed: list[str] = []
    notes: list[str] = []
    copies = 0
    for dataset in datasets:
        facts = Facts.open(dataset.path)
        using = model if chosen else recorded(dataset, facts) or model
        analysis = analyze(dataset, services, model=using, facts=facts, advance=advance)
        notes += [facts.note] if facts.note else []
        labels = read_labels(dataset.path)
        for picture, row in zip(dataset.pictures, analysis.rows, strict=True):
            if row.error is not None or row.hash is None:
                failed.append(f"{row.file}: {row.error}")
                continue
            if row.hash in entries:
                copies += 1
                continue
            file = Dataset(root, ()).relative(picture)
            known = clusters.get(file, {})
            entries[row.hash] = Entry(
                path=picture.path,
                file=file,
                dataset=dataset.path,
                group=_group(root, picture),
                row=row,
                label=labels.get(row.hash),
                pose=known.get("pose"),
                similarity=known.get("similarity"),
            )
    if not entries:
        raise UserError(f"{source}: none of its {len(failed)} pictures can be read ({failed[0]}); replace them")
    if failed:
        shown = "; ".join(failed[:3]) + ("; …" if len(failed) > 3 else "")
        notes.append(f"{len(failed)} unreadable and left out: {shown}")
    if copies:
        notes.append(f"{copies} exact {'copies' if copies > 1 else 'copy'} of other pictures left out")
    return _catalogue(source, list(entries.values()), nested, notes)


def _catalogue(source: Path, entries: list[Entry], nested: bool, notes: list[str]) -> Catalogue:
    sizes = Counter(entry.group for entry in entries)
    groups = tuple(sorted(sizes, key=lambda name: (name == OUTLIERS, -sizes[name], name)))
    place = {name: at for at, name in enumerate(groups)}
    ordered = tuple(sorted(entries, key=lambda entry: (place[entry.group], entry.file)))
    return Catalogue(source, ordered, groups, nested, tuple(notes), {entry.id: entry for entry in ordered})


def read_source(source: Path) -> tuple[list[Dataset], bool]:
    """The dataset itself, or one a subfolder that holds pictures; and whether folders group the pictures.

    Raises as `load_dataset`.
    """
    if source.is_file() or not source.exists():
        dataset = load_dataset(source)
        return [dataset], True
    folders = [folder for folder in _subfolders(source) if _holds_pictures(folder)]
    try:
        dataset = load_dataset(source)
    except NotFoundError:
        raise
    except UserError:
        if not folders:
            raise
        return [load_dataset(folder) for folder in folders], True
    # An exported set names the pictures of its folders in metadata.jsonl, sd-scripts' folders carry repeats:
    # both are one dataset. Pictures that lie beside cluster folders are no reason to leave those out.
    seen = {picture.path.parent for picture in dataset.pictures}
    rest = [load_dataset(folder) for folder in folders if folder not in seen]
    return [dataset, *rest], len(seen) + len(rest) > 1 or source not in seen


def _subfolders(source: Path) -> list[Path]:
    try:
        return sorted(entry for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{source}: cannot be listed ({error.strerror}); check its permissions") from None


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(file.suffix.lower() in SUFFIXES and not file.name.startswith(".") for file in folder.iterdir())
    except OSError:
        return False


def _group(root: Path, picture: Picture) -> str:
    return picture.path.parent.name if picture.path.parent != root else root.resolve().name


def _read_clusters(root: Path) -> dict[str, dict[str, Any]]:
    """Path below the cluster folder -> pose and similarity of its main character, where `cluster` wrote them."""
    path = root / CLUSTERS_FILE
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `onmodel cluster` again or remove the file") from None
    wanted = [name for name in ("target", "main", "pose", "similarity") if name in table.column_names]
    if "target" not in wanted or "main" not in wanted:
        return {}
    rows: list[dict[str, Any]] = table.select(wanted).to_pylist()
    return {row["target"]: row for row in rows if row["target"] is not None and row["main"]}
