"""What rules look at: named numbers with their intervals, taken from an evaluation, an analysis and a training run.

| name | what it is |
|---|---|
| `share.<category>` | per cent of the pictures that training sees, Wilson's interval |
| `recommended.<category>` | least share in per cent that is recommended |
| `pictures` | pictures of the training set |
| `captions.<problem>` | per cent of the captions with that finding of the audit |
| `captions.ages` | per cent of the captions that say an age, and another one than most |
| `gap.<scenario>` | how far a scenario is from its target, 0 to 1 |
| `overall.<figure>` | a figure over all scenarios, last checkpoint at full strength |
| `scale.lower.<figure>` | the figure at the best lower LoRA scale less that at full strength; `scale.higher` alike |
| `epoch.earlier.<figure>` | the figure of the best earlier checkpoint less that of the last; `.epoch` is its epoch |
| `epoch.rise.<figure>` | the figure of the last checkpoint less that of the one before |
| `training.<key>` | of the run: showings of each picture, steps, rank, learning rate, rise of the loss |
| `set.<key>` | of the training pictures against references: `strangers`, `split_by_age`, `copied` |

Differences are paired prompt by prompt on the same noise.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from scipy import stats

from onmodel.core.config import Config
from onmodel.core.vocabulary import CATEGORIES
from onmodel.dataset.ages import Age, age_words
from onmodel.dataset.analysis import Analysis, Row
from onmodel.dataset.audit import Problem, audit, expect
from onmodel.dataset.mend import Expected, own_part
from onmodel.evaluation.metrics import AVERAGE_TARGET, HEADLINE, TARGETS, Figure
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.statistics import paired

COMPARED = ("on_model", "identity", "found", "framing", "count_right", "prompt_fidelity")
"""Figures that are compared between checkpoints and scales."""


class Fact(Config):
    """One number."""

    value: float
    low: float
    high: float
    """95 % interval; equal to the value where it is counted and not estimated."""
    count: int = 0
    """Pictures (or prompts, for differences) behind it."""
    at: str = ""
    """What it was found at: a checkpoint or a scale."""


Facts = Mapping[str, Fact]


def exact(value: float, count: int = 0, at: str = "") -> Fact:
    """A number without uncertainty."""
    return Fact(value=value, low=value, high=value, count=count, at=at)


def share_of(members: float, total: int) -> Fact:
    """`members` of `total` in per cent with Wilson's 95 % interval; repeats may make `members` fractional."""
    part = members / total
    found = stats.binomtest(round(members), total).proportion_ci(0.95, "wilson")
    return Fact(
        value=100 * part, low=min(100 * part, 100 * found.low), high=max(100 * part, 100 * found.high), count=total
    )


def analysis_facts(analysis: Analysis, trigger: str | None = None) -> dict[str, Fact]:
    """Shares and caption findings of a dataset; empty for one without a readable picture.

    Args:
        trigger: the word for the character; None reads it from the captions, which works where most of them have it.
    """
    rows = [row for row in analysis.rows if row.error is None]
    if not rows:
        return {}
    facts = {"pictures": exact(len(rows), len(rows))}
    for name in CATEGORIES:
        # Weighted by repeats, as training sees it; the interval by how many pictures there are.
        facts[f"share.{name}"] = share_of(analysis.shares[name] / 100 * len(rows), len(rows))
        facts[f"recommended.{name}"] = exact(analysis.categories[name].low)
    facts["share.unclassified"] = share_of(analysis.unclassified_share / 100 * len(rows), len(rows))
    return facts | _caption_facts(rows, trigger)


def _caption_facts(rows: Sequence[Row], trigger: str | None) -> dict[str, Fact]:
    expected = expect([row.caption for row in rows], Expected(trigger))
    counts = Counter(
        finding.problem
        for row in rows
        for finding in {f.problem: f for f in audit(row.file, [row.caption], row, expected)}.values()
    )
    facts = {f"captions.{problem.name.lower()}": share_of(counts[problem], len(rows)) for problem in Problem}
    if expected.trigger is None:
        del facts["captions.no_trigger"], facts["captions.trigger_not_first"]
    minority = age_groups(rows)
    if minority:
        facts["captions.ages"] = share_of(sum(minority.values()), len(minority))
    return facts


def age_groups(rows: Iterable[Row]) -> dict[str, bool]:
    """File -> whether its caption says an age that excludes the most common one; only captions that say an age."""
    said: dict[str, frozenset[Age]] = {}
    for row in rows:
        allowed = frozenset(Age)
        words = age_words(own_part(row.caption))
        for word in words:
            allowed &= word.ages
        if words and allowed:
            said[row.file] = allowed
    votes = Counter(age for ages in said.values() for age in sorted(ages))
    if not votes:
        return {}
    most = max(votes, key=lambda age: (votes[age], age))
    return {file: most not in ages for file, ages in said.items()}


def trial_facts(evaluations: Sequence[Evaluation]) -> dict[str, Fact]:
    """Gaps, figures and differences of one trial's evaluations, in any order; empty without any.

    The last checkpoint at scale 1 is what is judged (or at the scale nearest to 1 that there is).
    """
    if not evaluations:
        return {}
    ordered = sorted(evaluations, key=lambda e: (*order(e), e.scale))
    last = judged(ordered)
    facts = {f"overall.{name}": fact for name, figure in last.overall.items() if (fact := _fact(figure)) is not None}
    facts |= {f"gap.{name}": exact(gap(last, name)) for name in last.scenarios}
    for name, figures in last.scenarios.items():
        facts |= {f"{name}.{metric}": fact for metric, figure in figures.items() if (fact := _fact(figure)) is not None}
    earlier = [e for e in ordered if e.scale == last.scale and order(e) < order(last)]
    own = [e for e in ordered if e.checkpoint == last.checkpoint]
    facts |= _best("epoch.earlier", last, earlier, lambda e: e.checkpoint)
    facts |= _best("scale.lower", last, [e for e in own if e.scale < last.scale], lambda e: f"{e.scale:g}")
    facts |= _best("scale.higher", last, [e for e in own if e.scale > last.scale], lambda e: f"{e.scale:g}")
    best = next((fact.at for name, fact in facts.items() if name.startswith("epoch.earlier.")), None)
    epochs = [e.epoch for e in earlier if e.checkpoint == best and e.epoch is not None]
    if epochs:
        facts["epoch.earlier.epoch"] = exact(epochs[0])
    if earlier:
        facts |= {
            f"epoch.rise.{metric}": fact
            for metric in COMPARED
            if (fact := difference(earlier[-1], last, metric, earlier[-1].checkpoint)) is not None
        }
    return facts


def order(evaluation: Evaluation) -> tuple[int, str]:
    """By how long the checkpoint was trained; by its name where it does not say."""
    return (evaluation.step or 0, evaluation.checkpoint)


def judged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The one that the diagnosis is about: of the last checkpoint, at the scale nearest to 1."""
    last = max(map(order, evaluations))
    return min((e for e in evaluations if order(e) == last), key=lambda e: (abs(e.scale - 1), e.scale))


def _best(
    name: str, last: Evaluation, others: Sequence[Evaluation], at: Callable[[Evaluation], str]
) -> dict[str, Fact]:
    """Differences of the best of `others` to `last`, all of them from the same one."""
    found = [(fact.value, e) for e in others if (fact := difference(last, e, HEADLINE, "")) is not None]
    if not found:
        return {}
    best = max(found, key=lambda pair: (pair[0], at(pair[1])))[1]
    return {
        f"{name}.{metric}": fact
        for metric in COMPARED
        if (fact := difference(last, best, metric, at(best))) is not None
    }


def difference(first: Evaluation, second: Evaluation, metric: str, at: str) -> Fact | None:
    """`second` less `first` over all scenarios; None with fewer than three prompts in common."""
    before, after = first.overall.get(metric), second.overall.get(metric)
    if before is None or after is None or len(before.values) != len(after.values):
        return None
    found = paired(before.numbers, after.numbers).difference
    return None if found is None else Fact(value=found.mean, low=found.low, high=found.high, count=found.count, at=at)


def gap(evaluation: Evaluation, scenario: str) -> float:
    """How far a scenario is from where it should be, 0 to 1: the larger of what is lacking to its own target, and of
    its share of pictures on model to the target of the average.
    """
    figures = evaluation.scenarios[scenario]
    lacking = [AVERAGE_TARGET - mean for mean in (figures[HEADLINE].mean,) if mean is not None]
    for target in TARGETS:
        mean = figures[target.metric].mean if target.scenario == scenario else None
        lacking += [] if mean is None else [target.least - mean]
    return min(1.0, max(0.0, *lacking)) if lacking else 0.0


def _fact(figure: Figure) -> Fact | None:
    if figure.mean is None:
        return None
    low, high = figure.ends
    return Fact(value=figure.mean, low=low, high=high, count=figure.count)
