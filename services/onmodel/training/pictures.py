"""The training set as a run sees it: contents, categories, and which pictures are held back."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash, write_text
from onmodel.dataset.folder import Picture
from onmodel.dataset.labels import labelled_categories
from onmodel.training.config import DataSection, TrainConfig
from onmodel.training.job import TrainingPicture
from onmodel.training.sources import hash_or_empty, training_pictures
from onmodel.training.stages import resolve_stages

RACY_NS = 2_000_000_000
"""A file changed so shortly before it was read may be changed again within the same tick of its clock."""


def load_pictures(config: TrainConfig, cache_dir: Path | None = None) -> list[TrainingPicture]:
    """The pictures that `config` names, with their categories where the dataset has been analysed.

    Args:
        cache_dir: where the hashes of files are kept, so that an unchanged set is not read again.

    Raises:
        UserError, NotFoundError: as `training_pictures`; or a stage's mix needs categories and nobody looked for them.
    """
    hashes = _Hashes(config.data, cache_dir)
    pictures = training_pictures(config, hashes, lambda found: hold_back(_categorised(found, config), config))
    hashes.save()
    return pictures


def _categorised(pictures: list[TrainingPicture], config: TrainConfig) -> list[TrainingPicture]:
    mixed = [stage.name for stage in resolve_stages(config) if stage.mix != "original"]
    if not mixed and not config.data.validation_split:
        return pictures
    source = config.data.source
    folder = source.parent if source.is_file() else source
    known = _known(folder, {picture.hash for picture in pictures if picture.hash})
    if known is None and mixed:
        raise UserError(
            f"{folder}: the mix of stage `{mixed[0]}` goes by what is in each picture, and the set, or some picture in "
            f"it, has not been analysed; run `onmodel analyze {source}` first"
        )
    return [replace(picture, categories=(known or {}).get(picture.hash, ())) for picture in pictures]


def _known(folder: Path, contents: set[str]) -> dict[str, tuple[str, ...]] | None:
    """Content hash -> categories: as a person labelled them, or else as an analysis found them."""
    known = labelled_categories(folder, contents)
    if known is None:
        # Here alone: it brings along what reads tables, which a set that is labelled whole has no need of.
        from onmodel.dataset.known import known_categories

        known = known_categories(folder, contents)
    return known


def hold_back(pictures: Sequence[TrainingPicture], config: TrainConfig) -> list[TrainingPicture]:
    """Keep `validation_split` of the pictures from training, spread evenly over the kinds there are.

    Contents that are there twice are held back together, or else the one would teach what the other tests.
    """
    split = config.data.validation_split
    if not split:
        return list(pictures)
    seed = config.validation_seed
    contents = {picture.hash: picture.categories for picture in pictures if picture.hash}
    row = sorted(contents, key=lambda content: (contents[content], content_hash(f"{seed} {content}".encode())))
    count = min(max(1, round(split * len(row))), len(row) - 1)
    kept = {row[int((number + 0.5) * len(row) / count)] for number in range(count)}
    return [replace(p, repeats=0, held_back=True) if p.hash in kept else p for p in pictures]


def dataset_hash(pictures: Iterable[TrainingPicture]) -> str:
    """Hash of what is trained on, in order: contents, masks, captions, repeats, categories, weights; not of paths."""
    keys = ("hash", "mask", "caption", "repeats", "variants", "categories", "weight", "is_reg")
    facts = [
        [*(getattr(picture, key) for key in keys), picture.flip_aug, picture.alpha_mask, asdict(picture.rules)]
        for picture in pictures
    ]
    return content_hash(json.dumps(facts).encode())


class _Hashes:
    """SHA-256 of pictures; that of a file that is as it was is known from the run before."""

    def __init__(self, data: DataSection, cache_dir: Path | None) -> None:
        places = f"{data.source.resolve()} {Path(data.reg_data_dir).resolve() if data.reg_data_dir else ''}"
        self._file = cache_dir / "hashes" / f"{content_hash(places.encode())[:32]}.json" if cache_dir else None
        self._known: dict[str, list[object]] = {}
        self._kept: dict[str, list[object]] = {}
        if self._file is not None:
            try:
                self._known = json.loads(self._file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self._known = {}

    def __call__(self, picture: Picture) -> str:
        """The hash; "" for a file that cannot be read, which the worker that decodes it reports."""
        try:
            state = picture.path.stat()
        except OSError:
            return ""
        seen = [state.st_size, state.st_mtime_ns]
        entry = self._known.get(str(picture.path))
        same = isinstance(entry, list) and entry[:2] == seen and len(entry) == 3
        found = str(entry[2]) if same and entry else hash_or_empty(picture)
        if found and time.time_ns() - state.st_mtime_ns > RACY_NS:
            self._kept[str(picture.path)] = [*seen, found]
        return found

    def save(self) -> None:
        """Keep them for the next run."""
        if self._file is not None and self._kept != self._known:
            write_text(self._file, json.dumps(self._kept, ensure_ascii=False))
