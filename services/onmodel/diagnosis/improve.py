"""The loop: diagnose, mend, train, evaluate, compare with the best so far; until targets are met or nothing helps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onmodel.core.config import validate
from onmodel.core.errors import UserError
from onmodel.core.files import existing, file_hash, write_text
from onmodel.diagnosis.decide import decide
from onmodel.diagnosis.fixes import DATASET_STEPS, Workshop
from onmodel.diagnosis.journal import Decision, Journal, Result
from onmodel.diagnosis.next_trial import next_config
from onmodel.diagnosis.project import Project
from onmodel.diagnosis.run import Request, run_diagnosis
from onmodel.diagnosis.sources import Names
from onmodel.evaluation.choice import choose
from onmodel.evaluation.compare import compare
from onmodel.evaluation.evaluate import evaluate
from onmodel.evaluation.metrics import ALL, HEADLINE
from onmodel.evaluation.record import RESULT_FILE as EVALUATION_FILE
from onmodel.evaluation.record import Evaluation, read_evaluation
from onmodel.evaluation.statistics import Verdict
from onmodel.evaluation.suite import TestSuite, load_suite
from onmodel.evaluation.tasks import Options, make_tasks, pictures_in, strangers_in
from onmodel.evaluation.trial import open_trial
from onmodel.training.config import TrainConfig, load_train_config, to_toml
from onmodel.training.job import CONFIG
from onmodel.training.run import train
from onmodel.training.sources import with_dataset_config

FIRST = "first"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Improvement:
    """Where the loop ended, and why."""

    results: tuple[Result, ...]
    stopped: str
    """A sentence."""

    @property
    def best(self) -> Result | None:
        """The best round."""
        return next((r for r in self.results if r.number == self.results[-1].best), None) if self.results else None


def improve(
    project: Project, shop: Workshop, rounds: int, say: Say, report: Callable[[Journal, str], None]
) -> Improvement:
    """Go through rounds until one of the ends is reached; what an earlier call finished is not done again.

    Args:
        rounds: most trainings in all.
        say: told what is decided and what came of it.
        report: writes the report; called after every round and at the end.

    Raises:
        UserError: of the project's files, or `WaitingForCuration`.
        ServiceError, ResourceError: from a step; what was finished is kept.
    """
    journal = Journal(project.output_dir)
    journal.claim(project)
    results = journal.results()
    while (stopped := _end(results, rounds)) is None:
        number = len(results) + 1
        decision = journal.decision(number) or _decide(number, journal, results, shop)
        say(_decided(decision))
        if results and not decision.steps:
            stopped = "Nothing is left that the loop may apply: see what was decided in the last round."
            break
        result = _run(decision, journal, results, shop)
        journal.write(result)
        results.append(result)
        say(result.sentence)
        report(journal, "")
    report(journal, stopped)
    return Improvement(tuple(results), stopped)


def _end(results: Sequence[Result], rounds: int) -> str | None:
    """Why the loop ends here, or None."""
    if not results:
        return None
    last = results[-1]
    measured = [target for target in last.targets if target.met is not None]
    if measured and all(target.met for target in measured):
        return f"Round {last.number} meets every target."
    if last.verdict in (Verdict.WORSE.value, Verdict.NOT_DECIDED.value):
        return f"Round {last.number} brought no decided gain over round {_best_before(results)}: {last.verdict}."
    if len(results) >= rounds:
        return f"{len(results)} round{'s' if len(results) > 1 else ''} done, as many as were asked for."
    return None


def _best_before(results: Sequence[Result]) -> int:
    return results[-2].best if len(results) > 1 else results[-1].number


def _decide(number: int, journal: Journal, results: Sequence[Result], shop: Workshop) -> Decision:
    """Diagnose the dataset (round 1) or the best trial, and write down what to do about it."""
    project = shop.project
    best = results[results[-1].best - 1] if results else None
    dataset = Path(best.dataset) if best is not None else project.dataset
    analysis = shop.analyze(dataset)
    references = pictures_in(project.references, "reference")
    trial = open_trial(Path(best.trial), trigger=project.trigger) if best is not None else None
    request = Request(
        out=journal.round(number) / "diagnosis",
        trial=trial,
        evaluations=_evaluations(best) if best is not None else (),
        analysis=analysis,
        references=references,
        strangers=strangers_in(Path(best.evaluation).parent) if best is not None else (),
        trigger=project.trigger,
        names=Names(references=project.references, film=project.film.files[0] if project.film is not None else None),
    )
    diagnosis = run_diagnosis(request, shop.services, shop.measured_with)
    decision = decide(
        number, diagnosis, analysis, project, tried(journal, results), dataset=str(dataset),
        trial=best.trial if best is not None else None,
    )  # fmt: skip
    journal.write(decision)
    return decision


def tried(journal: Journal, results: Sequence[Result]) -> set[str]:
    """Rules that earlier rounds applied."""
    decisions = [journal.decision(result.number) for result in results]
    return {c.rule for d in decisions if d is not None for c in d.choices if c.action == "applied"}


def _evaluations(result: Result) -> list[Evaluation]:
    """All that was evaluated of a round's trial."""
    found = [read_evaluation(p) for p in sorted(Path(result.evaluation).parent.glob(f"*/{EVALUATION_FILE}"))]
    return [e for e in found if e.trial == Path(result.trial).name]


def _decided(decision: Decision) -> str:
    lines = [f"Round {decision.number}: {decision.conclusion}"]
    lines += [f"  {c.rule}: {c.action}{f' ({c.step})' if c.step else ''}: {c.why}" for c in decision.choices]
    return "\n".join(lines)


def _run(decision: Decision, journal: Journal, results: Sequence[Result], shop: Workshop) -> Result:
    """Mend, train, evaluate, compare."""
    dataset, made = _mended(decision, journal, shop)
    config = _config(decision, dataset, shop.project)
    write_text(journal.round(decision.number) / CONFIG, to_toml(config))
    done = train(config, num_workers=shop.project.num_workers)
    if not done.checkpoints:
        raise UserError(f"{done.trial_dir}: training left no checkpoint; look at its metrics and problems")
    folder, evaluation, recommended = _evaluate(done.checkpoints, journal, shop)
    before = results[results[-1].best - 1] if results else None
    verdict, sentence = _verdict(decision.number, evaluation, before)
    better = before is None or verdict == Verdict.BETTER.value
    analysis = shop.analyze(dataset)
    return Result(
        number=decision.number,
        dataset=str(dataset),
        pictures=analysis.pictures,
        shares=analysis.shares,
        made=tuple(made),
        trial=str(done.trial_dir),
        config=str(journal.round(decision.number) / CONFIG),
        checkpoint=str(done.checkpoints[-1]),
        checkpoint_hash=file_hash(done.checkpoints[-1]),
        evaluation=str(folder),
        headline=evaluation.overall[HEADLINE],
        targets=evaluation.targets,
        recommended=recommended,
        verdict=verdict,
        best=decision.number if better else results[-1].best,
        sentence=sentence,
    )


def _mended(decision: Decision, journal: Journal, shop: Workshop) -> tuple[Path, list[str]]:
    """The dataset after the round's steps, each of which writes one of its own; and what each did."""
    dataset, made = existing(Path(decision.dataset), "dataset"), list[str]()
    for step in decision.steps:
        if step not in DATASET_STEPS:
            continue
        work = journal.round(decision.number) / step
        out, note = work / "dataset", work / "done.txt"
        if not (out.is_dir() and note.is_file()):
            write_text(note, DATASET_STEPS[step](shop, dataset, out, work) + "\n")
        made.append(f"{step}: {note.read_text(encoding='utf-8').strip()}")
        dataset = out
    return dataset, made


def _config(decision: Decision, dataset: Path, project: Project) -> TrainConfig:
    """The best trial's config, or the project's, with the round's changes."""
    given = Path(decision.trial) / CONFIG if decision.trial is not None else project.training
    config = load_train_config(given)
    if decision.trial is None:
        # A dataset config of its own would be replaced; what it says of resolution and the like stays.
        config = with_dataset_config(config)
    config = next_config(config, decision.changes, f"{project.name}_r{decision.number}")
    config = config.with_changes(
        training={"output_dir": str(project.output_dir / "runs")},
        data={"train_data_dir": str(dataset), "dataset_config": None},
    )
    return _balanced(config) if "mix" in decision.steps else config


def _balanced(config: TrainConfig) -> TrainConfig:
    """The same run with every stage shown towards the recommended shares."""
    if config.stage:
        return config.model_copy(
            update={"stage": tuple(s.model_copy(update={"mix": "balanced"}) for s in config.stage)}
        )
    value = config.model_dump()
    epochs, steps = (value["training"].pop(key) for key in ("max_train_epochs", "max_train_steps"))
    # Epochs go before steps, as in a config that has both.
    length = {"epochs": epochs} if epochs is not None else {"steps": steps}
    value["stage"] = [{"name": "balanced", "mix": "balanced", **length}]
    return validate(TrainConfig, value, "the balanced trial")


def _evaluate(checkpoints: Sequence[Path], journal: Journal, shop: Workshop) -> tuple[Path, Evaluation, str]:
    """Draw and measure: some checkpoints at full strength, the last at every scale.

    Returns:
        Folder and figures of the last at full strength, by which rounds are compared; and what to use of them all.
    """
    project = shop.project
    suite = suite_of(project)
    options = Options(
        references=pictures_in(project.references, "reference"),
        measured_with=shop.measured_with,
        device=project.device,
    )
    spread = max(1, len(checkpoints) // project.checkpoints)
    chosen = checkpoints[::-1][::spread][: project.checkpoints][::-1]
    trials = [open_trial(path, trigger=project.trigger) for path in chosen]
    out = journal.folder / "evaluation"
    others = [scale for scale in project.scales if scale != 1.0]
    tasks = make_tasks(trials, suite, options, output_dir=out)
    tasks += make_tasks(trials[-1:], suite, options, scales=others, output_dir=out) if others else []
    done = evaluate(tasks, suite, options, shop.services)
    last = len(trials) - 1
    name = done[last].checkpoint.removesuffix(".safetensors")
    recommended = choose(done).reason if len(done) > 1 else f"{name} at 1 is all that was evaluated."
    return tasks[last].folder, done[last], recommended


def suite_of(project: Project) -> TestSuite:
    """The project's suite with its trigger, class and age. Raises UserError."""
    slots = {"trigger": project.trigger, "class": project.class_word, "age": project.age}
    return load_suite(project.test_suite).with_slots(slots)


def _verdict(number: int, evaluation: Evaluation, before: Result | None) -> tuple[str, str]:
    """In a word and in a sentence, against the best before."""
    share = evaluation.overall[HEADLINE].mean
    shown = "–" if share is None else f"{100 * share:.0f} %"
    if before is None:
        return FIRST, f"Round {number}: {shown} of the pictures are on model."
    found = compare([read_evaluation(Path(before.evaluation) / EVALUATION_FILE), evaluation])
    pair = found.pair(found.models[1], ALL)
    assert pair is not None
    return pair.verdict.value, f"Round {number}: {found.verdict}"
