"""What verbs share that look at pictures: the models that do it, and what they are asked."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from onmodel.dataset.facts import Facts
    from onmodel.detection.config import DetectorConfig
    from onmodel.evaluation.suite import TestSuite
    from onmodel.evaluation.tasks import Options
    from onmodel.evaluation.trial import Trial
    from onmodel.scoring.config import ScorerConfig
    from onmodel.serving.local import Services

SuiteOption = Annotated[
    str, typer.Option("--test-suite", help="Suite file, or a packaged suite's name: character, toybox.")
]
ReferencesOption = Annotated[
    Path | None,
    typer.Option(help="Folder of held-back pictures of the character; else the trial's training pictures."),
]
ImpostorsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures of other characters; else the base model draws them without the LoRA."),
]
TriggerOption = Annotated[str | None, typer.Option(help="Trigger word, in place of the suite's or the checkpoint's.")]
ClassOption = Annotated[str | None, typer.Option(help="What the character is, in place of the suite's `class`.")]
AgeOption = Annotated[str | None, typer.Option(help='Class with its age, as in "teenage boy".')]
BaseOption = Annotated[
    str | None, typer.Option(help="Base model: toybox, hub id, diffusers folder or file; else as trained.")
]
TrialDetectorOption = Annotated[
    str | None, typer.Option(help="Detector preset: toybox or film; else the one the training set was looked at with.")
]
DatasetDetectorOption = Annotated[
    str | None, typer.Option(help="Detector preset: toybox or film; else the one the set was looked at with.")
]
FilmDetectorOption = Annotated[str | None, typer.Option(help="Detector preset: film, or toybox, the default.")]
DetectorConfigOption = Annotated[Path | None, typer.Option(help="TOML with all detector settings instead.")]
ScorerOption = Annotated[
    str, typer.Option(help="Scorer: toybox, an open_clip architecture, hf-hub:OWNER/NAME, or a folder.")
]
ScorerWeightsOption = Annotated[
    str | None, typer.Option("--scorer-pretrained", help="Checkpoint tag or file for an open_clip architecture.")
]
SERVICES_VARIABLE = "ONMODEL_SERVICES"
"""Names running services for every verb that is not given an address."""
ServicesOption = Annotated[
    str | None,
    typer.Option(
        "--services", envvar=SERVICES_VARIABLE, help="HOST:PORT of running services; else this machine does it itself."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where pictures are drawn: auto, cpu, cuda.")]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Pictures drawn at once; else chosen by their size.")]


BUNDLED = "toybox"
"""Base model and scorer of the bundled world."""
INSTEAD = {
    "detector": "--detector film",
    "scorer": "--scorer ViT-B-32 --scorer-pretrained laion2b_s34b_b79k",
}


def suite_with(name: str, trigger: str | None, class_word: str | None, age: str | None) -> "TestSuite":
    """The suite with the command line's words in it. Raises UserError."""
    from onmodel.evaluation.suite import load_suite

    return load_suite(name).with_slots({"trigger": trigger, "class": class_word, "age": age})


def detector_of(preset: str, file: Path | None) -> "DetectorConfig":
    """The file's settings where one is given, else the preset's. Raises UserError of either."""
    from onmodel.core.config import load
    from onmodel.detection.config import DetectorConfig

    return load(DetectorConfig, file) if file else DetectorConfig.preset(preset)


def detector_for(facts: "Facts | None", preset: str | None, file: Path | None) -> "DetectorConfig":
    """As `detector_of`; with neither, the preset that the dataset of these facts was looked at with before.

    A set that `extract --detector film` made, looked at with the default, would quietly be another one. Where nothing
    is known the default is the toybox's, and that is said: on other pictures its findings would be nonsense.
    """
    from onmodel.dataset.known import PRESETS, preset_of

    if preset is None and file is None:
        if facts is not None and facts.models:
            preset = preset_of([facts])
        else:
            typer.echo(
                "onmodel: looking with the bundled detector, which knows only the toybox's renders; for other pictures "
                "add --detector film",
                err=True,
            )
    return detector_of(preset or PRESETS[0], file)


def detector_of_trials(
    trials: "Sequence[Trial]", preset: str | None, file: Path | None, scorer: str, services: str | None
) -> str:
    """The preset that trials are looked at with: the one given, else that of the training sets, else the toybox's.

    The bundled models know nothing but the toybox's renders. Where they are to judge what another base model draws,
    that is said: the figures would be nonsense.
    """
    from onmodel.dataset.facts import Facts
    from onmodel.dataset.known import PRESETS, preset_of

    chosen = preset or preset_of([Facts.open(trial.dataset) for trial in trials if trial.dataset is not None])
    is_bundled = {"detector": chosen == PRESETS[0] and file is None, "scorer": scorer == BUNDLED}
    bundled = [what for what in is_bundled if is_bundled[what]]
    if bundled and services is None and any(trial.base != BUNDLED for trial in trials):
        typer.echo(
            f"onmodel: measuring with the bundled {' and '.join(bundled)}, made for the toybox's renders alone; for "
            f"other pictures add {' and '.join(INSTEAD[what] for what in bundled)}",
            err=True,
        )
    return chosen


@contextmanager
def measuring(
    address: str | None, detector: str, detector_config: Path | None, scorer: str, scorer_pretrained: str | None
) -> "Generator[tuple[Services, str]]":
    """The services, and words that name their models and settings (part of what stored figures depend on).

    Without an address the models are named from their files, so that nothing starts when every figure is stored.
    """
    from onmodel.scoring.config import ScorerConfig
    from onmodel.serving.local import open_services

    seeing = detector_of(detector, detector_config)
    scoring = ScorerConfig.model_validate({"model": scorer, "pretrained": scorer_pretrained})
    with open_services(address, detector=seeing, scorer=scoring, together=True) as services:
        if address is None:
            yield services, local_models(seeing, scoring)
        else:
            infos = (services.detection.model_info(), services.scoring.model_info())
            yield services, " ".join(f"{info.hash} {info.config_hash}" for info in infos)


def local_models(detector: "DetectorConfig", scorer: "ScorerConfig") -> str:
    """Hashes of local models and settings, found without loading them."""
    from onmodel.detection.weights import weights_hash

    return f"{weights_hash(detector.weights, detector.face_weights)} {detector.hash} {scorer.hash}"


def options_of(
    references: Path | None, impostors: Path | None, measured_with: str, device: str, batch_size: int | None
) -> "Options":
    """Evaluation's options from the command line's. Raises UserError for a folder without pictures."""
    from onmodel.evaluation.tasks import Options, pictures_in

    return Options(
        references=pictures_in(references, "reference") if references else (),
        impostors=pictures_in(impostors, "impostor") if impostors else (),
        measured_with=measured_with,
        device=device,
        batch_size=batch_size,
    )
