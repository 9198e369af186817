"""What the experiment of docs/experiment.md consists of: units, trials, where their files lie, how each is trained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import Field

from onmodel.core.config import Config, load, validate
from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.core.vocabulary import CATEGORIES
from onmodel.evaluation.suite import Prompt, TestSuite, load_suite
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.models import MODEL_SIDE
from onmodel.training.config import TrainConfig
from onmodel.training.mix import MAX_REPEATS, solve_mix

Strategy = Literal["baseline", "a", "b", "c", "d", "b_d"]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
TITLES: Final[dict[str, str]] = {
    "baseline": "baseline", "a": "A", "b": "B", "c": "C", "d": "D", "b_d": "B + D",
}  # fmt: skip
SET_OF: Final[dict[Strategy, str]] = {"baseline": "baseline", "a": "a", "b": "b", "c": "baseline", "d": "baseline",
                                      "b_d": "b"}  # fmt: skip
"""Which of a unit's sets a trial is trained on."""
STAGE_PARTS: Final[tuple[int, int, int]] = (6, 6, 4)
"""Lengths of strategy D's stages, as parts of the same number of steps."""
STAGE_RATES: Final[tuple[float, float, float]] = (1.0, 0.5, 0.2)
"""Learning rates of the stages over the base rate: 1e-4, 5e-5 and 2e-5 over 1e-4."""
WEAK_AREAS: Final[dict[str, float]] = {
    "full_body": 35.0, "multi_character": 25.0, "complex_background": 20.0, "medium": 15.0, "far": 5.0,
}  # fmt: skip
"""Shares of the second stage, of what a set can give of them: those of configs/training/trial_4_0.toml."""
DOSES: Final[tuple[int, ...]] = (0, 5, 10, 20, 30, 45)
"""Per cent of one category in the sets of the dose-response curves."""
PLAN_FILE = "plan.json"
SCALED_C_RATE = 0.8
"""Strategy C's 8e-5 over the base rate of 1e-4."""


class Settings(Config):
    """Every number of the experiment; the content of `plan.json` in its folder."""

    characters: tuple[str, ...] = tuple(HELD_OUT)
    seeds: tuple[int, ...] = (1, 2, 3)
    strategies: tuple[Strategy, ...] = STRATEGIES
    pictures: int = Field(default=128, ge=1)
    """Of the baseline's set, and of each set of the dose-response curves."""
    picture_side: int = 192
    """Larger than what is trained at, as a person's own pictures are: crops of them keep enough pixels."""
    held_back: int = 48
    """Pictures of the character in all framings that no training sees: what identity is measured against."""
    others: int = 24
    """Pictures of other characters, of empty places and of things in front, each: what composites are made of."""
    film_seconds: float = 240.0
    film_side: int = 128
    film_fps: int = 5
    merged: int = 190
    """Pictures that strategy B's mix is asked for."""
    steps: int = 400
    batch_size: int = 8
    rank: int = 16
    learning_rate: float = 1e-3
    """Base rate; the counterpart of 1e-4 in published settings."""
    prompts: int = 10
    """Prompts of each scenario, at most those of the suite."""
    variations: int = 2
    sampling_steps: int = 15
    dose: tuple[str, ...] = ()
    """Categories of the dose-response curves; empty: the six trials of each unit."""

    @classmethod
    def reduced(cls) -> "Settings":
        """Everything small: shows that each step works, and claims nothing."""
        return cls(
            characters=("zibo",), seeds=(1,), strategies=("baseline", "b_d"), pictures=32, held_back=12,
            film_seconds=60.0, merged=60, steps=16, batch_size=4, prompts=1, sampling_steps=4,
        )  # fmt: skip

    @classmethod
    def dose_response(cls) -> "Settings":
        """One character, two seeds, every category: sets of one size that differ in one category's share.

        Twice the variations of the strategies, since a trial draws its category's scenario alone.
        """
        return cls(characters=("mirel",), seeds=(1, 2), variations=4, dose=CATEGORIES)


@dataclass(frozen=True, slots=True)
class Unit:
    """A character with a seed: what counts as independent."""

    character: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.character}_{self.seed}"

    @property
    def own_seed(self) -> int:
        """Seed of its renders, film and trainings, another one for each unit."""
        return 100 * self.seed + list(HELD_OUT).index(self.character)


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """One training with its pictures."""

    unit: Unit
    kind: str
    """A strategy, or `<category>_<per cent>` of a dose-response curve."""
    dataset: str
    """Name of the set below the unit's."""
    scenarios: tuple[str, ...] = CATEGORIES
    """Whose prompts it is asked to draw."""

    @property
    def name(self) -> str:
        """Name of the trial folder, and the start of its checkpoint's name."""
        return f"{self.unit.name}_{self.kind}"


def units_of(settings: Settings) -> list[Unit]:
    """Units in the order in which they are made: a first stop still has every character."""
    return [Unit(character, seed) for seed in settings.seeds for character in settings.characters]


def trials_of(settings: Settings) -> list[TrialPlan]:
    """All trials, those of a unit together, so that units become complete one after the other."""
    if settings.dose:
        points = [(f"{category}_{share}", category) for category in settings.dose for share in DOSES]
        return [TrialPlan(unit, kind, kind, (category,)) for unit in units_of(settings) for kind, category in points]
    return [TrialPlan(unit, kind, SET_OF[kind]) for unit in units_of(settings) for kind in settings.strategies]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of an experiment lie."""

    work: Path

    def unit(self, unit: Unit) -> Path:
        """What a unit's sets are made from: renders, film, analysis."""
        return self.work / "units" / unit.name

    def materials(self, seed: int) -> Path:
        """Pictures of others, places and things, shared by the units of a seed."""
        return self.work / "materials" / str(seed)

    def sets(self, unit: Unit) -> Path:
        """The sets as they are trained on."""
        return self.work / "sets" / unit.name

    def held_back(self, unit: Unit) -> Path:
        """Pictures of the character that no training sees."""
        return self.unit(unit) / "held_back"

    def scratch(self, trial: TrialPlan) -> Path:
        """Where a trial is trained; removed when it is done."""
        return self.work / ".training" / trial.name

    def trial(self, trial: TrialPlan) -> Path:
        """A trained trial: its checkpoint, config and record."""
        return self.work / "trials" / trial.name

    def pictures(self, character: str) -> Path:
        """Holds a folder of test pictures for each trial of a character, and the base model's."""
        return self.work / "pictures" / character

    @property
    def judged(self) -> Path:
        """All figures, one JSON object a line."""
        return self.work / "figures.jsonl"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.work / "report"


def claim(work: Path, settings: Settings | None) -> Settings:
    """The settings of a folder: those that lie there, or `settings`, which are written down at the first call.

    Raises:
        UserError: the folder holds an experiment with other settings, or is something else's.
    """
    marker = work / PLAN_FILE
    if marker.is_file():
        known = load(Settings, marker)
        if settings is not None and known != settings:
            raise UserError(f"{work}: holds an experiment with other settings; choose another folder or remove it")
        return known
    if settings is None:
        raise UserError(f"{work}: holds no experiment ({PLAN_FILE} is missing); run the step prepare first")
    check(settings)
    if work.exists() and (not work.is_dir() or any(work.iterdir())):
        raise UserError(f"{work}: exists and is no experiment's folder; choose another one")
    write_text(marker, settings.model_dump_json(indent=1) + "\n")
    return settings


def check(settings: Settings) -> None:
    """Refuse characters that are not held out from base training. Raises UserError."""
    strange = [name for name in settings.characters if name not in HELD_OUT]
    if strange:
        raise UserError(f"--characters {strange[0]}: is not held out; there are {', '.join(HELD_OUT)}")


def suite_for(settings: Settings, character: str) -> TestSuite:
    """The packaged toybox suite at the experiment's size, asking for a character."""
    suite = load_suite("toybox").with_slots(HELD_OUT[character].slots)
    return suite.resized(settings.prompts, settings.variations, settings.sampling_steps)


def prompts_in(suite: TestSuite, scenarios: Sequence[str]) -> list[Prompt]:
    """A suite's prompts of some scenarios."""
    return [prompt for prompt in suite.prompts() if prompt.scenario in scenarios]


def training_value(settings: Settings, name: str, output: Path, dataset: Path, seed: int) -> dict[str, Any]:
    """What all trainings of the experiment have in common, as `TrainConfig`'s sections."""
    return {
        "model": {"pretrained_model_name_or_path": "toybox"},
        "network": {"network_dim": settings.rank, "network_alpha": float(settings.rank)},
        "optimizer": {"learning_rate": settings.learning_rate, "lr_scheduler": "cosine", "lr_warmup_steps": 0.05},
        "training": {
            "output_dir": str(output),
            "output_name": name,
            "max_train_steps": settings.steps,
            "train_batch_size": settings.batch_size,
            "seed": seed,
            "save_every_n_epochs": 10_000,
            "save_last_n_epochs": 1,
            "log_with": "none",
        },
        "data": {
            "train_data_dir": str(dataset),
            "resolution": MODEL_SIDE,
            "enable_bucket": False,
            "vae_batch_size": 32,
            "caption_dropout_rate": 0.1,
            # Encoded anew each time: sets are small, and runs side by side would wait for one another's cache.
            "cache_latents_to_disk": False,
        },
    }


def config_of(
    settings: Settings, trial: TrialPlan, layout: Layout, categories: Iterable[Iterable[str]] = ()
) -> TrainConfig:
    """How a trial is trained.

    Args:
        categories: of each picture of its set; decides what a stage may ask for.
    """
    value = training_value(
        settings, trial.name, layout.scratch(trial), layout.sets(trial.unit) / trial.dataset, trial.unit.own_seed
    )
    if trial.kind == "c":
        value["network"] = {"network_dim": 4 * settings.rank, "network_alpha": 2.0 * settings.rank}
        value["optimizer"] |= {
            "learning_rate": SCALED_C_RATE * settings.learning_rate,
            "lr_scheduler": "cosine_with_restarts",
            "lr_scheduler_num_cycles": 3,
        }
        value["advanced"] = {"min_snr_gamma": 5.0, "noise_offset": 0.05}
    if trial.kind in ("d", "b_d"):
        value["training"].pop("max_train_steps")
        value["stage"] = _stages(settings, [frozenset(each) for each in categories])
    return validate(TrainConfig, value, trial.name)


def _stages(settings: Settings, categories: list[frozenset[str]]) -> list[dict[str, Any]]:
    lengths = [settings.steps * part // sum(STAGE_PARTS) for part in STAGE_PARTS]
    lengths[0] += settings.steps - sum(lengths)
    mixes: tuple[Any, ...] = ("balanced", weak_areas(categories) or "balanced", "original")
    names = ("balanced", "weak_areas", "original")
    return [
        {"name": name, "steps": length, "mix": mix, "learning_rate": settings.learning_rate * rate}
        for name, length, mix, rate in zip(names, lengths, mixes, STAGE_RATES, strict=True)
    ]


def weak_areas(categories: list[frozenset[str]]) -> Mapping[str, float]:
    """`WEAK_AREAS` as far as a set can give them: categories with too few pictures are left out, for nothing shows
    them, and attributes too where they stand against the shot types. Empty where nothing is left.
    """
    total = max(1, len(categories))
    shares = {name: 100.0 * sum(name in each for each in categories) / total for name in WEAK_AREAS}
    able = {name: asked for name, asked in WEAK_AREAS.items() if MAX_REPEATS * shares[name] >= asked}
    shots = {name: asked for name, asked in able.items() if name in CATEGORIES[:4]}
    for mix in (able, shots):
        try:
            if mix:
                solve_mix(mix, [sorted(each) for each in categories], [1] * len(categories), "weak areas")
                return mix
        except UserError:
            continue
    return {}
