"""Several workers and stages: two over gloo train what one trains, and go on with what one began."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onmodel.training import run
from onmodel.training.config import TrainConfig
from onmodel.training.job import METRICS, STATE, read_metrics
from onmodel.training.loop import StepReport
from onmodel.training.lora_file import read_metadata
from onmodel.training.writer import Writer

from . import gloo
from .conftest import MakeConfig
from .test_run import weights
from .test_stages import analysed, staged

STAGES: list[dict[str, Any]] = [
    {"name": "balanced", "epochs": 1, "mix": {"full_body": 50.0}, "learning_rate": 1e-3},
    {"name": "weak", "steps": 4, "mix": {"full_body": 60.0}, "lr_scheduler": "cosine", "lr_warmup_steps": 0.5}
    | {"learning_rate": 5e-4, "noise_offset": 0.1, "caption_dropout_rate": 0.5},
    {"name": "original", "epochs": 1, "learning_rate": 2e-4, "min_snr_gamma": 5.0},
]


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> TrainConfig:
    return make_config(data={"train_data_dir": str(analysed(tmp_path / "set"))})


def near(mine: run.TrialResult, theirs: run.TrialResult) -> None:
    """The same curve, and the same weights in every checkpoint, as far as sums in another order allow."""
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert len(mine.checkpoints) == len(theirs.checkpoints) > 1
    for ours, other in zip(mine.checkpoints, theirs.checkpoints, strict=True):
        found, wanted = weights(ours), weights(other)
        assert found.keys() == wanted.keys()
        for key in wanted:
            torch.testing.assert_close(found[key], wanted[key], atol=2e-4, rtol=1e-3)


@pytest.mark.timeout(600)
def test_two_gloo_workers_train_stages_as_one_does(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = run.train(staged(config, STAGES, output_name="alone", train_batch_size=4), num_workers=0)
    monkeypatch.setattr(run, "_run", gloo.fit)
    pair = run.train(staged(config, STAGES, output_name="pair", train_batch_size=2), num_workers=2)
    near(pair, alone)
    mine, theirs = (
        [(line["stage"], line["learning_rate"]) for line in read_metrics(trial.trial_dir / METRICS)]
        for trial in (pair, alone)
    )
    assert mine == theirs
    warmups = [read_metadata(file)["ss_lr_warmup_steps"] for file in pair.checkpoints]
    assert warmups == ["0", "2", "0"], "a share is one of the stage's steps"


@pytest.mark.timeout(600)
def test_a_stage_that_one_worker_began_is_ended_by_two(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run.train(staged(config, STAGES, output_name="whole", train_batch_size=4), num_workers=0)
    parts = staged(config, STAGES, output_name="parts", train_batch_size=4)
    run.train(parts, num_workers=0, stage="balanced")
    stop = len(read_metrics(parts.trial_dir / METRICS)) + 2
    original = Writer.step

    def dies(self: Writer, report: StepReport) -> None:
        original(self, report)
        if report.step == stop:
            self._save_state()  # pyright: ignore[reportPrivateUsage]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Writer, "step", dies)
        run.train(parts, num_workers=0, stage="weak")
    assert (parts.trial_dir / STATE).is_dir()
    with monkeypatch.context() as patch:
        patch.setattr(run, "_run", gloo.fit)
        run.train(parts, num_workers=2, stage="weak")
    assert read_metrics(parts.trial_dir / METRICS)[-1]["stage"] == "weak"
    near(run.train(parts, num_workers=0, stage="original"), whole)
