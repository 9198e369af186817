"""Running a trainer in tests, to its end or to a step."""

import contextlib
import copy
from typing import Any

from onmodel.training.loop import StepReport, Trainer


def run_to(trainer: Trainer, stop_after: int | None = None) -> tuple[list[StepReport], dict[str, Any]]:
    """Train to the end, or to `stop_after` steps; the reports, and the state where it stopped."""
    reports: list[StepReport] = []

    class Stop(Exception):
        pass

    def on_step(report: StepReport) -> None:
        reports.append(report)
        if report.step == stop_after:
            raise Stop

    with contextlib.suppress(Stop):
        trainer.run(on_step, lambda epoch: None)
    return reports, copy.deepcopy(trainer.state())
