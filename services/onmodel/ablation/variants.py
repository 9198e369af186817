"""The training configs that an ablation file makes: checked against the base and each other before anything starts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onmodel.ablation.config import (
    BASE,
    LOSSES,
    SECTIONS,
    AblationConfig,
    Choices,
    Range,
    VariantSection,
)
from onmodel.core.config import validate
from onmodel.core.errors import NotFoundError, UserError
from onmodel.training.config import TrainConfig, keep_quiet, load_train_config
from onmodel.training.run import with_epochs
from onmodel.training.sources import with_dataset_config

Overrides = Mapping[str, Any]
"""Changed values by `<table>.<key>`."""

SAME_DATA: tuple[str, ...] = (
    "data.train_data_dir",
    "data.dataset_config",
    "data.caption_extension",
    "data.validation_split",
    "data.validation_seed",
    "training.seed",
)
"""Keys that decide which pictures and captions are trained on, which are held back, and every random draw."""


@dataclass(frozen=True)
class Variant:
    """One trial of an ablation."""

    name: str
    overrides: dict[str, Any]
    """What it changes, by `<table>.<key>`; empty for the base."""
    config: TrainConfig
    """The whole of it; its trial folder is its own."""


@dataclass(frozen=True)
class Ablation:
    """An ablation file with everything that follows from it."""

    settings: AblationConfig
    base: TrainConfig
    variants: tuple[Variant, ...]
    """In the file's order, the base before them where it is trained too; of a search, those sampled beforehand."""

    @property
    def folder(self) -> Path:
        """Holds the comparison and what is kept of each variant."""
        return Path(self.base.training.output_dir) / self.settings.ablation.name


def make_ablation(path: Path, settings: AblationConfig, epochs: int | None = None) -> Ablation:
    """Everything that `settings`, read from `path`, asks for.

    Args:
        epochs: trained by every variant, in place of what base and variants say.

    Raises:
        NotFoundError: no such base config.
        UserError: a variant with an unknown key or a wrong value, equal to the base or to another one, or on other
            data where that is not allowed.
    """
    file = path.parent / settings.base
    if not file.is_file():
        raise NotFoundError(f"{path}: `base` {settings.base}: no such file ({file}); it is relative to the ablation")
    base = with_dataset_config(load_train_config(file, keep_quiet))
    if settings.ablation.output_dir is not None:
        base = base.with_changes(training={"output_dir": settings.ablation.output_dir})
    if epochs is not None:
        if base.stage:
            raise UserError(f"{path}: --epochs {epochs}: the base has stages, which say their epochs themselves")
        base = with_epochs(base, epochs, None)
    if settings.search is not None:
        _check_search(path, settings, base)
        variants = samples(path, settings, base)
    else:
        made = [_of_file(path, settings, base, each, epochs) for each in settings.variant]
        variants = [*([_named(settings, base, BASE, {})] if settings.ablation.include_base else []), *made]
    _check_distinct(path, base, variants)
    return Ablation(settings, base, tuple(variants))


def _of_file(
    path: Path, settings: AblationConfig, base: TrainConfig, section: VariantSection, epochs: int | None
) -> Variant:
    overrides = {f"{table}.{key}": value for table in SECTIONS for key, value in getattr(section, table).items()}
    if section.stage is not None:
        overrides["stage"] = section.stage
    if epochs is not None:
        overrides = {key: v for key, v in overrides.items() if key.rpartition(".")[2] not in _LENGTH}
    return make_variant(path, settings, base, section.name, overrides)


_LENGTH = ("max_train_epochs", "max_train_steps")


def make_variant(path: Path, settings: AblationConfig, base: TrainConfig, name: str, overrides: Overrides) -> Variant:
    """The base with some keys changed, as a trial called `<ablation>_<name>`. Raises UserError."""
    value = base.model_dump()
    for key, changed in overrides.items():
        section, _, name_of_key = key.partition(".")
        if not name_of_key:
            value[section] = changed
            continue
        value[section][name_of_key] = changed
        if name_of_key == "max_train_epochs":
            value[section]["max_train_steps"] = None
    config = validate(TrainConfig, value, f"{path}: variant `{name}`")
    other = [key for key in SAME_DATA if key in overrides and _at(config, key) != _at(base, key)]
    if other and not settings.ablation.allow_different_data:
        raise UserError(
            f"{path}: variant `{name}` changes `{other[0]}`, so it would differ from the others by its data or seed "
            "besides; remove it, or write `allow_different_data = true` in [ablation] to compare them all the same"
        )
    return _named(settings, config, name, overrides)


def _named(settings: AblationConfig, config: TrainConfig, name: str, overrides: Overrides) -> Variant:
    called = config.with_changes(training={"output_name": f"{settings.ablation.name}_{name}"})
    return Variant(name, dict(overrides), called)


def _at(config: TrainConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _check_distinct(path: Path, base: TrainConfig, variants: Sequence[Variant]) -> None:
    known: dict[str, str] = {_identity(base): BASE}
    for variant in variants:
        if variant.name == BASE:
            continue
        same = known.setdefault(_identity(variant.config), variant.name)
        if same == BASE:
            raise UserError(
                f"{path}: variant `{variant.name}` is the base itself: nothing that it changes decides the weights; "
                "change something, or remove it"
            )
        if same != variant.name:
            raise UserError(f"{path}: variants `{same}` and `{variant.name}` are the same; remove one of them")


def _identity(config: TrainConfig) -> str:
    """Differs where the weights may: also by the data, which `TrainConfig.identity` leaves to the dataset's hash."""
    data = config.data
    sources = (data.train_data_dir, data.dataset_config, data.reg_data_dir, data.conditioning_data_dir)
    return f"{config.identity} {sources}"


def samples(path: Path, settings: AblationConfig, base: TrainConfig) -> list[Variant]:
    """The samples of a random search: the same ones whenever it is run, none of them twice.

    Raises:
        UserError: an unknown key, a value that the config refuses, or fewer different samples than asked for.
    """
    search = settings.search
    assert search is not None
    rng = np.random.default_rng(search.seed)
    found: dict[str, Variant] = {}
    # Sampling with repetition finds the rare last combinations late; so many tries find them all but surely.
    for _ in range(50 * search.samples):
        if len(found) == search.samples:
            break
        overrides = {key: draw(values, rng) for key, values in search.parameters.items()}
        variant = make_variant(path, settings, base, f"s{len(found) + 1:03d}", overrides)
        if _identity(variant.config) != _identity(base):
            found.setdefault(_identity(variant.config), variant)
    if len(found) < search.samples:
        raise UserError(
            f"{path}: `search.parameters` hold {len(found)} different samples beside the base and "
            f"`search.samples` asks for {search.samples}; lower it, or widen a range"
        )
    return list(found.values())


def draw(values: Range | Choices, rng: np.random.Generator) -> Any:
    """One value; ranges are rounded to three significant digits, which are what a person would write."""
    if not isinstance(values, Range):
        return values[int(rng.integers(len(values)))]
    low, high = float(values.min), float(values.max)
    number = math.exp(rng.uniform(math.log(low), math.log(high))) if values.log else rng.uniform(low, high)
    if values.whole:
        return min(int(values.max), max(int(values.min), round(number)))
    return min(high, max(low, float(f"{number:.3g}")))


def epochs_of(config: TrainConfig) -> int | None:
    """Epochs of a run without stages; None where it has stages or is as long as its steps say."""
    return None if config.stage else config.training.max_train_epochs


def _check_search(path: Path, settings: AblationConfig, base: TrainConfig) -> None:
    """Whether samples can be compared on the way. Raises UserError."""
    search = settings.search
    assert search is not None
    epochs = epochs_of(base)
    if epochs is None:
        raise UserError(
            f"{path}: a search compares samples after so many epochs, and the base has stages or `max_train_steps`; "
            "give a base with `max_train_epochs`"
        )
    if any(key.rpartition(".")[2] in _LENGTH for key in search.parameters):
        raise UserError(f"{path}: `search.parameters`: samples of other lengths cannot be compared on the way")
    if search.first_rung > epochs:
        raise UserError(
            f"{path}: `search.first_rung` {search.first_rung} lies beyond the {epochs} epochs of a sample; lower it"
        )
    if settings.ablation.num_workers > 1:
        raise UserError(f"{path}: a search trains each sample with one worker, many at once; remove `num_workers`")
    if search.metric == LOSSES[0] and not base.data.validation_split:
        raise UserError(
            f"{path}: `search.metric` {search.metric}: no pictures are held back; set `validation_split` in [data] "
            f"of {settings.base}"
        )


def shown(overrides: Overrides) -> str:
    """Overrides in a line: `network_dim 128, learning_rate 4e-05`."""
    return ", ".join(f"{key.rpartition('.')[2]} {_shown(value)}" for key, value in overrides.items()) or "–"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(str(each) if not isinstance(each, dict) else str(each.get("name")) for each in value)
    return str(value)
