"""The kept pictures as a dataset folder.

    D/<cluster>/<name>.png, .txt       a folder a cluster; flat where the source is one flat folder
    D/metadata.jsonl                   makes D itself one dataset too (Hugging Face's image folder)
    D/onmodel.parquet, labels.jsonl    what was detected, and what a person corrected; in every folder as well
    D/lineage.jsonl                    where each picture came from
    D/curation.json                    what was decided, in numbers; marks the folder as ours

D is written whole or not at all and replaces only what an earlier export wrote. The decisions themselves lie beside
it, in D.curation/, so that no export can touch them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash, folder_aside
from onmodel.core.images import read_bytes
from onmodel.core.vocabulary import Attribute, ShotType, count_categories
from onmodel.curation.catalogue import Catalogue, Entry
from onmodel.curation.store import UNDECIDED, State
from onmodel.dataset import facts as fact_files
from onmodel.dataset.derived import Names, check_place, read_lineage, write_lineage
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import METADATA, repeats_of
from onmodel.dataset.labels import Label, write_labels

SUMMARY = "curation.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    output_dir: Path
    kept: int
    groups: dict[str, int]
    """Cluster -> its pictures."""
    counts: dict[str, int]
    """Category -> its pictures, as corrected."""
    skipped: tuple[str, ...]
    """A sentence for each kept picture that could not be copied."""


def state_folder(output_dir: Path) -> Path:
    """Where the decisions for an output folder lie: beside it, so that writing it anew leaves them alone."""
    return output_dir.with_name(output_dir.name + ".curation")


def check_target(source: Path, output_dir: Path) -> None:
    """Raises UserError where `output_dir` lies in or around the source, or holds something that is not ours."""
    check_place(
        [source],
        output_dir,
        marker=SUMMARY,
        kind="curated set",
        beside="the pictures, which stay untouched; choose a folder beside them",
    )


def group_of(entry: Entry, state: State) -> str:
    """The cluster a picture belongs to now."""
    return entry.group if state.group is None else state.group


def shot_of(entry: Entry, state: State) -> ShotType:
    """Its shot type, as corrected."""
    return entry.row.shot_type if state.shot_type is None else state.shot_type


def attributes_of(entry: Entry, state: State) -> frozenset[Attribute]:
    """Its attributes, as corrected."""
    names: Iterable[str] = entry.row.attributes if state.attributes is None else state.attributes
    return frozenset(Attribute(name) for name in names)


def export(
    catalogue: Catalogue, states: Mapping[str, State], output_dir: Path, *, keep_undecided: bool = False
) -> Exported:
    """Write the kept pictures.

    Args:
        catalogue: all pictures.
        states: content hash -> what a person decided.
        output_dir: made whole or not at all; an earlier export there is replaced.
        keep_undecided: what nobody decided on counts as kept: a person may only have taken out what is wrong.

    Raises:
        UserError: nothing is kept, nothing kept can be read, or the folder holds something else.
        ResourceError: the disk is full.
    """
    check_target(catalogue.source, output_dir)
    wanted = ("keep", None) if keep_undecided else ("keep",)
    kept = [entry for entry in catalogue.entries if states.get(entry.hash, UNDECIDED).decision in wanted]
    if not kept:
        raise UserError("no picture is kept yet, so there is no set to write; keep some first")
    moved = any(group_of(entry, states.get(entry.hash, UNDECIDED)) != entry.group for entry in kept)
    with folder_aside(output_dir) as aside:
        writer = _Writer(aside, folders=catalogue.nested or moved)
        for entry in kept:
            writer.add(entry, states.get(entry.hash, UNDECIDED))
        if not writer.lineage:
            raise UserError(f"none of the {len(kept)} kept pictures can be read ({writer.skipped[0]}); nothing written")
        writer.finish()
        undecided = [e for e in catalogue.entries if states.get(e.hash, UNDECIDED).decision is None]
        left = 0 if keep_undecided else len(undecided)
        summary = {
            "schema_version": 1,
            "source": str(catalogue.source),
            "pictures": len(catalogue.entries),
            "kept": len(writer.lineage),
            "rejected": len(catalogue.entries) - len(kept) - left,
            "undecided": len(undecided),
            "corrected": len(writer.labels),
            "groups": dict(writer.groups),
            "counts": writer.counts,
            "skipped": writer.skipped,
        }
        (aside / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return Exported(output_dir, len(writer.lineage), dict(writer.groups), writer.counts, tuple(writer.skipped))


@dataclass
class _Writer:
    """Copies pictures below one folder and gathers what is said about them."""

    root: Path
    folders: bool
    lineage: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    labels: list[tuple[str, Label]] = field(default_factory=list[tuple[str, Label]])
    groups: Counter[str] = field(default_factory=Counter[str])
    skipped: list[str] = field(default_factory=list[str])
    _hashes: dict[str, list[tuple[Entry, str]]] = field(default_factory=dict[str, list[tuple[Entry, str]]])
    _metadata: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    _names: Names = field(default_factory=Names)
    _before: dict[Path, dict[str, dict[str, Any]]] = field(default_factory=dict[Path, dict[str, dict[str, Any]]])

    def add(self, entry: Entry, state: State) -> None:
        """Copy one picture and its caption; a picture that is gone or changed is noted instead."""
        try:
            data = read_bytes(entry.path)
        except ImageError as error:
            self.skipped.append(str(error))
            return
        if content_hash(data) != entry.hash:
            self.skipped.append(f"{entry.file}: has changed since it was decided on; start `onmodel curate` again")
            return
        group = group_of(entry, state)
        folder = self.root / group if self.folders else self.root
        folder.mkdir(exist_ok=True)
        target = folder / f"{self._names.free(entry.path.stem)}{entry.path.suffix}"
        target.write_bytes(data)
        caption = entry.row.caption
        if caption:
            target.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
        file = target.relative_to(self.root).as_posix()
        self.groups[group] += 1
        self.lineage.append(self._lineage(entry, state, file))
        self._hashes.setdefault(group if self.folders else "", []).append((entry, file))
        if self.folders and repeats_of(group)[0] is None:
            self._metadata.append({"file_name": file, "text": caption})
        label = _label(entry, state, file)
        if label is not None:
            self.labels.append((group if self.folders else "", label))

    def _lineage(self, entry: Entry, state: State, file: str) -> dict[str, Any]:
        if entry.dataset not in self._before:
            self._before[entry.dataset] = read_lineage(entry.dataset)
        before = self._before[entry.dataset].get(entry.row.file, {})
        row = {
            **before,
            "file": file,
            "hash": entry.hash,
            "dataset": str(entry.dataset.resolve()),
            "source": entry.file,
            "source_hash": entry.hash,
            "operation": "copy",
            "cluster": entry.group,
            "shot_type": shot_of(entry, state).value,
            "attributes": sorted(attributes_of(entry, state)),
            "repeats": entry.row.repeats,
            "caption": entry.row.caption,
        }
        return row if entry.similarity is None else {"identity": entry.similarity, **row}

    @property
    def counts(self) -> dict[str, int]:
        """Category -> pictures written."""
        shots = [frozenset({row["shot_type"]} - {ShotType.UNCLASSIFIED.value}) for row in self.lineage]
        return count_categories(
            shot | frozenset(row["attributes"]) for shot, row in zip(shots, self.lineage, strict=True)
        )

    def finish(self) -> None:
        """Write what belongs beside the pictures."""
        write_lineage(self.root, self.lineage)
        if self._metadata:
            _write_lines(self.root / METADATA, self._metadata)
        everything = [entry for members in self._hashes.values() for entry, _ in members]
        _write_facts(self.root, everything)
        if self.labels:
            write_labels(self.root, [label for _, label in self.labels])
        for group, members in self._hashes.items():
            if not group:
                continue
            _write_facts(self.root / group, [entry for entry, _ in members])
            own = [label for name, label in self.labels if name == group]
            if own:
                write_labels(self.root / group, [_below(group, label) for label in own])


def _below(group: str, label: Label) -> Label:
    return label.model_copy(update={"file": label.file.removeprefix(f"{group}/")})


def _label(entry: Entry, state: State, file: str) -> Label | None:
    """What a person said, now or in an earlier set; None where nothing was corrected."""
    given = entry.label
    shot = state.shot_type or (given.shot_type if given else None)
    attributes = state.attributes if state.attributes is not None else (given.attributes if given else None)
    if shot is None and attributes is None:
        return None
    return Label(file=file, hash=entry.hash, shot_type=shot, attributes=attributes)


def _write_facts(folder: Path, entries: Iterable[Entry]) -> None:
    """What is known of the pictures, under every model, so that analysing the set computes nothing."""
    known: dict[Path, Facts] = {}
    facts = Facts(folder / fact_files.FILE)
    for entry in entries:
        if entry.dataset not in known:
            known[entry.dataset] = Facts.open(entry.dataset)
        for model in known[entry.dataset].models:
            found = known[entry.dataset].get((entry.hash, *model))
            if found is not None:
                facts.put((entry.hash, *model), found)
    facts.save()


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
