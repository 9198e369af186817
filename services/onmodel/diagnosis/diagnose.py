"""From facts to findings: which rules hold, ranked by what mending them should bring."""

import shlex
from collections.abc import Mapping, Sequence

from onmodel import __version__
from onmodel.core.config import Config
from onmodel.core.vocabulary import CATEGORIES
from onmodel.diagnosis.facts import Fact, Facts
from onmodel.diagnosis.rules import Change, Kind, Rule, RuleTable, rule_table

RESULT_FILE = "diagnosis.json"
LEAST_GAIN = 0.01
"""One point of the average over all scenarios: a cause that could bring less is not worth a training."""
UNKNOWN_GAP = 0.4
"""Of a scenario that was not evaluated: half of what the average should be."""


class Evidence(Config):
    """One fact that a finding stands on."""

    fact: str
    text: str
    measured: Fact
    threshold: float
    why: str
    """Where the threshold comes from."""
    strength: float


class Finding(Config):
    """A cause, why it is thought to be one, and what mends it."""

    rule: str
    cause: str
    evidence: tuple[Evidence, ...]
    strength: float
    """Of the weakest evidence, 0 to 1."""
    scenarios: tuple[str, ...]
    """Those that it explains and that fall short."""
    expected_gain: float
    """Most that mending it should add to the average over all scenarios, 0 to 1: what they lack times strength, or what
    the mended model was measured to add."""
    kind: Kind
    wants: tuple[str, ...]
    """Categories of which the set should have more."""
    material: str | None
    """What composites that mend it are made of."""
    fix: str
    commands: tuple[str, ...]
    changes: tuple[Change, ...]


class Unjudged(Config):
    """A rule that lacks a measurement."""

    rule: str
    cause: str
    missing: tuple[str, ...]
    command: str
    """What would measure it."""


class Cleared(Config):
    """A cause that was looked for and not found."""

    rule: str
    cause: str
    reason: str


class Diagnosis(Config):
    """The content of `diagnosis.json`."""

    schema_version: int = 1
    onmodel_version: str = __version__
    trial: str | None
    checkpoint: str | None
    dataset: str | None
    conclusion: str
    findings: tuple[Finding, ...]
    """By falling expected gain."""
    unjudged: tuple[Unjudged, ...]
    cleared: tuple[Cleared, ...]
    gaps: dict[str, float]
    """Scenario -> how far it is from its target; empty without an evaluation."""
    facts: dict[str, Fact]


def diagnose(
    facts: Facts,
    slots: Mapping[str, str],
    *,
    trial: str | None = None,
    checkpoint: str | None = None,
    dataset: str | None = None,
    table: RuleTable | None = None,
) -> Diagnosis:
    """Judge every rule by `facts`.

    Args:
        facts: what was measured, see `facts`.
        slots: what commands name: {trial}, {dataset}, {references}, …; `slots_of` fills them.
        trial, checkpoint, dataset: what the facts are of, for the record.
        table: other rules than the packaged ones.
    """
    table = table or rule_table()
    gaps = {name: facts[f"gap.{name}"].value for name in CATEGORIES if f"gap.{name}" in facts}
    findings: list[Finding] = []
    unjudged: list[Unjudged] = []
    cleared: list[Cleared] = []
    for rule in sorted(table.rule, key=lambda r: r.id):
        strength = rule.strength(facts)
        if strength is None:
            unjudged.append(_unjudged(rule, facts, table, slots))
            continue
        short = [s for s in rule.scenarios if (gaps.get(s, 0.0) if gaps else UNKNOWN_GAP) > 0]
        lacking = sum(gaps[s] if gaps else UNKNOWN_GAP for s in short) / (len(gaps) or len(CATEGORIES))
        # What was tried (a lower scale, an earlier checkpoint) is known; what was not is judged by its evidence.
        gain = lacking * strength if rule.gain is None or not strength else min(lacking, facts[rule.gain].value)
        if gain >= LEAST_GAIN:
            findings.append(_finding(rule, strength, gain, short, facts, slots))
        else:
            cleared.append(Cleared(rule=rule.id, cause=rule.cause, reason=_reason(rule, facts)))
    findings.sort(key=lambda f: (-f.expected_gain, f.rule))
    return Diagnosis(
        trial=trial,
        checkpoint=checkpoint,
        dataset=dataset,
        conclusion=_conclusion(findings, unjudged, cleared, gaps),
        findings=tuple(findings),
        unjudged=tuple(unjudged),
        cleared=tuple(cleared),
        gaps=gaps,
        facts=dict(sorted(facts.items())),
    )


def _finding(
    rule: Rule,
    strength: float,
    gain: float,
    short: Sequence[str],
    facts: Facts,
    slots: Mapping[str, str],
) -> Finding:
    at = facts[rule.when[0].fact].at
    filled = {**slots, "next": slots["next"].replace("RULE", rule.id), "at": at or "AT"}
    filled["derived"] = slots["derived"].replace("RULE", rule.id)
    return Finding(
        rule=rule.id,
        cause=rule.cause,
        evidence=tuple(
            Evidence(
                fact=c.fact,
                text=c.say(facts),
                measured=facts[c.fact],
                threshold=c.threshold(facts),
                why=c.why,
                strength=round(c.strength(facts) or 0.0, 4),
            )
            for c in (*rule.when, *rule.any, *rule.also)
            if c.strength(facts)
        ),
        strength=round(strength, 4),
        scenarios=tuple(short),
        expected_gain=round(gain, 4),
        kind=rule.kind,
        wants=rule.wants,
        material=rule.material,
        fix=rule.fix.format(**filled),
        commands=tuple(_command(command, filled) for command in rule.commands),
        changes=tuple(_change(change, filled, facts) for change in rule.changes),
    )


def _command(text: str, filled: Mapping[str, str]) -> str:
    # Options at the end may be none.
    return text.format(**filled).rstrip()


def _change(change: Change, filled: Mapping[str, str], facts: Facts) -> Change:
    """A change with its slots filled, and a fact as its number."""
    if change.fact is not None:
        return Change(key=change.key, set=round(facts[change.fact].value))
    if not isinstance(change.set, str):
        return change
    # Slots are quoted for a shell; a config holds the bare path.
    return change.model_copy(update={"set": " ".join(shlex.split(change.set.format(**filled)))})


def _unjudged(rule: Rule, facts: Facts, table: RuleTable, slots: Mapping[str, str]) -> Unjudged:
    missing = rule.missing(facts)
    command = _command(table.command_for(missing[0]), slots)
    return Unjudged(rule=rule.id, cause=rule.cause, missing=missing, command=command)


def _reason(rule: Rule, facts: Facts) -> str:
    """The first condition that does not hold, as numbers; or that mending it would bring next to nothing."""
    for condition in (*rule.when, *rule.any):
        if condition.strength(facts) == 0.0:
            fact = facts[condition.fact]
            side = "below" if condition.below is not None else "above"
            span = "" if fact.low == fact.high else f" ({fact.low:.3g} to {fact.high:.3g})"
            sure = "surely " if condition.sure and fact.low != fact.high else ""
            return f"{condition.fact} is {fact.value:.3g}{span}, not {sure}{side} {condition.threshold(facts):g}"
    return "the scenarios that it would explain hardly fall short"


def _conclusion(
    findings: Sequence[Finding], unjudged: Sequence[Unjudged], cleared: Sequence[Cleared], gaps: Mapping[str, float]
) -> str:
    rest = f" {len(unjudged)} could not be judged for lack of a measurement." if unjudged else ""
    if not findings:
        if gaps and not any(gaps.values()):
            return f"Every scenario is at its target; no cause to look for.{rest}"
        return f"No cause found: {len(cleared)} were looked for and do not hold.{rest}"
    first = findings[0]
    evidence = "; ".join(e.text for e in first.evidence)
    others = len(findings) - 1
    more = "" if not others else f" {others} further cause{'s' if others > 1 else ''} found."
    return f"First: {first.cause} ({evidence}).{more}{rest}"
