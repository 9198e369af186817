"""Does the diagnosis name what is wrong? Twelve toybox trials with a planted fault, three without: docs/diagnosis.md.

    python tests/benchmarks/bench_diagnosis.py WORK [--seed SEED] [--only NAME] [--character NAME] [--made | --draw]

One trial after the other; what lies in WORK already is not made again, so a stopped run goes on. Each trial takes some
four minutes of one core. `--draw` stops before anything is measured, so that several processes can make trials of
different names at once; `--made` then measures and diagnoses what there is.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from onmodel.cli.demo import DemoConfig, base_side, demo_suite
from onmodel.cli.measuring import measuring, options_of
from onmodel.core.config import load, validate
from onmodel.core.files import folder_aside, write_bytes, write_text
from onmodel.dataset.analysis import Analysis, analyze
from onmodel.dataset.folder import load_dataset
from onmodel.diagnosis.diagnose import Diagnosis
from onmodel.diagnosis.run import Request, run_diagnosis
from onmodel.diagnosis.sources import Names, read_evaluations
from onmodel.evaluation.evaluate import measure
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.tasks import Options, Task, draw, make_tasks, missing_work, pictures_in
from onmodel.evaluation.trial import open_trial
from onmodel.serving.local import Services
from onmodel.toybox.character import HELD_OUT, Age, Character, random_character
from onmodel.toybox.dataset import BALANCED_SHARES, EVERY_FRAMING, TRUTH_FILE, Shares, make_dataset
from onmodel.toybox.wording import PLACES
from onmodel.training.config import TrainConfig
from onmodel.training.run import train

TUNING_SEED, COUNTED_SEED = 101, 404
CHARACTERS = {TUNING_SEED: "zibo", 202: "mirel"}
PICTURES, HELD_BACK = 128, 48
EPOCHS = 24
OTHER_AGE: dict[Age, Age] = {"teenage": "child", "adult": "child", "child": "teenage"}
HITS, FALSE_ALARMS = 10, 1
SCALES = (0.4, 0.7)

Render = Callable[[Path, Character, str, int], None]
"""Fills a folder with a dataset: folder, character, trigger, seed."""


def plain(shares: Shares, count: int = PICTURES) -> Render:
    """A dataset of one mix."""

    def render(folder: Path, character: Character, trigger: str, seed: int) -> None:
        make_dataset(folder, character, count, shares, seed, size=base_side(), trigger=trigger)

    return render


def two(other: Callable[[Character, int], Character], share: float) -> Render:
    """A balanced dataset, that share of which shows another character under the same trigger."""

    def render(folder: Path, character: Character, trigger: str, seed: int) -> None:
        theirs = round(share * PICTURES)
        who = other(character, seed)
        make_dataset(folder, who, theirs, BALANCED_SHARES, seed + 1, size=base_side(), trigger=trigger, prefix="b")
        make_dataset(
            folder, character, PICTURES - theirs, BALANCED_SHARES, seed, size=base_side(), trigger=trigger, prefix="a"
        )

    return render


def other_age(character: Character, seed: int) -> Character:
    """The same looks at another age."""
    return dataclasses.replace(character, age=OTHER_AGE[character.age])


def somebody(character: Character, seed: int) -> Character:
    """Another character whom captions would call the same."""
    drawn = random_character(np.random.default_rng([seed, 7]))
    return dataclasses.replace(drawn, age=character.age, gender=character.gender)


def without_trigger(folder: Path, character: Character, trigger: str, seed: int) -> None:
    """A balanced dataset, 60 % of whose captions lack the trigger."""
    plain(BALANCED_SHARES)(folder, character, trigger, seed)
    captions = sorted(folder.glob("*.txt"))
    chosen = np.random.default_rng([seed, 8]).choice(len(captions), size=round(0.6 * len(captions)), replace=False)
    for index in chosen:
        text = captions[int(index)].read_text(encoding="utf-8")
        captions[int(index)].write_text(text.removeprefix(f"{trigger}, "), encoding="utf-8")


def background_removed(folder: Path, character: Character, trigger: str, seed: int) -> None:
    """A dataset whose pictures were cut out onto plain backgrounds, and whose captions still name the place."""
    changed(complex_background=0.0)(folder, character, trigger, seed)
    rng = np.random.default_rng([seed, 9])
    places = [phrase for phrases in PLACES.values() for phrase in phrases]
    for path in sorted(folder.glob("*.txt")):
        parts = path.read_text(encoding="utf-8").strip().split(", ")
        told = [str(rng.choice(places)) if part.endswith(" background") else part for part in parts]
        path.write_text(", ".join(told) + "\n", encoding="utf-8")


def lose_alpha(checkpoint: Path) -> None:
    """Take alpha out of a LoRA file, as some converters do: readers then take the rank for it."""
    tensors = safetensors.torch.load_file(checkpoint)
    kept = {key: tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}
    if len(kept) < len(tensors):
        with safetensors.safe_open(checkpoint, "pt") as file:
            metadata = dict(file.metadata())
        metadata.pop("lora_adapter_metadata", None)
        write_bytes(checkpoint, safetensors.torch.save(kept, metadata))


def changed(**shares: float) -> Render:
    """The balanced mix with some shares replaced."""
    return plain(dataclasses.replace(BALANCED_SHARES, **shares))


@dataclass(frozen=True)
class Planted:
    """One trial of the plan."""

    cause: str | None
    """What must be named first; None: nothing may be named."""
    render: Render = field(default_factory=lambda: plain(BALANCED_SHARES))
    config: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Keys by section, over those of a trial that lacks nothing."""
    stage: tuple[dict[str, Any], ...] = ()
    epochs: int = EPOCHS
    finish: Callable[[Path], None] | None = None
    """What is done to each checkpoint before it is used."""
    character: str | None = None
    """None: that of the seed."""


PLANTED: dict[str, Planted] = {
    "mixed_ages": Planted("age_varies", two(other_age, 0.5)),
    "no_full_body": Planted("proportions_unstable", changed(close_up=0.45, medium=0.45, full_body=0.0, far=0.10)),
    "too_strong": Planted(
        "too_strong",
        config={"network": {"network_dim": 16, "network_alpha": 3.0}},
        stage=(
            {"name": "fast", "epochs": 8, "learning_rate": 5e-3, "lr_scheduler": "constant_with_warmup"},
            {"name": "fine", "epochs": 16, "learning_rate": 2e-4, "lr_scheduler": "constant_with_warmup"},
        ),
        finish=lose_alpha,
    ),
    "no_busy_background": Planted("background_lacking", background_removed),
    "no_company": Planted("company_lacking", changed(multi_character=0.0)),
    "nothing_hides": Planted("occlusion_lacking", changed(occlusion=0.0)),
    "memorised": Planted(
        "memorisation",
        plain(BALANCED_SHARES, 5),
        config={
            "network": {"network_dim": 64, "network_alpha": 64.0},
            "optimizer": {"learning_rate": 2e-3, "lr_scheduler": "constant_with_warmup"},
            "data": {"caption_dropout_rate": 0.0},
        },
        epochs=384,
    ),
    "under_trained": Planted("under_training", config={"optimizer": {"learning_rate": 2e-4}}, epochs=3),
    "over_trained": Planted(
        "over_training",
        config={
            "network": {"network_dim": 64, "network_alpha": 64.0},
            "optimizer": {"learning_rate": 2.5e-3, "lr_scheduler": "constant_with_warmup"},
            "data": {"caption_dropout_rate": 0.0},
            "advanced": {"min_snr_gamma": None},
        },
    ),
    "close_ups": Planted("close_up_heavy", changed(close_up=1.0, medium=0.0, full_body=0.0, far=0.0)),
    "wrong_trigger": Planted("trigger_missing", without_trigger),
    "two_characters": Planted("identity_mixed", two(somebody, 0.4)),
    "healthy_zibo": Planted(None, character="zibo"),
    "healthy_mirel": Planted(None, character="mirel"),
    "healthy_tokko": Planted(None, character="tokko"),
}


def config_of(planted: Planted, name: str, folder: Path, seed: int) -> TrainConfig:
    """The training config of a trial."""
    value: dict[str, Any] = {
        "model": {"pretrained_model_name_or_path": "toybox"},
        "network": {"network_dim": 16, "network_alpha": 16.0},
        "optimizer": {"learning_rate": 1e-3, "lr_scheduler": "cosine", "lr_warmup_steps": 0.05},
        "training": {
            "output_dir": str(folder / "runs"),
            "output_name": name,
            "max_train_epochs": planted.epochs,
            "train_batch_size": 8,
            "seed": seed,
            "save_every_n_epochs": planted.epochs // 3,
            "log_with": "none",
        },
        "data": {
            "train_data_dir": str(folder / "dataset"),
            "resolution": base_side(),
            "enable_bucket": False,
            "vae_batch_size": 32,
            "caption_dropout_rate": 0.1,
        },
        "advanced": {"min_snr_gamma": 5.0},
    }
    for section, keys in planted.config.items():
        value[section] |= keys
    if planted.stage:
        value["training"].pop("max_train_epochs")
        value["stage"] = planted.stage
    return validate(TrainConfig, value, name)


@dataclass(frozen=True)
class Bench:
    """One run over the plan."""

    work: Path
    seed: int
    character: str

    def folder(self, name: str) -> Path:
        """Where a trial's dataset, run and diagnosis lie."""
        return self.work / str(self.seed) / name

    def held_back(self, character: str) -> Path:
        """Pictures of a character that no training sees."""
        return self.work / str(self.seed) / "held_back" / character

    def evaluations(self, character: str) -> Path:
        """Test pictures of all trials of a character, which share the base model's."""
        return self.work / str(self.seed) / "evaluation" / character

    def make(self, name: str, measured_with: str) -> None:
        """Render, train and draw what there is not of a trial; no service is needed."""
        planted = PLANTED[name]
        character = planted.character or self.character
        folder = self.folder(name)
        own = self.seed * 100 + list(PLANTED).index(name)
        if not (folder / "dataset").is_dir():
            with folder_aside(folder / "dataset") as aside:
                planted.render(aside, HELD_OUT[character], character, own)
                # The truth is no part of what a diagnosis may know.
                (aside / TRUTH_FILE).unlink()
        if not self.held_back(character).is_dir():
            with folder_aside(self.held_back(character)) as aside:
                plain(EVERY_FRAMING, HELD_BACK)(aside, HELD_OUT[character], character, self.seed)
        trial = train(config_of(planted, name, folder, own), num_workers=0)
        if planted.finish is not None:
            for path in trial.checkpoints:
                planted.finish(path)
        draw(*self.drawings(name, measured_with))

    def drawings(self, name: str, measured_with: str) -> tuple[list[Task], TestSuite, Options]:
        """What is drawn of a trained trial."""
        character = PLANTED[name].character or self.character
        suite = demo_suite(DemoConfig(character=character, prompts=5, variations=2, sampling_steps=12))
        options = options_of(self.held_back(character), None, measured_with, "auto", None)
        files = sorted((self.folder(name) / "runs" / name).glob(f"{name}-*.safetensors"))
        trials = [open_trial(path, trigger=character) for path in files]
        out = self.evaluations(character)
        tasks = make_tasks(trials, suite, options, output_dir=out)
        return tasks + make_tasks(trials[-1:], suite, options, scales=SCALES, output_dir=out), suite, options

    def diagnose(self, name: str, services: Services, measured_with: str) -> Diagnosis:
        """Measure and diagnose a trial that is made."""
        character = PLANTED[name].character or self.character
        folder, drawn = self.folder(name), self.evaluations(character)
        if not (folder / "analysis.json").is_file():
            analysis = analyze(load_dataset(folder / "dataset"), services)
            write_text(folder / "analysis.json", analysis.model_dump_json(indent=1) + "\n")
        measure(*self.drawings(name, measured_with), services)
        trial = open_trial(folder / "runs" / name, trigger=character)
        request = Request(
            out=folder / "diagnosis",
            trial=trial,
            evaluations=read_evaluations(trial, drawn),
            analysis=load(Analysis, folder / "analysis.json"),
            references=pictures_in(self.held_back(character), "reference"),
            strangers=sorted(drawn.glob("base-*/*.png")),
            trigger=character,
            names=Names(references=self.held_back(character), analysis=folder / "analysis.json"),
        )
        return run_diagnosis(request, services, measured_with)

    def is_made(self, name: str, measured_with: str) -> bool:
        """Whether a trial is trained and drawn at every checkpoint and scale."""
        last = self.folder(name) / "runs" / name / f"{name}-{PLANTED[name].epochs:06d}.safetensors"
        return last.is_file() and not missing_work(self.drawings(name, measured_with)[0])


def count(found: Mapping[str, Diagnosis]) -> None:
    """Print what was named first of each trial, and the hits and false alarms."""
    hits = alarms = 0
    for name, diagnosis in found.items():
        wanted = PLANTED[name].cause
        named = [f"{f.rule} {100 * f.expected_gain:.1f}" for f in diagnosis.findings]
        first = diagnosis.findings[0].rule if diagnosis.findings else None
        hits += wanted is not None and first == wanted
        alarms += wanted is None and first is not None
        print(f"diagnosis: {name} | {', '.join(named) or 'no cause'} | {wanted or 'no cause'} | {first == wanted}")
    faults = sum(PLANTED[name].cause is not None for name in found)
    all_made = len(found) == len(PLANTED)
    print(
        f"diagnosis: planted causes named first, of {faults} | {hits} | >= {HITS} | "
        f"{hits >= HITS if all_made else 'not all were made'}"
    )
    print(
        f"diagnosis: false alarms in {len(found) - faults} trials without a fault | {alarms} | <= {FALSE_ALARMS} | "
        f"{alarms <= FALSE_ALARMS if all_made else 'not all were made'}"
    )


def main() -> None:
    """Run the plan, or a part of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=COUNTED_SEED)
    parser.add_argument("--character", choices=sorted(HELD_OUT))
    parser.add_argument("--only", choices=list(PLANTED), action="append")
    parser.add_argument("--made", action="store_true", help="Make nothing; diagnose what is there.")
    parser.add_argument("--draw", action="store_true", help="Train and draw alone, several such processes at once.")
    given = parser.parse_args()
    bench = Bench(given.work, given.seed, given.character or CHARACTERS.get(given.seed, "tokko"))
    with measuring(None, "toybox", None, "toybox", None) as (services, measured_with):
        for name in (given.only or PLANTED) if not given.made else ():
            bench.make(name, measured_with)
        wanted: list[str] = [
            name for name in given.only or PLANTED if not given.made or bench.is_made(name, measured_with)
        ]
        count({} if given.draw else {name: bench.diagnose(name, services, measured_with) for name in wanted})


if __name__ == "__main__":
    main()
