"""Where does a file come from? Back from a picture, checkpoint or figure to data, settings, code version and seeds.

Everything is read from what OnModel wrote beside and into its files: PNG text, checkpoint metadata, a trial's config
and dataset list, `lineage.jsonl` of derived datasets. Hashes that were written down are compared with the files that
lie there now. What cannot be traced, or is no longer what it was, is said where it stands.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from onmodel.core.config import Config, read_mapping
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import file_hash
from onmodel.core.images import SUFFIXES
from onmodel.dataset.derived import LINEAGE, read_lineage
from onmodel.evaluation.trial import CONFIG_FILE, DATASET_FILE, metadata_of

DEEPEST = 12
"""Steps back that are followed: sets derived from sets derived from sets."""
ORIGIN = ("prompt", "negative_prompt", "seed", "noise_seed", "steps", "guidance_scale", "sampler", "width", "height")


class Node(Config):
    """One thing in a lineage, what is known of it, and what it was made from."""

    kind: str
    """"test picture", "checkpoint", "training set", …"""
    name: str
    facts: dict[str, str] = Field(default_factory=dict)
    untraced: tuple[str, ...] = ()
    """What could not be followed, or is no longer what it was; one sentence each."""
    sources: tuple["Node", ...] = ()

    def every_untraced(self) -> list[str]:
        """What could not be followed anywhere below, this one's first."""
        return [*self.untraced, *(line for source in self.sources for line in source.every_untraced())]


def explain(path: Path) -> Node:
    """The lineage of a test picture, a checkpoint, a dataset's picture, or a JSON file of figures.

    Raises:
        NotFoundError: no such file.
        UserError: a file of a kind that has no lineage.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; check the path")
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder(path)
    if suffix in SUFFIXES:
        return _picture(path, 0)
    if suffix == ".safetensors":
        return _checkpoint(path)
    if suffix == ".json":
        return _figures(path)
    raise UserError(
        f"{path}: nothing is known of such files; give a picture, a .safetensors checkpoint, a dataset or trial "
        "folder, or a JSON file of evaluate or compare"
    )


def _folder(path: Path) -> Node:
    if (path / DATASET_FILE).is_file() or any(path.glob("*.safetensors")):
        from onmodel.evaluation.trial import open_trial

        return _checkpoint(open_trial(path, base="unknown").checkpoint)
    return _dataset(path, 0)


# Pictures


def _picture(path: Path, depth: int) -> Node:
    from onmodel.evaluation.origin import key_of, read_origin

    origin = read_origin(path)
    if origin is None:
        return _of_dataset(path, depth)
    facts = {name.replace("_", " "): str(origin[name]) for name in ORIGIN if origin.get(name) not in (None, "")}
    untraced: list[str] = []
    if key_of(origin) != origin.get("key"):
        untraced.append("its text does not fit the key that was written with it: it was edited")
    sources = [_base(str(origin.get("base")), str(origin.get("base_hash", "")), origin.get("vae"))]
    name, wanted = origin.get("lora"), origin.get("lora_hash")
    if name:
        facts["LoRA scale"] = str(origin.get("scale"))
        sources.append(_named_checkpoint(path, str(name), str(wanted)))
    facts["onmodel"] = str(origin.get("onmodel", "unknown"))
    return Node(kind="test picture", name=str(path), facts=facts, untraced=tuple(untraced), sources=tuple(sources))


def _named_checkpoint(picture: Path, name: str, wanted: str) -> Node:
    """The checkpoint `name` of a picture below a trial's evaluation folder, if it still is the one."""
    places = [folder / name for folder in list(picture.resolve().parents)[:4]]
    found = next((p for p in places if p.is_file()), None)
    if found is None:
        lost = f"it lies in none of the folders above the picture; its SHA-256 was {wanted}"
        return Node(kind="checkpoint", name=name, untraced=(lost,))
    if file_hash(found) != wanted:
        changed = f"{found} is another file by now than the one that drew the picture (SHA-256 {wanted})"
        return Node(kind="checkpoint", name=name, untraced=(changed,))
    return _checkpoint(found)


def _of_dataset(path: Path, depth: int) -> Node:
    """A picture without text of ours: by the `lineage.jsonl` of a folder above it."""
    where = path.resolve()
    for folder in list(where.parents)[:4]:
        if (folder / LINEAGE).is_file():
            row = read_lineage(folder).get(where.relative_to(folder).as_posix())
            if row is not None:
                return _derived(path, folder, row, depth)
    facts = {"SHA-256": file_hash(path)}
    unknown = "nothing was written down about where it comes from: an original, or made by something else"
    return Node(kind="picture", name=str(path), facts=facts, untraced=(unknown,))


def _derived(path: Path, folder: Path, row: Mapping[str, Any], depth: int) -> Node:
    """One picture of a derived set, by its line of lineage."""
    shown = ("operation", "synthetic", "cluster", "shot_type", "caption", "box", "made")
    facts = {name.replace("_", " "): _text(row[name]) for name in shown if row.get(name) not in (None, False)}
    untraced: list[str] = []
    if row.get("hash") and path.is_file() and file_hash(path) != row["hash"]:
        untraced.append("the file was changed since the set was made")
    sources: list[Node] = []
    if row.get("film") and not row.get("dataset"):
        sources.append(_film(row))
    elif row.get("source"):
        sources.append(_source(folder, row, str(row["source"]), row.get("source_hash"), depth))
    for part, value in (row.get("parts") or {}).items():
        if value and value.get("hash") != row.get("source_hash"):
            sources.append(_source(folder, row, str(value["file"]), value.get("hash"), depth, part))
    return Node(kind="dataset picture", name=str(path), facts=facts, untraced=tuple(untraced), sources=tuple(sources))


def _film(row: Mapping[str, Any]) -> Node:
    at = f"{float(row.get('time_s', 0)):.2f} s"
    facts = {"at": at, "shot": str(row.get("shot")), "SHA-256": _text(row.get("film_hash"))}
    return Node(kind="film", name=str(row["film"]), facts=facts)


def _source(folder: Path, row: Mapping[str, Any], name: str, wanted: Any, depth: int, part: str = "") -> Node:
    kind = f"{part} from" if part else "source"
    root = Path(str(row["dataset"])) if row.get("dataset") else folder
    found = root / name
    facts = {"SHA-256": str(wanted)} if wanted else {}
    if depth >= DEEPEST:
        return Node(kind=kind, name=name, facts=facts, untraced=("not followed any further",))
    if not row.get("dataset") and not Path(name).is_absolute():
        return Node(kind=kind, name=name, facts=facts, untraced=("which folder it lay in was not written down",))
    if not found.is_file():
        return Node(kind=kind, name=str(found), facts=facts, untraced=("the file is no longer there",))
    if wanted and file_hash(found) != wanted:
        return Node(kind=kind, name=str(found), facts=facts, untraced=("the file was changed since",))
    node = _of_dataset(found, depth + 1)
    return node.model_copy(update={"kind": f"{kind}: {node.kind}" if part else node.kind})


# Models


def _base(name: str, wanted: str, vae: str | None = None) -> Node:
    from onmodel.evaluation.origin import fingerprint

    facts = ({"fingerprint": wanted} if wanted else {}) | ({"autoencoder": vae} if vae else {})
    if name != "toybox" and not Path(name).exists():
        return Node(kind="base model", name=name, facts=facts, untraced=("its files are not on this machine",))
    if wanted and fingerprint(name, vae) != wanted:
        return Node(kind="base model", name=name, facts=facts, untraced=("its files are others by now",))
    return Node(kind="base model", name=name, facts=facts)


_METADATA = {
    "ss_epoch": "epoch",
    "ss_steps": "step",
    "ss_onmodel_stage": "stage",
    "ss_seed": "seed",
    "ss_network_dim": "network dim",
    "ss_network_alpha": "network alpha",
    "ss_learning_rate": "learning rate",
    "ss_optimizer": "optimizer",
    "ss_onmodel_version": "onmodel",
    "ss_python_version": "python",
}


def _checkpoint(path: Path) -> Node:
    metadata = metadata_of(path)
    facts = {label: metadata[key] for key, label in _METADATA.items() if metadata.get(key) not in (None, "", "None")}
    for key, label in (("ss_training_started_at", "started"), ("ss_training_finished_at", "written")):
        facts |= _when(metadata.get(key), label)
    facts["SHA-256"] = file_hash(path)
    untraced: list[str] = []
    if "ss_onmodel_version" not in metadata:
        untraced.append("its metadata does not say that OnModel trained it")
    folder = path.resolve().parent
    sources: list[Node] = []
    config: Mapping[str, Any] = {}
    if (folder / CONFIG_FILE).is_file():
        config = read_mapping(folder / CONFIG_FILE)
        sources.append(
            Node(kind="training config", name=str(folder / CONFIG_FILE), facts=_config_facts(folder / CONFIG_FILE))
        )
    else:
        untraced.append(f"no {CONFIG_FILE} lies beside it, so what else it was trained with is in its metadata alone")
    base = config.get("model", {}).get("pretrained_model_name_or_path") or metadata.get("ss_sd_model_name")
    model = _base(str(base), "") if base else Node(kind="base model", name="unknown", untraced=("it is not named",))
    if metadata.get("ss_new_sd_model_hash"):
        model = model.model_copy(update={"facts": {"hash of its weights": metadata["ss_new_sd_model_hash"]}})
    sources.append(model)
    started_from = config.get("network", {}).get("network_weights")
    if started_from:
        sources.append(_started_from(Path(str(started_from))))
    sources.append(_training_set(folder / DATASET_FILE, metadata))
    return Node(kind="checkpoint", name=str(path), facts=facts, untraced=tuple(untraced), sources=tuple(sources))


def _when(seconds: str | None, label: str) -> dict[str, str]:
    try:
        return {label: datetime.fromtimestamp(float(seconds or ""), UTC).isoformat(timespec="seconds")}
    except ValueError:
        return {}


def _config_facts(path: Path) -> dict[str, str]:
    config = read_mapping(path)
    seed = config.get("training", {}).get("seed")
    return {"SHA-256": file_hash(path)} | ({} if seed is None else {"seed": str(seed)})


def _started_from(path: Path) -> Node:
    if path.is_file():
        return _checkpoint(path)
    gone = "the LoRA that training started from is no longer there"
    return Node(kind="checkpoint", name=str(path), untraced=(gone,))


# Data


def _training_set(path: Path, metadata: Mapping[str, str]) -> Node:
    if not path.is_file():
        gone = f"no {DATASET_FILE} lies beside the checkpoint: which pictures it was trained on is not known"
        folders = metadata.get("ss_dataset_dirs", "unknown")
        return Node(kind="training set", name=folders, untraced=(gone,))
    value = read_mapping(path)
    rows: Sequence[Mapping[str, Any]] = value.get("pictures", ())
    known = [row for row in rows if row.get("path") and row.get("hash")]
    missing = [row for row in known if not (path.parent / row["path"]).is_file()]
    changed = [row for row in known if row not in missing and file_hash(path.parent / str(row["path"])) != row["hash"]]
    untraced = [
        f"{len(those)} of its {len(rows)} pictures {what}, as {those[0]['path']}"
        for those, what in ((missing, "are no longer there"), (changed, "were changed since"))
        if those
    ]
    facts = {"pictures": str(len(rows)), "hash of the set": _text(value.get("dataset_hash"))}
    folder = value.get("path")
    sources = (_dataset(Path(str(folder)), 0),) if folder else ()
    return Node(kind="training set", name=str(path), facts=facts, untraced=tuple(untraced), sources=sources)


def _dataset(folder: Path, depth: int) -> Node:
    """A dataset folder as a whole: what was done to make it, and the sets and films it was made from."""
    if not folder.is_dir():
        return Node(kind="dataset", name=str(folder), untraced=("the folder is no longer there",))
    rows = list(read_lineage(folder).values())
    if not rows:
        none = f"no {LINEAGE} lies in it: its pictures are originals, or nothing was written down"
        return Node(kind="dataset", name=str(folder), untraced=(none,))
    counts = Counter(str(row.get("operation") or ("frame" if row.get("film") else "copy")) for row in rows)
    facts = {"pictures": str(len(rows)), "made by": ", ".join(f"{name} ({n})" for name, n in counts.most_common())}
    films = Counter((str(row["film"]), _text(row.get("film_hash"))) for row in rows if row.get("film"))
    sources = [
        Node(kind="film", name=name, facts={"pictures": str(n), "SHA-256": content})
        for (name, content), n in sorted(films.items())
    ]
    sets = dict.fromkeys(str(row["dataset"]) for row in rows if row.get("dataset"))
    untraced: tuple[str, ...] = ()
    if depth >= DEEPEST:
        untraced = ("not followed any further",) if sets else ()
    else:
        sources += [_dataset(Path(name), depth + 1) for name in sets]
    return Node(kind="dataset", name=str(folder), facts=facts, untraced=untraced, sources=tuple(sources))


# Figures


def _figures(path: Path) -> Node:
    value = read_mapping(path)
    if "evaluations" in value and "models" in value:
        nodes = tuple(_evaluation(path, row) for row in value["evaluations"])
        return Node(kind="comparison", name=str(path), facts={"suite": _text(value.get("suite"))}, sources=nodes)
    if "candidates" in value and "recommended" in value:
        return _choice(path, value)
    if "checkpoint_hash" in value and "scenarios" in value:
        return _evaluation(path, value)
    raise UserError(f"{path}: no evaluation.json, choice.json or comparison of OnModel; give one of these")


def _choice(path: Path, value: Mapping[str, Any]) -> Node:
    facts = {"suite": _text(value.get("suite")), "reason": _text(value.get("reason"))}
    sources = [_beside(Path(str(value["trial_folder"])), str(row["checkpoint"])) for row in value["candidates"]]
    unique = {node.name: node for node in sources}
    return Node(kind="choice", name=str(path), facts=facts, sources=tuple(unique.values()))


def _evaluation(path: Path, value: Mapping[str, Any]) -> Node:
    shown = {"suite": "suite", "seeds": "seeds", "steps": "steps", "guidance_scale": "guidance", "scale": "LoRA scale",
             "measured_with": "detector and scorer", "onmodel_version": "onmodel"}  # fmt: skip
    facts = {label: _text(value[key]) for key, label in shown.items() if value.get(key) is not None}
    facts["pictures"] = str(len(value.get("pictures", ())))
    calibration: Mapping[str, Any] = value.get("calibration") or {}
    if calibration:
        facts["references"] = f"{calibration.get('references')} {calibration.get('reference_source')}"
        facts["strangers"] = f"{calibration.get('impostors')} from {calibration.get('impostor_source')}"
    name, wanted = str(value["checkpoint"]), str(value["checkpoint_hash"])
    node = _beside(Path(str(value.get("trial_folder", path.resolve().parents[1]))), name, wanted)
    base = _base(str(value.get("base")), str(value.get("base_hash", "")), value.get("vae"))
    title = f"{path}, {value.get('trial')}" if path.name != "evaluation.json" else str(path)
    return Node(kind="evaluation", name=title, facts=facts, sources=(base, node))


def _beside(folder: Path, name: str, wanted: str = "") -> Node:
    """A trial's checkpoint by file name, with its hash where one was written down."""
    file = folder / name
    if not file.is_file():
        lost = f"it is no longer there{f'; its SHA-256 was {wanted}' if wanted else ''}"
        return Node(kind="checkpoint", name=str(file), untraced=(lost,))
    if wanted and file_hash(file) != wanted:
        changed = f"it is another file by now than the one that was measured (SHA-256 {wanted})"
        return Node(kind="checkpoint", name=str(file), untraced=(changed,))
    return _checkpoint(file)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
