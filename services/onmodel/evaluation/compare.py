"""Several checkpoints side by side: paired verdicts per scenario and figure, and training mixes beside failures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import model_validator

from onmodel.core.config import Config
from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES
from onmodel.dataset.recommended import LABELS
from onmodel.evaluation.curves import Curve, curves
from onmodel.evaluation.metrics import ALL, HEADLINE, IDENTITY, METRICS, Outcome
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.statistics import Verdict, paired


class Pair(Config):
    """One figure of one scenario, of a later model against the first."""

    first: str
    second: str
    scenario: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    prompts: int
    verdict: Verdict


class Mix(Config):
    """What a trial was trained on: per category its share of the pictures in per cent."""

    pictures: int
    shares: dict[str, float]


class Comparison(Config):
    """What was compared and what came of it; the JSON beside the report."""

    schema_version: int = 2
    suite: str
    models: tuple[str, ...]
    """Names as shown, in the order given; the first is what the others are compared with."""
    verdict: str
    """One or two sentences."""
    pairs: tuple[Pair, ...]
    mixes: dict[str, Mix]
    recommended: dict[str, tuple[float, float]]
    explanations: dict[str, tuple[str, ...]]
    """By model: what its training mix explains."""
    evaluations: tuple[Evaluation, ...]
    curves: tuple[Curve, ...] = ()
    """By epoch and by LoRA scale, of the models of which several were evaluated."""

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        if len(self.models) != len(self.evaluations):
            raise ValueError("one name for each evaluation")
        return self

    def pair(self, second: str, scenario: str, metric: str = HEADLINE) -> Pair | None:
        """The comparison of `second` with the first model, or None for the first itself."""
        wanted = (second, scenario, metric)
        return next((p for p in self.pairs if (p.second, p.scenario, p.metric) == wanted), None)


def names_of(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """A short name for each: the trial's, with checkpoint or scale where that alone would not tell them apart."""
    names = [e.trial for e in evaluations]
    if len(set(names)) < len(names):
        names = [e.checkpoint.removesuffix(".safetensors") for e in evaluations]
    if len(set(names)) < len(names):
        names = [f"{name} at {e.scale:g}" for name, e in zip(names, evaluations, strict=True)]
    if len(set(names)) < len(names):
        raise UserError(f"{', '.join(sorted(set(names)))}: the same model is given twice; name each once")
    return tuple(names)


def compare(
    evaluations: Sequence[Evaluation],
    *,
    mixes: Mapping[str, Mix] | None = None,
    recommended: Mapping[str, tuple[float, float]] | None = None,
    others: Sequence[Sequence[Evaluation]] = (),
) -> Comparison:
    """Compare evaluations of one suite; the first is what the others are measured against.

    Args:
        mixes: training mix by trial name, where known.
        recommended: least and most share in per cent by category.
        others: for each of `evaluations`, further ones that lie beside it (see `siblings`): epochs and scales of the
            same trial become curves.

    Raises:
        UserError: fewer than two, the same one twice, or evaluations of different suites.
    """
    if len(evaluations) < 2:
        raise UserError("a comparison needs at least two models")
    first = evaluations[0]
    for other in evaluations[1:]:
        if (other.suite, other.seeds, tuple(other.scenarios), len(other.prompts)) != (
            first.suite,
            first.seeds,
            tuple(first.scenarios),
            len(first.prompts),
        ):
            raise UserError(
                f"{other.trial} was evaluated with another suite than {first.trial}; evaluate both with one"
            )
    names = names_of(evaluations)
    known = {name: mix for name, e in zip(names, evaluations, strict=True) if (mix := (mixes or {}).get(e.trial))}
    ranges = dict(recommended or {})
    pairs = tuple(
        pair
        for name, evaluation in zip(names[1:], evaluations[1:], strict=True)
        for pair in _pairs(names[0], first, name, evaluation)
    )
    explanations = {
        name: tuple(explain(e, known[name], ranges))
        for name, e in zip(names, evaluations, strict=True)
        if name in known
    }
    return Comparison(
        suite=first.suite,
        models=names,
        verdict=_sentence(names, evaluations, pairs),
        pairs=pairs,
        mixes=known,
        recommended=ranges,
        explanations=explanations,
        evaluations=tuple(evaluations),
        curves=curves(dict(zip(names, evaluations, strict=True)), dict(zip(names, others, strict=False))),
    )


def _pairs(first_name: str, first: Evaluation, second_name: str, second: Evaluation) -> list[Pair]:
    pairs: list[Pair] = []
    blocks = [(name, first.scenarios[name], second.scenarios[name]) for name in first.scenarios]
    for scenario, before, after in [*blocks, (ALL, first.overall, second.overall)]:
        for metric in before:
            found = paired(
                before[metric].numbers,
                after[metric].numbers,
                higher_is_better=METRICS[metric].higher_is_better,
            )
            difference = found.difference
            pairs.append(
                Pair(
                    first=first_name,
                    second=second_name,
                    scenario=scenario,
                    metric=metric,
                    difference=difference.mean if difference else None,
                    low=difference.low if difference else None,
                    high=difference.high if difference else None,
                    prompts=difference.count if difference else 0,
                    verdict=found.verdict,
                )
            )
    return pairs


def words(scenarios: Sequence[str]) -> str:
    """Scenario names for a sentence: "close-up, full body and occlusion"."""
    texts = [LABELS.get(s, s) for s in scenarios]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def label(scenario: str) -> str:
    """A scenario's name as shown."""
    if scenario in (ALL, "average"):
        return "All scenarios"
    text = LABELS.get(scenario, scenario.replace("_", " "))
    return f"{text[:1].upper()}{text[1:]}"


def met(evaluation: Evaluation) -> tuple[int, int]:
    """Targets met, and targets measured; the average of all is not counted among them."""
    results = [t for t in evaluation.targets if t.scenario != ALL and t.met is not None]
    return sum(bool(t.met) for t in results), len(results)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _sentence(names: Sequence[str], evaluations: Sequence[Evaluation], pairs: Sequence[Pair]) -> str:
    first = evaluations[0]
    parts: list[str] = []
    for name, evaluation in zip(names[1:], evaluations[1:], strict=True):
        own = {p.scenario: p for p in pairs if p.second == name and p.metric == HEADLINE}
        overall = own.pop(ALL)
        before, after = first.overall[HEADLINE].mean, evaluation.overall[HEADLINE].mean
        head = {
            Verdict.BETTER: f"{name} is better than {names[0]}",
            Verdict.WORSE: f"{name} is worse than {names[0]}",
            Verdict.NOT_DECIDED: f"Between {names[0]} and {name} the share on model is not decided",
        }[overall.verdict]
        parts.append(f"{head}: {_percent(after)} of {name}'s pictures are on model, against {_percent(before)}.")
        parts += _identity(name, evaluation, first, pairs)
        by = {verdict: [s for s, p in own.items() if p.verdict is verdict] for verdict in Verdict}
        clauses = [
            f"{verdict.value} in {words(found) if len(found) < len(own) else f'all {len(own)} scenarios'}"
            for verdict, found in by.items()
            if found
        ]
        (now, of), (then, _) = met(evaluation), met(first)
        scenarios = "; ".join(clauses)
        parts.append(f"The share is {scenarios}. It meets {now} of {of} targets, {names[0]} {then}.")
    return " ".join(parts)


def _identity(name: str, evaluation: Evaluation, first: Evaluation, pairs: Sequence[Pair]) -> list[str]:
    """Says where identity is decided. A share of pictures needs many of them, a mean does not, and of all figures
    identity follows the truth most closely (docs/experiment.md).
    """
    now, then = (each.overall[IDENTITY].mean for each in (evaluation, first))
    own = {p.scenario: p.verdict for p in pairs if (p.second, p.metric) == (name, IDENTITY)}
    overall = own.pop(ALL, Verdict.NOT_DECIDED)
    decided = [(v, [s for s, found in own.items() if found is v]) for v in (Verdict.BETTER, Verdict.WORSE)]
    clauses = [f"{verdict.value} in {words(found)}" for verdict, found in decided if found]
    if overall is not Verdict.NOT_DECIDED:
        clauses.insert(0, f"{overall.value} over all, {_percent(now)} against {_percent(then)}")
    return [f"Its identity is {'; '.join(clauses)}."] if clauses else []


def explain(evaluation: Evaluation, mix: Mix, recommended: Mapping[str, tuple[float, float]]) -> list[str]:
    """Sentences that put a lack in the training mix beside what came out, worst first.

    A scenario is named when its share lies below the recommended range and fewer of its pictures came out right than
    of all pictures together.
    """
    overall = evaluation.overall[HEADLINE].mean or 0.0
    found: list[tuple[float, str]] = []
    for category in CATEGORIES:
        figure = evaluation.scenarios.get(category, {}).get(HEADLINE)
        low = recommended.get(category, (0.0, 100.0))[0]
        share = mix.shares.get(category, 0.0)
        if figure is None or figure.mean is None or share >= low or figure.mean > overall:
            continue
        outcomes = Counter(p.outcome for p in evaluation.pictures if p.scenario == category)
        total = outcomes.total()
        outcomes.pop(Outcome.RIGHT.value, None)
        why = outcomes.most_common(1)
        mostly = f", mostly {why[0][0]}" if why else ""
        found.append(
            (
                figure.mean,
                f"{label(category)}: {share:.1f} % of the training pictures (recommended from {low:.0f} %); "
                f"{round(figure.mean * total)} of {total} pictures came out right{mostly}.",
            )
        )
    return [sentence for _, sentence in sorted(found)]
