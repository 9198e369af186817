"""`onmodel demo`: the whole loop on the bundled world, offline, through the same functions as the other verbs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from onmodel.core.config import Config, load, read_mapping
from onmodel.core.errors import InternalError, UserError
from onmodel.core.files import folder_aside, write_text
from onmodel.core.progress import bar, console

if TYPE_CHECKING:
    from onmodel.dataset.analysis import Analysis
    from onmodel.evaluation.compare import Comparison
    from onmodel.evaluation.suite import TestSuite
    from onmodel.serving.local import Services
    from onmodel.training.config import TrainConfig

T = TypeVar("T")
SETTINGS_FILE = "demo.json"
TRIALS = "trials"
"""Name of the ablation that the two trials are."""


class DemoConfig(Config):
    """Every number of the demo. Sizes are chosen so that it takes minutes on two cores and still shows a difference."""

    character: str = "zibo"
    """One of the held-out characters of the bundled world; also its trigger word."""
    seed: int = 7
    pictures: int = 128
    """Of the first training set; its mix is that of the trial in question."""
    picture_side: int = 192
    """Larger than what is trained at, as a person's own pictures are: crops of them keep enough pixels."""
    held_back: int = 48
    """Pictures of the character in all framings that no training sees: what identity is measured against."""
    others: int = 24
    """Pictures of other characters, of empty places and of things in front, each: what composites are made of."""
    steps: int = 400
    """Optimizer steps of each trial, the same for both, so that only the data differs."""
    batch_size: int = 8
    rank: int = 16
    learning_rate: float = 1e-3
    prompts: int = 10
    """Prompts of each scenario, at most those of the suite."""
    variations: int = 2
    sampling_steps: int = 12

    @classmethod
    def quick(cls) -> "DemoConfig":
        """Everything small: it shows that the loop runs, not that anything is learned."""
        return cls(pictures=32, held_back=16, others=4, steps=12, prompts=2, variations=2, sampling_steps=4)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo's files lie."""

    out: Path

    @property
    def held_back(self) -> Path:
        return self.out / "held_back"

    def material(self, kind: str) -> Path:
        return self.out / "material" / kind

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    def dataset(self, trial: int) -> Path:
        return self.out / "datasets" / f"trial_{trial}"

    def analysis(self, trial: int) -> Path:
        return self.out / "analysis" / f"trial_{trial}.json"

    @property
    def runs(self) -> Path:
        return self.out / "runs"


class Steps:
    """Numbered headings with the share of the whole that is done, on standard error."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self._started = time.monotonic()

    def run(self, text: str, work: Callable[[], T]) -> T:
        """Print the next heading and do the work."""
        self._number += 1
        width = 14
        done = width * (self._number - 1) // self._total
        elapsed = int(time.monotonic() - self._started)
        console.print(
            f"\n[bold]{'━' * done}[/bold][dim]{'─' * (width - done)}[/dim]  "
            f"[bold]{self._number} of {self._total}[/bold]  {text}  [dim]{elapsed // 60}:{elapsed % 60:02d}[/dim]",
            highlight=False,
        )
        return work()


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("onmodel-demo"),
    character: Annotated[str, typer.Option(help="Held-out character to teach: zibo, mirel or tokko.")] = "zibo",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: shows that the loop runs, not that anything is learned.")
    ] = False,
) -> None:
    """Run the whole loop on the bundled world, offline."""
    config = DemoConfig.quick() if quick else DemoConfig()
    comparison = run_demo(out, config.model_copy(update={"character": character}))
    console.print()
    console.print(comparison.verdict, highlight=False, markup=False)
    typer.echo(Places(out).report)


def run_demo(out: Path, config: DemoConfig) -> "Comparison":
    """Render, analyse, train, fill, train again, evaluate, compare; what an earlier run made is kept.

    Raises:
        UserError: an unknown character, or `out` holds a demo with other settings.
    """
    from onmodel.cli.measuring import measuring

    places, steps = Places(out), Steps(6)
    _claim(out, config)
    steps.run(f"Render {config.character} in the trial's mix", lambda: _render(places, config))
    with measuring(None, "toybox", None, "toybox", None) as (services, measured_with):
        first = steps.run("Analyse it", lambda: _analyse(places, 1, services))
        steps.run("Fill its gaps", lambda: _augment(places, first, services))
        steps.run("Analyse the filled dataset", lambda: _analyse(places, 2, services))
        steps.run("Train on both, trial 1 and trial 2, as many steps each", lambda: _train(places, config))
        return steps.run(
            "Evaluate and compare both",
            lambda: _compare(places, config, services, measured_with),
        )


def _claim(out: Path, config: DemoConfig) -> None:
    """Mark the folder as this demo's, or refuse one that is something else's."""
    from onmodel.toybox.character import HELD_OUT

    if config.character not in HELD_OUT:
        raise UserError(f"--character {config.character}: not a held-out character; there are {', '.join(HELD_OUT)}")
    marker = out / SETTINGS_FILE
    if marker.is_file():
        if load(DemoConfig, marker) != config:
            raise UserError(f"{out}: holds a demo with other settings; choose another --out or remove the folder")
        console.print(f"{out}: going on with what an earlier run made there", highlight=False)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not a demo's folder; choose another --out")
    write_text(marker, config.model_dump_json(indent=1) + "\n")


def _render(places: Places, config: DemoConfig) -> None:
    from onmodel.toybox.character import HELD_OUT
    from onmodel.toybox.dataset import EVERY_FRAMING, PEOPLE, THINGS, TRIAL_SHARES, make_dataset, make_places

    character, side = HELD_OUT[config.character], config.picture_side
    wanted = (
        (places.dataset(1), character, config.pictures, TRIAL_SHARES, config.seed, side),
        (places.held_back, character, config.held_back, EVERY_FRAMING, config.seed + 1, base_side()),
        (places.material("companions"), None, config.others, PEOPLE, config.seed + 2, side),
        (places.material("foregrounds"), None, config.others, THINGS, config.seed + 4, side),
    )
    backgrounds = places.material("backgrounds")
    with bar("rendering", sum(count for _, _, count, *_ in wanted) + config.others) as shown:
        if not backgrounds.is_dir():
            with folder_aside(backgrounds) as aside:
                make_places(aside, config.others, config.seed + 3, size=side)
        shown.advance(config.others, backgrounds.name)
        for folder, who, count, shares, seed, pixels in wanted:
            if not folder.is_dir():
                trigger = None if who is None else config.character
                with folder_aside(folder) as aside:
                    make_dataset(aside, who, count, shares, seed, size=pixels, trigger=trigger)
            shown.advance(count, folder.name)


def _analyse(places: Places, trial: int, services: "Services") -> "Analysis":
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.report import page, table
    from onmodel.detection.config import DetectorConfig
    from onmodel.detection.weights import local_model

    dataset = load_dataset(places.dataset(trial))
    config = DetectorConfig.preset("toybox")
    model = local_model(config)
    with bar("analysing", len(dataset.pictures)) as shown:
        analysis = analyze(dataset, services, model=model, advance=shown.advance)
    write_text(places.analysis(trial), analysis.model_dump_json(indent=1) + "\n")
    write_text(places.analysis(trial).with_suffix(".html"), page(analysis, dataset))
    console.print(table(analysis))
    console.print(analysis.conclusion, highlight=False, markup=False)
    return analysis


def _augment(places: Places, analysis: "Analysis", services: "Services") -> None:
    from onmodel.dataset.augment import augment
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.materials import scenery_of
    from onmodel.detection.config import DetectorConfig

    target = places.dataset(2)
    if target.is_dir():
        return
    dataset = load_dataset(places.dataset(1))
    backgrounds, companions, foregrounds = ([places.material(k)] for k in ("backgrounds", "companions", "foregrounds"))
    scenery = scenery_of(
        dataset, analysis, (backgrounds, companions, foregrounds), False, services, DetectorConfig.preset("toybox")
    )  # fmt: skip
    with bar("filling", None) as shown:
        result = augment(
            dataset,
            analysis,
            target,
            scenery=scenery,
            verify=services.detection.detect,
            sees_things_in_front=True,
            advance=shown.advance,
        )
    console.print(f"{result.pictures} pictures, {result.pictures - result.copied} of them derived", highlight=False)


def base_side() -> int:
    """Side in pixels of what the bundled base model draws: its latents' side times the autoencoder's factor."""
    from onmodel.toybox.models import bundled

    folder = bundled("diffusion")
    latents = read_mapping(folder / "unet" / "config.json")["sample_size"]
    levels = read_mapping(folder / "vae" / "config.json")["block_out_channels"]
    return int(latents) * 2 ** (len(levels) - 1)


def training_config(places: Places, config: DemoConfig, trial: int) -> "TrainConfig":
    """The training config of trial 1 or 2: they differ in dataset and name alone."""
    from onmodel.core.config import validate
    from onmodel.training.config import TrainConfig

    value = {
        "model": {"pretrained_model_name_or_path": "toybox"},
        "network": {"network_dim": config.rank, "network_alpha": float(config.rank)},
        "optimizer": {"learning_rate": config.learning_rate, "lr_scheduler": "cosine", "lr_warmup_steps": 0.05},
        "training": {
            "output_dir": str(places.runs),
            "output_name": f"trial_{trial}",
            "max_train_steps": config.steps,
            "train_batch_size": config.batch_size,
            "seed": config.seed,
            "save_every_n_epochs": 1000,
        },
        "data": {
            "train_data_dir": str(places.dataset(trial)),
            "resolution": base_side(),
            "enable_bucket": False,
            "vae_batch_size": 32,
            "caption_dropout_rate": 0.1,
        },
    }
    return validate(TrainConfig, value, "demo")


def _train(places: Places, config: DemoConfig) -> None:
    """Both trials at once, which two cores do sooner than one after the other: steps so small gain little by threads.

    Raises:
        InternalError: a trial did not come to its end.
    """
    from onmodel.ablation.config import AblationConfig, AblationSection, VariantSection
    from onmodel.ablation.run import run_ablation
    from onmodel.ablation.variants import Ablation, Variant

    base, other = (training_config(places, config, trial) for trial in (1, 2))
    first, second = (trial.training.output_name for trial in (base, other))
    data = other.data.train_data_dir
    settings = AblationConfig(
        base=first,
        ablation=AblationSection(name=TRIALS, include_base=True, allow_different_data=True),
        variant=(VariantSection(name=second, data={"train_data_dir": data}),),
    )
    variants = (Variant(first, {}, base), Variant(second, {"data.train_data_dir": data}, other))
    outcome = run_ablation(Ablation(settings, base, variants))
    for failed in outcome.failed:
        raise InternalError(f"{failed.trial_dir}: {failed.status.value}: {failed.reason}")


def demo_suite(config: DemoConfig) -> "TestSuite":
    """The packaged toybox suite at the demo's size, asking for its character."""
    from onmodel.evaluation.suite import load_suite
    from onmodel.toybox.character import HELD_OUT

    suite = load_suite("toybox").with_slots(HELD_OUT[config.character].slots)
    return suite.resized(config.prompts, config.variations, config.sampling_steps)


def _compare(places: Places, config: DemoConfig, services: "Services", measured_with: str) -> "Comparison":
    from onmodel.cli.compare import mixes_of
    from onmodel.cli.measuring import options_of
    from onmodel.core.vocabulary import CATEGORIES
    from onmodel.dataset.recommended import RECOMMENDED
    from onmodel.evaluation.compare import compare
    from onmodel.evaluation.curves import siblings
    from onmodel.evaluation.evaluate import evaluate
    from onmodel.evaluation.report import write_report
    from onmodel.evaluation.tasks import make_tasks
    from onmodel.evaluation.trial import open_trial

    suite = demo_suite(config)
    trials = [open_trial(places.runs / f"trial_{n}", trigger=config.character) for n in (1, 2)]
    options = options_of(places.held_back, None, measured_with, "auto", None)
    tasks = make_tasks(trials, suite, options)
    results = evaluate(tasks, suite, options, services)
    mixes = mixes_of(trials, services, "toybox", None, local=True)
    ranges = {name: RECOMMENDED.range(name) for name in CATEGORIES}
    beside = [siblings(task.folder) for task in tasks]
    comparison = compare(results, mixes=mixes, recommended=ranges, others=beside)
    folders = {name: task.folder for name, task in zip(comparison.models, tasks, strict=True)}
    write_report(comparison, folders, places.report)
    return comparison
