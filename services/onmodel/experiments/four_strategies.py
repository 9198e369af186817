"""The experiment of docs/experiment.md: six trials for each character and seed, judged by truth and by the product.

    python -m onmodel.experiments.four_strategies WORK [--step prepare|rate|make|judge|report|all] [--reduced] [--dose]
        [--processes N] [--ray] [--seconds S] [--characters zibo mirel] [--seeds 1 2]
    python -m onmodel.experiments.four_strategies WORK --step pack OUT
    python -m onmodel.experiments.four_strategies WORK --step unpack OUT

What lies whole in WORK is not made again. Prepare and judge start the services; make needs the sets of WORK alone,
which `WORK/sets.tar.xz` holds for a machine that has nothing else: `--step unpack WORK/sets.tar.xz` there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from onmodel.core.errors import OnModelError, exit_code
from onmodel.core.progress import console
from onmodel.experiments.plan import PLAN_FILE, Layout, Settings, claim

STEPS = ("prepare", "rate", "make", "judge", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a step, or all; returns the process's exit code."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        return _run(given)
    except OnModelError as error:
        print(error, file=sys.stderr)
        return exit_code(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The four strategies under control; see docs/experiment.md.")
    parser.add_argument("work", type=Path, help="Folder of the experiment.")
    parser.add_argument("place", type=Path, nargs="?", help="Of pack and unpack: a folder of tar files, or a file.")
    parser.add_argument("--step", choices=(*STEPS, "all", "pack", "unpack"), default="all")
    parser.add_argument("--reduced", action="store_true", help="Everything small: shows that it works.")
    parser.add_argument("--dose", action="store_true", help="The dose-response curves in place of the strategies.")
    parser.add_argument("--characters", nargs="+", help="Held-out characters; else all three.")
    parser.add_argument("--seeds", nargs="+", type=int, help="Else 1, 2, 3.")
    parser.add_argument("--learning-rate", type=float, help="Base rate of all trials.")
    parser.add_argument("--processes", type=int, default=1, help="Trials at once, and cores that render.")
    parser.add_argument("--ray", action="store_true", help="Make the trials on a Ray cluster.")
    parser.add_argument("--seconds", type=float, help="Begin no trial that would end after so long.")
    parser.add_argument("--probe", type=Path, help="Folder of the probe; else the bundled one.")
    return parser


def settings_of(given: argparse.Namespace) -> Settings | None:
    """The settings that the command line asks for; None where it leaves them to the folder."""
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name in ("characters", "seeds", "learning_rate")
        if (value := getattr(given, name)) is not None
    }
    new = not (given.work / PLAN_FILE).exists() and given.step in ("prepare", "all")
    if not (new or given.reduced or given.dose or changes):
        return None
    base = Settings.reduced() if given.reduced else Settings.dose_response() if given.dose else Settings()
    return base.model_copy(update=changes)


def _run(given: argparse.Namespace) -> int:
    layout = Layout(given.work)
    if given.step == "unpack":
        from onmodel.experiments.packing import unpack

        unpack(given.place, given.work)
        return 0
    settings = claim(given.work, settings_of(given))
    if given.step == "pack":
        from onmodel.experiments.packing import pack

        for line in pack(settings, layout, given.place):
            console.print(line, highlight=False, markup=False)
        return 0
    for step in STEPS if given.step == "all" else (given.step,):
        left = _step(step, given, settings, layout)
        if left:
            console.print(f"{left} trials are left; run the step make again", highlight=False)
            return 0
    return 0


def _step(step: str, given: argparse.Namespace, settings: Settings, layout: Layout) -> int:
    """Run one step; returns how many trials are left to make."""
    # Each brings along what it needs alone: make runs where there is neither Ray nor a service.
    if step == "prepare":
        from onmodel.experiments.packing import pack_sets
        from onmodel.experiments.prepare import prepare

        prepare(settings, layout, given.processes)
        pack_sets(layout)
    elif step in ("rate", "make"):
        return _make(step, given, settings, layout)
    elif step == "judge":
        from onmodel.experiments.judge import judge

        judge(settings, layout, given.probe)
    else:
        from onmodel.experiments.report import write_report

        console.print(f"{write_report(settings, layout)}", highlight=False)
    return 0


def _make(step: str, given: argparse.Namespace, settings: Settings, layout: Layout) -> int:
    from onmodel.experiments.make import in_processes, jobs_of, make, rate_jobs
    from onmodel.experiments.rate import choose, with_rate

    run = in_processes(given.processes)
    if given.ray:
        from onmodel.experiments.ray_make import over_cluster

        run = over_cluster
    if step == "make":
        return make(layout, jobs_of(with_rate(settings, layout), layout), run, given.seconds)
    if settings.dose or given.learning_rate is not None:
        return 0
    left = make(layout, rate_jobs(settings, layout), run, given.seconds)
    if not left:
        best = choose(layout)
        console.print(f"base learning rate {best.rate:g}, held-back loss {best.loss:.4f}", highlight=False)
    return left


if __name__ == "__main__":
    sys.exit(main())
