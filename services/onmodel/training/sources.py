"""The pictures of a trial as its config names them: from folders or a dataset TOML, with those for regularisation.

Decides for each picture how its captions vary, how much it counts and whether it is mirrored; reads no pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from onmodel.core.config import validate
from onmodel.core.errors import ImageError, UserError
from onmodel.dataset.folder import METADATA, Picture, Subset, load_dataset, load_subsets, metadata_rows, with_captions
from onmodel.training import captions
from onmodel.training.config import TrainConfig, keep_quiet
from onmodel.training.job import CaptionRules, TrainingPicture
from onmodel.training.sdscripts_keys import without_foreign
from onmodel.training.section import Section

HashOf = Callable[[Picture], str]
Judge = Callable[[list[TrainingPicture]], list[TrainingPicture]]

WEIGHT = "loss_weight"
"""Key of metadata.jsonl, or of a subset: how much a picture's loss counts."""


class SubsetOptions(Section):
    """The keys of a dataset TOML's subset, its dataset and `[general]`. Absent ones are as the training config says."""

    image_dir: str
    num_repeats: int = Field(default=1, ge=0)
    class_tokens: str | None = None
    is_reg: bool = False
    loss_weight: float = Field(default=1.0, ge=0)
    caption_extension: str | None = None
    caption_prefix: str | None = None
    caption_suffix: str | None = None
    shuffle_caption: bool | None = None
    keep_tokens: int | None = Field(default=None, ge=0)
    keep_tokens_separator: str | None = None
    caption_separator: str | None = None
    caption_dropout_rate: float | None = Field(default=None, ge=0, le=1)
    caption_dropout_every_n_epochs: int | None = Field(default=None, ge=0)
    caption_tag_dropout_rate: float | None = Field(default=None, ge=0, le=1)
    enable_wildcard: bool | None = None
    flip_aug: bool | None = None
    alpha_mask: bool | None = None
    custom_attributes: dict[str, Any] | None = None
    """sd-scripts' place for keys of one's own; `loss_weight` is read from it too."""
    # Of the dataset; `with_dataset_config` takes them into the training config.
    resolution: int | list[int] | None = None
    batch_size: int | None = Field(default=None, ge=1)
    enable_bucket: bool | None = None
    min_bucket_reso: int | None = None
    max_bucket_reso: int | None = None
    bucket_reso_steps: int | None = None
    validation_split: float | None = Field(default=None, ge=0, lt=1)
    validation_seed: int | None = None
    prior_loss_weight: float | None = None
    network_multiplier: float = Field(default=1.0, ge=1, le=1)


_OF_DATASET = (
    "resolution",
    "enable_bucket",
    "min_bucket_reso",
    "max_bucket_reso",
    "bucket_reso_steps",
    "validation_split",
    "validation_seed",
    "prior_loss_weight",
)
_OF_CAPTIONS = (
    "shuffle_caption",
    "keep_tokens",
    "keep_tokens_separator",
    "caption_separator",
    "caption_dropout_rate",
    "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate",
    "enable_wildcard",
)


def with_dataset_config(config: TrainConfig, say: Callable[[str], None] = keep_quiet) -> TrainConfig:
    """`config` with what its dataset TOML says about sizes, batches and validation; it goes before the config's own.

    Args:
        say: gets a sentence about keys that have no effect, where there are some.

    Raises:
        UserError: datasets that differ in these, which one run cannot have; a value that the config refuses.
    """
    if config.data.dataset_config is None:
        return config
    source = Path(config.data.dataset_config)
    every = [options for options, _ in _subsets(source, say)]
    changes: dict[str, dict[str, Any]] = {"data": {}, "training": {}}
    for key in (*_OF_DATASET, "batch_size"):
        values = [getattr(options, key) for options in every if getattr(options, key) is not None]
        if not values:
            continue
        if len(values) < len(every) or any(value != values[0] for value in values):
            raise UserError(
                f"{source}: its datasets differ in `{key}`; all pictures of a run share it, so give one value"
            )
        section, name = ("training", "train_batch_size") if key == "batch_size" else ("data", key)
        changes[section][name] = values[0]
    return config.with_changes(**changes)


def hash_or_empty(picture: Picture) -> str:
    """A file that cannot be read gets no hash here; the worker that decodes it reports it."""
    try:
        return picture.hash
    except ImageError:
        return ""


def training_pictures(
    config: TrainConfig, hash_of: HashOf = hash_or_empty, judge: Judge = lambda pictures: pictures
) -> list[TrainingPicture]:
    """All pictures of the trial, those to train on first, each in the order of its dataset.

    Args:
        hash_of: the content hash of a picture.
        judge: gets the pictures to train on alone, and says which of them are held back and what is in them.

    Raises:
        UserError, NotFoundError: as `load_dataset`; a wrong key in a dataset TOML or a wrong weight in metadata.jsonl.
    """
    data = config.data
    if data.dataset_config is not None:
        found, regular = _of_toml(config, Path(data.dataset_config), hash_of)
    else:
        found = _of_folder(config, Path(data.train_data_dir or ""), hash_of)
        regular = _of_folder(config, Path(data.reg_data_dir), hash_of) if data.reg_data_dir else []
    if not found:
        raise UserError(f"{data.source}: holds regularisation pictures alone; add the pictures to train on")
    found = judge(found)
    shown = sum(picture.repeats for picture in found)
    counts = regular_repeats([picture.repeats for picture in regular], shown)
    regular = [
        replace(picture, repeats=count, is_reg=True, weight=picture.weight * data.prior_loss_weight)
        for picture, count in zip(regular, counts, strict=True)
        if count
    ]
    return [_with_pool(picture, config) for picture in (*found, *regular)]


def regular_repeats(repeats: Sequence[int], shown: int) -> list[int]:
    """How often each regularisation picture is shown, so that all are shown about `shown` times together.

    As in sd-scripts: each its own repeats in turn, then each once more in turn, until `shown` is reached.
    """
    counts = [0] * len(repeats)
    total, first = 0, True
    while total < shown and repeats:
        for index, own in enumerate(repeats):
            more = own if first else 1
            counts[index] += more
            total += more
            if total >= shown:
                break
        first = False
    return counts


def _of_folder(config: TrainConfig, folder: Path, hash_of: HashOf) -> list[TrainingPicture]:
    data = config.data
    found = load_dataset(folder)
    weights = _weights(found.path, {picture.path.parent for picture in found.pictures})
    rules = CaptionRules.of(data)
    pictures: list[TrainingPicture] = []
    for plain in found.pictures:
        picture = with_captions(plain, data.caption_extension)
        lines = _framed((picture.caption or picture.class_tokens or "", *picture.variants), config)
        pictures.append(
            replace(
                _training_picture(picture, lines, hash_of(picture)),
                rules=rules,
                weight=weights.get(picture.path, 1.0),
                flip_aug=data.flip_aug,
                alpha_mask=data.alpha_mask,
            )
        )
    return pictures


def _of_toml(config: TrainConfig, source: Path, hash_of: HashOf) -> tuple[list[TrainingPicture], list[TrainingPicture]]:
    """Pictures to train on, and regularisation pictures."""
    data = config.data
    sides: tuple[list[TrainingPicture], list[TrainingPicture]] = ([], [])
    for options, subset in _subsets(source):
        given = {key: getattr(options, key) for key in _OF_CAPTIONS if getattr(options, key) is not None}
        rules = replace(CaptionRules.of(data), **given)
        own = float((options.custom_attributes or {}).get(WEIGHT, options.loss_weight))
        weights = _weights(source.parent, {picture.path.parent for picture in subset.pictures})
        for picture in subset.pictures:
            lines = (picture.caption, *picture.variants)
            if options.caption_prefix is None and options.caption_suffix is None:
                lines = _framed(lines, config)
            sides[options.is_reg].append(
                replace(
                    _training_picture(picture, lines, hash_of(picture)),
                    rules=rules,
                    weight=own * weights.get(picture.path, 1.0),
                    flip_aug=data.flip_aug if options.flip_aug is None else options.flip_aug,
                    alpha_mask=data.alpha_mask if options.alpha_mask is None else options.alpha_mask,
                )
            )
    return sides


def _subsets(source: Path, say: Callable[[str], None] = keep_quiet) -> list[tuple[SubsetOptions, Subset]]:
    """Each subset with its checked options; keys without effect are said once."""
    found: list[tuple[SubsetOptions, Subset]] = []
    notes: dict[str, None] = {}
    for subset in load_subsets(source):
        options, idle = without_foreign(subset.options, SubsetOptions, str(source))
        notes |= dict.fromkeys(idle)
        found.append((validate(SubsetOptions, options, f"{source}: subset {subset.options['image_dir']}"), subset))
    if notes:
        say(f"{source}: no effect here: {'; '.join(notes)}")
    return found


def _framed(lines: Iterable[str], config: TrainConfig) -> tuple[str, ...]:
    prefix, suffix = config.data.caption_prefix, config.data.caption_suffix
    return tuple(" ".join(part for part in (prefix, line, suffix) if part) for line in lines)


def _training_picture(picture: Picture, lines: tuple[str, ...], content: str) -> TrainingPicture:
    return TrainingPicture(picture.path.resolve(), lines[0], picture.repeats, content, picture.class_tokens, lines[1:])


def _weights(root: Path, folders: set[Path]) -> dict[Path, float]:
    """Loss weights by picture, from the metadata.jsonl of a dataset and of its folders."""
    found: dict[Path, float] = {}
    for file in sorted({folder / METADATA for folder in (root, *folders)}):
        for row in metadata_rows(file) if file.is_file() else ():
            if WEIGHT not in row:
                continue
            value = row[WEIGHT]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise UserError(f"{file}: `{WEIGHT}` of {row['file_name']} is {value!r}; it must be a number from 0 up")
            found[file.parent / row["file_name"]] = float(value)
    return found


def _with_pool(picture: TrainingPicture, config: TrainConfig) -> TrainingPicture:
    """The picture with all captions that are encoded beforehand; none where the text encoder reads them anew."""
    if config.network.trains_text:
        return picture
    if picture.held_back:
        return replace(picture, pool=(picture.plain_caption,))
    lines = (picture.caption, *picture.variants)
    tags = config.data.caption_tag_dropout_rate
    made = captions.pool(lines, picture.rules, tags, config.data.caption_variants, config.training.seed)
    return replace(picture, pool=made if made != lines else ())
