"""Stages: what their tables may hold, how they run, where they may be stopped, and each alone."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onmodel.core.config import validate
from onmodel.core.errors import UserError
from onmodel.core.files import file_hash
from onmodel.core.vocabulary import Attribute, Decision, Detections, ShotType
from onmodel.dataset.facts import Facts
from onmodel.detection.convert import Detected
from onmodel.training import run
from onmodel.training.config import TrainConfig, load_train_config, to_toml
from onmodel.training.data import prepare
from onmodel.training.families import StableDiffusion
from onmodel.training.job import METRICS, STAGES, TrainingPicture, read_metrics
from onmodel.training.loop import Alone, StepReport, Trainer
from onmodel.training.pictures import load_pictures
from onmodel.training.pipeline import load_pipeline
from onmodel.training.plan import plan_stages
from onmodel.training.stages import resolve_stages
from onmodel.training.store import ArrayCache
from onmodel.training.writer import Writer

from .conftest import MakeConfig
from .running import run_to
from .tiny import save_dataset

KINDS = (("close_up",), ("close_up", "complex_background"), ("full_body",), ("complex_background", "full_body"))
STAGES_OF_THREE: list[dict[str, Any]] = [
    {"name": "balanced", "epochs": 2, "mix": "balanced", "learning_rate": 1e-2},
    {"name": "weak", "steps": 5, "mix": {"full_body": 60.0, "complex_background": 55.0}, "learning_rate": 5e-3}
    | {"lr_scheduler": "cosine", "lr_warmup_steps": 2, "noise_offset": 0.1, "caption_dropout_rate": 0.5},
    {"name": "original", "epochs": 1, "learning_rate": 2e-3, "min_snr_gamma": 5.0},
]


def staged(config: TrainConfig, stages: list[dict[str, Any]], **training: Any) -> TrainConfig:
    value = config.model_dump(exclude_none=True)
    value["training"].pop("max_train_epochs", None)
    value["training"] |= training
    return validate(TrainConfig, {**value, "stage": stages}, "test config")


def make_trainer(config: TrainConfig) -> Trainer:
    family = StableDiffusion(load_pipeline(config.model.pretrained_model_name_or_path))
    files = sorted(config.data.source.rglob("*.png"))
    pictures = [
        TrainingPicture(f, f.with_suffix(".txt").read_text(), 2, file_hash(f), categories=KINDS[i % 4])
        for i, f in enumerate(files)
    ]
    data = prepare(pictures, family, config.data, ArrayCache(None))
    return Trainer(config, family, data, Alone(), torch.device("cpu"))


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_stopped_anywhere_in_any_stage_it_ends_bit_for_bit_the_same(make_config: MakeConfig, tmp_path: Path) -> None:
    config = staged(make_config(), STAGES_OF_THREE)
    whole = make_trainer(config)
    reports, end = run_to(whole)
    assert [plan.stage.name for plan in whole.stages] == ["balanced", "weak", "original"]
    assert len(reports) == whole.total_steps
    assert sum(report.stage == "weak" for report in reports) == 5
    rng = random.Random(5)
    places = [rng.randrange(plan.first_step + 1, plan.last_step) for plan in whole.stages]
    for stop in [*places, whole.stages[0].last_step]:
        _, state = run_to(make_trainer(config), stop)
        torch.save(state, tmp_path / "state.pt")
        resumed = make_trainer(config)
        resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
        rest, after = run_to(resumed)
        assert [r.loss for r in rest] == [r.loss for r in reports[stop:]]
        assert same(after["lora"], end["lora"])


def test_each_stage_has_its_own_rate_schedule_and_settings(make_config: MakeConfig) -> None:
    config = staged(make_config(), STAGES_OF_THREE)
    first, weak, last = resolve_stages(config)
    assert (first.config.advanced.noise_offset, weak.config.advanced.noise_offset) == (0.0, 0.1)
    assert weak.config.data.caption_dropout_rate == 0.5
    assert last.config.advanced.min_snr_gamma == 5.0
    reports, _ = run_to(make_trainer(config))
    rates = {name: [r.learning_rate for r in reports if r.stage == name] for name in ("balanced", "weak", "original")}
    assert set(rates["balanced"]) == {1e-2}
    assert set(rates["original"]) == {2e-3}
    factors = [0, 0.5] + [0.5 * (1 + np.cos(np.pi * t / 3)) for t in range(3)]
    assert rates["weak"] == pytest.approx([5e-3 * factor for factor in factors])


def test_mixes_hold_in_what_is_shown(make_config: MakeConfig) -> None:
    trainer = make_trainer(staged(make_config(), [{"name": "weak", "epochs": 40, "mix": {"full_body": 70.0}}]))
    plan = trainer.stages[0]
    shares = [plan.shares(epoch)["full_body"] for epoch in range(40)]
    assert np.mean(shares) == pytest.approx(70, abs=1.5)
    assert max(shares) - min(shares) <= 100 / 12 + 1e-6, "12 showings an epoch: within one of them"
    for epoch in range(3):
        shown = [index for group in plan.groups(epoch) for batch in group for index in batch.pictures]
        assert np.bincount(shown, minlength=6).tolist() == plan.counts(epoch).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learnin_rate": 1.0}, "unknown key `learnin_rate`; did you mean `learning_rate`"),
        ({"network_dim": 8}, r"`network_dim` is the same in all stages; set it in \[network\]"),
        ({"gradient_checkpointing": True}, "the same in all stages"),
        ({"learning_rate": "fast"}, "optimizer.learning_rate"),
        ({"mix": {"fullbody": 30.0}}, "did you mean `full_body`"),
        ({"mix": {"far": 130.0}}, "between 0 and 100"),
        ({"mix": "even"}, '"original", "balanced"'),
        ({"name": "b"}, "two stages are named `b`"),
        ({"steps": 3}, "either `epochs` or `steps`"),
    ],
)
def test_wrong_stages_are_refused_with_a_sentence(change: dict[str, Any], said: str, make_config: MakeConfig) -> None:
    stages = [{"name": "a", "epochs": 1, "learning_rate": 1e-3} | change, {"name": "b", "epochs": 1}]
    with pytest.raises(UserError, match=said):
        staged(make_config(), stages)


def test_a_length_beside_stages_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="has no place beside"):
        staged(make_config(), STAGES_OF_THREE, max_train_epochs=3)


def test_toml_of_stages_reads_back_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    config = staged(make_config(), STAGES_OF_THREE)
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load_train_config(tmp_path / "c.toml") == config
    assert config.through(1).identity != config.identity
    later = staged(make_config(), [*STAGES_OF_THREE[:2], STAGES_OF_THREE[2] | {"learning_rate": 1.0}])
    assert later.through(1).identity == config.through(1).identity


def test_the_example_is_strategy_d() -> None:
    config = load_train_config(Path(__file__).parents[2] / "configs" / "training" / "trial_4_0.toml")
    stages = resolve_stages(config)
    assert [stage.config.optimizer.learning_rate for stage in stages] == [1e-4, 5e-5, 2e-5]
    assert [stage.config.training.max_train_epochs for stage in stages] == [6, 6, 4]
    assert stages[0].mix == "balanced"
    assert isinstance(stages[1].mix, dict)
    assert sorted(stages[1].mix.values(), reverse=True) == [35, 25, 20, 15, 5]
    assert stages[2].mix == "original"


def analysed(folder: Path) -> Path:
    """A dataset with facts beside it, as `onmodel analyze` leaves them."""
    data = save_dataset(folder)
    facts = Facts.open(data)
    for index, file in enumerate(sorted(data.rglob("*.png"))):
        shot = ShotType.CLOSE_UP if index < 4 else ShotType.FULL_BODY
        attributes = frozenset({Attribute.COMPLEX_BACKGROUND}) if index % 2 else frozenset[Attribute]()
        found = Detected(Detections(64, 64, ()), Decision(shot, attributes, None, "said so"))
        facts.put((file_hash(file), "model", "config"), found)
    facts.save()
    return data


def test_stages_one_at_a_time_give_what_one_run_gives(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = make_config(data={"train_data_dir": str(analysed(tmp_path / "set"))})
    stages = [STAGES_OF_THREE[0] | {"epochs": 1}, STAGES_OF_THREE[1] | {"steps": 3}, STAGES_OF_THREE[2]]
    stages[1]["mix"] = {"full_body": 60.0}
    whole = run.train(staged(plain, stages, output_name="whole"), num_workers=0)
    assert "stage weak: close_up 40.0 %" in capsys.readouterr().err
    assert {path.name for path in (whole.trial_dir / STAGES).iterdir()} == {"balanced", "weak", "original"}

    config = staged(plain, stages, output_name="parts")
    with pytest.raises(UserError, match=r"stage `weak` starts from the end of stage `balanced`.*--stage balanced"):
        run.train(config, num_workers=0, stage="weak")
    run.train(config, num_workers=0, stage="balanced")
    original = Writer.step

    def dies(self: Writer, report: StepReport) -> None:
        original(self, report)
        if report.stage == "weak" and report.step == stop:
            raise KeyboardInterrupt

    stop = len(read_metrics(config.trial_dir / METRICS)) + 2
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Writer, "step", dies)
        run.train(config, num_workers=0, stage="weak")
    run.train(config, num_workers=0, stage="weak")
    parts = run.train(config, num_workers=0)
    assert parts.losses == whole.losses
    assert [path.name[-11:] for path in parts.checkpoints] == [path.name[-11:] for path in whole.checkpoints]
    assert len(parts.checkpoints) == 3

    # Run again for longer: what came after is no longer true, and goes.
    longer = run.train(config, num_workers=0, stage="weak", epochs=1)
    assert [line["stage"] for line in read_metrics(longer.trial_dir / METRICS)].count("original") == 0
    assert len(longer.checkpoints) == 2
    assert {path.name for path in (longer.trial_dir / STAGES).iterdir()} == {"balanced", "weak"}


def test_stages_and_epochs_that_are_not_there_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = staged(make_config(), STAGES_OF_THREE)
    with pytest.raises(UserError, match=r"--stage weka: .*did you mean `weak`"):
        run.train(config, num_workers=0, stage="weka")
    with pytest.raises(UserError, match="say which one with --stage"):
        run.train(config, num_workers=0, epochs=3)
    with pytest.raises(UserError, match=r"has no \[\[stage\]\] table"):
        run.train(make_config(), num_workers=0, stage="weak")
    with pytest.raises(UserError, match="has not been analysed; run `onmodel analyze "):
        run.train(config, num_workers=0)
    assert not config.trial_dir.exists()


def test_a_person_s_labels_count_over_the_detector(tmp_path: Path) -> None:
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.known import known_categories
    from onmodel.dataset.labels import Label, write_labels

    dataset = load_dataset(analysed(tmp_path / "set"))
    first = dataset.pictures[0]
    write_labels(dataset.path, [Label(file="x", hash=first.hash, shot_type=ShotType.FAR, attributes=None)])
    known = known_categories(dataset.path, [picture.hash for picture in dataset.pictures])
    assert known is not None
    assert known[first.hash] == ("far",)
    assert known[dataset.pictures[1].hash] == ("close_up", "complex_background")
    assert known_categories(dataset.path, ["0" * 64]) is None


def test_a_set_that_is_labelled_whole_needs_no_analysis(make_config: MakeConfig) -> None:
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.labels import Label, labelled_categories, write_labels

    config = staged(make_config(), STAGES_OF_THREE)
    dataset = load_dataset(config.data.source)
    labels = [
        Label(file=p.path.name, hash=p.hash, shot_type=ShotType.FULL_BODY, attributes=(Attribute.OCCLUSION,) * (n % 2))
        for n, p in enumerate(dataset.pictures)
    ]
    write_labels(dataset.path, labels)
    assert [picture.categories for picture in load_pictures(config)] == [
        ("full_body", "occlusion") if n % 2 else ("full_body",) for n in range(len(labels))
    ]
    # One that says half of it leaves the set to an analysis, of which there is none.
    write_labels(dataset.path, [*labels[1:], labels[0].model_copy(update={"attributes": None})])
    assert labelled_categories(dataset.path, [picture.hash for picture in dataset.pictures]) is None
    with pytest.raises(UserError, match="has not been analysed"):
        load_pictures(config)


def test_repeats_of_nothing_are_never_shown(make_config: MakeConfig) -> None:
    trainer = make_trainer(make_config())
    data = trainer._data  # pyright: ignore[reportPrivateUsage]
    data.pictures[0] = replace(data.pictures[0], repeats=0, held_back=True)
    plan = plan_stages(make_config(), data, 2)[0]
    assert {index for group in plan.groups(0) for batch in group for index in batch.pictures} == {1, 2, 3, 4, 5}
