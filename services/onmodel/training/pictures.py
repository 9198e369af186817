"""The training set as a run sees it: contents, categories, and which pictures are held back."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash, write_text
from onmodel.dataset.folder import Dataset, Picture, load_dataset
from onmodel.dataset.known import known_categories
from onmodel.training.config import TrainConfig
from onmodel.training.job import TrainingPicture
from onmodel.training.stages import resolve_stages

RACY_NS = 2_000_000_000
"""A file changed so shortly before it was read may be changed again within the same tick of its clock."""


def load_pictures(config: TrainConfig, cache_dir: Path | None = None) -> list[TrainingPicture]:
    """The pictures of the dataset that `config` names, with their categories where it has been analysed.

    Args:
        cache_dir: where the hashes of files are kept, so that an unchanged set is not read again.

    Raises:
        UserError, NotFoundError: as `load_dataset`; or a stage's mix needs categories and nobody looked for them.
    """
    dataset = load_dataset(Path(config.data.train_data_dir))
    hashes = _hashes(dataset, cache_dir)
    pictures = [
        TrainingPicture(p.path.resolve(), p.caption, p.repeats, hashes[p.path], p.class_tokens, p.variants)
        for p in dataset.pictures
    ]
    mixed = [stage.name for stage in resolve_stages(config) if stage.mix != "original"]
    if mixed or config.data.validation_split:
        known = known_categories(dataset, [content for content in hashes.values() if content])
        if known is None and mixed:
            raise UserError(
                f"{dataset.path}: the mix of stage `{mixed[0]}` goes by what is in each picture, and the set, or some "
                f"picture in it, has not been analysed; run `onmodel analyze {config.data.train_data_dir}` first"
            )
        pictures = [replace(picture, categories=(known or {}).get(picture.hash, ())) for picture in pictures]
    return hold_back(pictures, config)


def hold_back(pictures: Sequence[TrainingPicture], config: TrainConfig) -> list[TrainingPicture]:
    """Keep `validation_split` of the pictures from training, spread evenly over the kinds there are.

    Contents that are there twice are held back together, or else the one would teach what the other tests.
    """
    split = config.data.validation_split
    if not split:
        return list(pictures)
    seed = config.training.seed if config.data.validation_seed is None else config.data.validation_seed
    contents = {picture.hash: picture.categories for picture in pictures if picture.hash}
    row = sorted(contents, key=lambda content: (contents[content], content_hash(f"{seed} {content}".encode())))
    count = min(max(1, round(split * len(row))), len(row) - 1)
    kept = {row[int((number + 0.5) * len(row) / count)] for number in range(count)}
    return [replace(p, repeats=0, held_back=True) if p.hash in kept else p for p in pictures]


def dataset_hash(pictures: Iterable[TrainingPicture]) -> str:
    """Hash of what is trained on: contents, captions, repeats and categories, in order; paths do not count."""
    facts = [[p.hash, p.caption, p.repeats, *p.variants, *p.categories] for p in pictures]
    return content_hash(json.dumps(facts).encode())


def _hashes(dataset: Dataset, cache_dir: Path | None) -> dict[Path, str]:
    """SHA-256 of each picture; "" for one that cannot be read, which the worker that decodes it reports."""
    if cache_dir is None:
        return {picture.path: _hash_or_empty(picture) for picture in dataset.pictures}
    file = cache_dir / "hashes" / f"{content_hash(str(dataset.path.resolve()).encode())[:32]}.json"
    try:
        known: dict[str, list[object]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found: dict[Path, str] = {}
    kept: dict[str, list[object]] = {}
    for picture in dataset.pictures:
        name = dataset.relative(picture)
        try:
            state = picture.path.stat()
        except OSError:
            found[picture.path] = ""
            continue
        seen = [state.st_size, state.st_mtime_ns]
        entry = known.get(name)
        same = isinstance(entry, list) and entry[:2] == seen and len(entry) == 3
        found[picture.path] = str(entry[2]) if same and entry else _hash_or_empty(picture)
        if found[picture.path] and time.time_ns() - state.st_mtime_ns > RACY_NS:
            kept[name] = [*seen, found[picture.path]]
    if kept != known:
        write_text(file, json.dumps(kept, ensure_ascii=False))
    return found


def _hash_or_empty(picture: Picture) -> str:
    try:
        return picture.hash
    except ImageError:
        return ""
