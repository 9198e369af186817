"""A trial has one writer: a process that was given up for dead and lives stops before it writes again."""

import pytest
import torch

from onmodel.core.files import write_text
from onmodel.training import run
from onmodel.training.job import METRICS, OWNER, TakenOverError, read_metrics
from onmodel.training.loop import StepReport
from onmodel.training.writer import Writer

from .conftest import MakeConfig
from .test_run import weights


def test_who_began_last_writes_alone(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(name: str) -> run.TrainConfig:
        return make_config(training={"output_name": name, "save_every_n_steps": 2, "log_with": "none"})

    folder = config("cut").trial_dir
    step = Writer.step

    def is_replaced(self: Writer, report: StepReport) -> None:
        step(self, report)
        if report.step == 3:
            write_text(folder / OWNER, "another")
            (folder / ".config.toml.x.part").touch()

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "step", is_replaced)
        with pytest.raises(TakenOverError, match="another process trains this trial since"):
            run.train(config("cut"), num_workers=0)
    assert [line["step"] for line in read_metrics(folder / METRICS)] == [1, 2, 3]
    assert (folder / OWNER).read_text() == "another"
    assert (folder / ".config.toml.x.part").exists(), "what the other is writing is left alone"

    mine = run.train(config("cut"), num_workers=0)
    assert not [left for left in folder.iterdir() if left.name.startswith(".")]
    alone = run.train(config("alone"), num_workers=0)
    assert mine.losses == alone.losses
    theirs = weights(alone.checkpoints[-1])
    assert all(torch.equal(value, theirs[key]) for key, value in weights(mine.checkpoints[-1]).items())
