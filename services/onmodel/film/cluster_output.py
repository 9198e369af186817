"""Writes clusters as folders that every verb reads, the table of all instances, and a page."""

import base64
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader

from onmodel.core.config import Config
from onmodel.core.cutouts import square_crop
from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import folder_aside
from onmodel.core.images import load, thumbnail_jpeg
from onmodel.dataset.derived import Names, read_lineage, write_lineage
from onmodel.dataset.facts import FILE as FACTS
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import Dataset
from onmodel.dataset.labels import Label, read_labels, write_labels
from onmodel.film.cluster import Clustering, Member, Seen

TABLE = "clusters.parquet"
PAGE = "clusters.html"
OUTLIERS = "outliers"
THUMBNAIL_SIDE = 112
SHOWN = 12
"""Thumbnails a cluster."""

_BOX = pa.list_(pa.float64(), 4)
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("hash", pa.string()),
        ("cluster", pa.string()),
        ("target", pa.string()),
        ("instance", pa.int32()),
        ("main", pa.bool_()),
        ("box", _BOX),
        ("confidence", pa.float64()),
        ("face", _BOX),
        ("shot_type", pa.string()),
        ("attributes", pa.list_(pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("outlier", pa.bool_()),
        ("reason", pa.string()),
        ("similarity", pa.float64()),
        ("keypoints", pa.list_(pa.list_(pa.float64(), 3))),
        ("pose", pa.string()),
    ],
    metadata={"onmodel.schema_version": "1"},
)
"""One row an instance, and one for a picture without any. `file` lies below the clustered folder, `target` (the whole
picture's copy) below the output folder; `reason`: why an outlier is one; `similarity`: to the middle of its cluster."""


class ClusterFolder(Config):
    """One cluster."""

    name: str
    instances: int
    pictures: int
    """Whose main character it is; they are in its folder."""


class ClusterResult(Config):
    """What came of clustering."""

    output_dir: str
    pictures: int
    unreadable: int
    instances: int
    clusters: tuple[ClusterFolder, ...]
    outliers: int
    """Instances that were compared and belong to no cluster."""
    refused: dict[str, int]
    """Instances that were not compared: why -> how many."""
    outlier_pictures: int
    """Pictures whose main character belongs to no cluster, or that have none."""
    poses: dict[str, int]
    notes: tuple[str, ...]


def refuse_foreign(output_dir: Path, dataset: Dataset) -> None:
    """Raise UserError where writing to `output_dir` would remove pictures or anything that clustering did not make."""
    if output_dir.is_file():
        raise UserError(f"{output_dir}: is a file; give --output-dir a folder")
    target = output_dir.resolve()
    inside = next((p.path for p in dataset.pictures if p.path.resolve().is_relative_to(target)), None)
    if inside is not None:
        raise UserError(f"{output_dir}: holds {inside.name}, which is to be clustered; give another --output-dir")
    if not output_dir.is_dir():
        return
    known = {TABLE, PAGE} | _folders(output_dir / TABLE)
    other = sorted(p.name for p in output_dir.iterdir() if p.name not in known)
    if other:
        raise UserError(f"{output_dir}: holds {other[0]}, which clustering did not make; give another --output-dir")


def _folders(table: Path) -> set[str]:
    """Names of the folders that an earlier clustering wrote; none where its table cannot be read."""
    try:
        targets = pq.read_table(table, columns=["target"]).column("target").to_pylist()
    except (OSError, pa.ArrowException):
        return set()
    return {str(name).split("/")[0] for name in targets if name is not None}


def write(clustering: Clustering, dataset: Dataset, output_dir: Path, detector: tuple[str, str]) -> ClusterResult:
    """Write `<cluster>/` folders, `outliers/`, the table and the page, whole or not at all.

    Args:
        clustering: what was found.
        dataset: its pictures are linked, or copied where they cannot be.
        output_dir: replaced where an earlier clustering is there.
        detector: hashes under which facts are kept.

    Raises:
        UserError: see `refuse_foreign`.
        ResourceError: the disk is full.
    """
    refuse_foreign(output_dir, dataset)
    targets = _targets(clustering.seen)
    labels = read_labels(dataset.path)
    result = _summary(clustering, output_dir)
    with folder_aside(output_dir) as aside:
        groups: dict[str, list[Seen]] = {}
        for seen in clustering.seen:
            groups.setdefault(_folder_of(seen), []).append(seen)
        for name, members in groups.items():
            _write_folder(aside / name, members, targets, dataset, labels, detector)
        rows = [
            row for seen in clustering.seen for row in _rows(seen, targets[seen.file], labels.get(seen.picture.hash))
        ]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), aside / TABLE, compression="zstd")
        (aside / PAGE).write_text(page(clustering, result, dataset), encoding="utf-8")
    return result


def _targets(seen: Sequence[Seen]) -> dict[str, str]:
    """Each picture's path below the output folder; pictures of one name from several folders are told apart."""
    names: dict[str, Names] = {}
    targets: dict[str, str] = {}
    for one in seen:
        folder = _folder_of(one)
        path = Path(one.file)
        targets[one.file] = f"{folder}/{names.setdefault(folder, Names()).free(path.stem)}{path.suffix}"
    return targets


def _folder_of(seen: Seen) -> str:
    main = seen.main
    return OUTLIERS if main is None or main.cluster is None else main.cluster


def _write_folder(
    folder: Path,
    members: Sequence[Seen],
    targets: Mapping[str, str],
    dataset: Dataset,
    labels: Mapping[str, Label],
    detector: tuple[str, str],
) -> None:
    folder.mkdir()
    facts = Facts(folder / FACTS)
    lineage = read_lineage(dataset.path)
    kept_labels, kept_lines = [], []
    for seen in members:
        name = targets[seen.file].split("/", 1)[1]
        _link(seen.picture.path, folder / name)
        if seen.picture.caption:
            (folder / name).with_suffix(".txt").write_text(seen.picture.caption + "\n", encoding="utf-8")
        facts.put((seen.picture.hash, *detector), seen.found)
        if seen.picture.hash in labels:
            kept_labels.append(labels[seen.picture.hash].model_copy(update={"file": name}))
        if seen.file in lineage:
            kept_lines.append({**lineage[seen.file], "file": name})
    facts.save()
    if kept_labels:
        write_labels(folder, kept_labels)
    if kept_lines:
        write_lineage(folder, kept_lines)


def _link(source: Path, target: Path) -> None:
    """A hard link, which takes no room; a copy on another disk, or where links are not to be had."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def _rows(seen: Seen, target: str, label: Label | None) -> list[dict[str, Any]]:
    detections, decision = seen.found.detections, seen.found.decision
    shot, attributes = decision.shot_type, decision.attributes
    if label is not None:
        shot = shot if label.shot_type is None else label.shot_type
        attributes = attributes if label.attributes is None else frozenset(label.attributes)
    head: dict[str, Any] = {
        "file": seen.file,
        "hash": seen.picture.hash,
        "target": target,
        "shot_type": shot.value,
        "attributes": sorted(a.value for a in attributes),
        "width": detections.width,
        "height": detections.height,
    }
    if not seen.members:
        return [{**head, "main": False, "outlier": True, "reason": "no character found"}]
    return [{**head, **_row(member)} for member in seen.members]


def _row(member: Member) -> dict[str, Any]:
    instance = member.instance
    return {
        "cluster": member.cluster,
        "instance": member.index,
        "main": member.main,
        "box": instance.box.as_tuple(),
        "confidence": instance.confidence,
        "face": None if instance.face is None else instance.face.as_tuple(),
        "outlier": member.cluster is None,
        "reason": reason(member),
        "similarity": None if member.similarity is None else round(member.similarity, 4),
        "keypoints": [(p.x, p.y, p.confidence) for p in instance.keypoints],
        "pose": member.pose,
    }


def reason(member: Member) -> str | None:
    """Why an instance belongs to no cluster; None where it belongs to one."""
    return None if member.cluster is not None else member.refused or "like no cluster"


def _summary(clustering: Clustering, output_dir: Path) -> ClusterResult:
    members = list(clustering.members)
    instances = Counter(m.cluster for m in members)
    pictures = Counter(_folder_of(seen) for seen in clustering.seen)
    return ClusterResult(
        output_dir=str(output_dir),
        pictures=len(clustering.seen),
        unreadable=len(clustering.unreadable),
        instances=len(members),
        clusters=tuple(
            ClusterFolder(name=name, instances=instances[name], pictures=pictures[name]) for name in clustering.names
        ),
        outliers=sum(m.cluster is None and m.refused is None for m in members),
        refused=clustering.refused,
        outlier_pictures=pictures[OUTLIERS],
        poses=dict(Counter(m.pose for m in members if m.pose is not None).most_common()),
        notes=tuple(clustering.notes),
    )


@dataclass(frozen=True, slots=True)
class _Thumb:
    file: str
    detail: str
    jpeg: str


def page(clustering: Clustering, result: ClusterResult, dataset: Dataset) -> str:
    """One HTML page that needs no other file: a row of crops per cluster, from its middle to its margin."""
    groups: dict[str, list[Member]] = {name: [] for name in clustering.names}
    for member in clustering.members:
        if member.cluster is not None:
            groups[member.cluster].append(member)
    outliers = [m for m in clustering.members if m.cluster is None and m.refused is None]
    chosen = {name: _spread(members) for name, members in (*groups.items(), (OUTLIERS, outliers)) if members}
    paths = {seen.file: seen.picture.path for seen in clustering.seen}
    with ThreadPoolExecutor(4) as pool:
        rows = {
            name: [t for t in pool.map(lambda m: _thumb(m, paths[m.file]), members) if t is not None]
            for name, members in chosen.items()
        }
    environment = Environment(loader=PackageLoader("onmodel.film"), autoescape=True, trim_blocks=True)
    return environment.get_template("clusters.html").render(
        result=result,
        name=dataset.path.resolve().name,
        rows=rows,
        sizes={folder.name: folder for folder in result.clusters},
        unreadable=clustering.unreadable,
        outliers=OUTLIERS,
    )


def _spread(members: Sequence[Member]) -> list[Member]:
    """At most `SHOWN`, evenly from the likest to the least like."""
    order = sorted(members, key=lambda m: (-(m.similarity or 0.0), m.file, m.index))
    if len(order) <= SHOWN:
        return order
    return [order[round(k * (len(order) - 1) / (SHOWN - 1))] for k in range(SHOWN)]


def _thumb(member: Member, path: Path) -> _Thumb | None:
    try:
        image = load(path)
    except ImageError:
        return None
    crop, _ = square_crop(image, member.instance.box)
    like = "" if member.similarity is None else f"likeness {member.similarity:.2f}"
    detail = ", ".join(part for part in (like, member.pose or "", "" if member.main else "beside another") if part)
    return _Thumb(member.file, detail, base64.b64encode(thumbnail_jpeg(crop, THUMBNAIL_SIDE)).decode())
