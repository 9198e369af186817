"""Rules hold by their evidence alone, and every command they give is one of ours."""

import shlex
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.cli.main import load_verb
from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES
from onmodel.diagnosis.diagnose import LEAST_GAIN, diagnose
from onmodel.diagnosis.facts import Fact
from onmodel.diagnosis.rules import PACKAGED, Rule, RuleTable, rule_table
from onmodel.diagnosis.sources import Names, Sources, slots_of

from .made import analysis, fact

TABLE = rule_table()
RULES = {rule.id: rule for rule in TABLE.rule}
NAMES = sorted({name for rule in TABLE.rule for name in rule.missing({})} | {f"gap.{s}" for s in CATEGORIES})
SLOTS = slots_of(Sources(analysis=analysis({"zibo, a boy": 10})), Path("out dir"), Names(references=Path("held back")))


@st.composite
def some_facts(draw: st.DrawFn) -> dict[str, Fact]:
    """Any of the facts that rules look at, anywhere about their thresholds."""
    chosen = draw(st.sets(st.sampled_from(NAMES)))
    found: dict[str, Fact] = {}
    for name in sorted(chosen):
        large = name.startswith(("share.", "captions.", "set.", "training.", "recommended."))
        value = draw(st.floats(0, 100 if large else 1))
        found[name] = fact(value, draw(st.floats(0, 20 if large else 0.2)), at="0.8")
    return found


def strongest(rule: Rule) -> dict[str, Fact]:
    """Facts by which a rule holds as strongly as it can, every scenario falling short."""
    found = {f"gap.{s}": fact(0.5) for s in CATEGORIES}
    for condition in (*rule.when, *rule.any, *rule.also):
        found |= {name: fact(20.0) for name in condition.needs[1:]}
        found[condition.fact] = fact(condition.full)
    return found | {change.fact: fact(2.0) for change in rule.changes if change.fact}


@given(some_facts())
@settings(max_examples=200, deadline=None)
def test_a_finding_stands_on_evidence_beyond_its_threshold(facts: dict[str, Fact]) -> None:
    for finding in diagnose(facts, SLOTS).findings:
        rule = RULES[finding.rule]
        named = {e.fact for e in finding.evidence}
        assert {c.fact for c in rule.when} <= named
        assert not rule.any or {c.fact for c in rule.any} & named
        for condition in rule.when:
            measured, limit = facts[condition.fact], condition.threshold(facts)
            if condition.below is not None:
                assert (measured.high if condition.sure else measured.value) < limit
            else:
                assert (measured.low if condition.sure else measured.value) > limit
        assert 0 < finding.strength <= 1
        assert LEAST_GAIN <= finding.expected_gain <= 1
        assert set(finding.scenarios) <= set(rule.scenarios)


@given(some_facts(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_facts_and_rules_changes_nothing(facts: dict[str, Fact], random: Random) -> None:
    names, rules = list(facts), list(TABLE.rule)
    random.shuffle(names)
    random.shuffle(rules)
    shuffled = RuleTable(rule=tuple(rules), measure=TABLE.measure)
    assert diagnose({n: facts[n] for n in names}, SLOTS, table=shuffled) == diagnose(facts, SLOTS)


@given(some_facts())
@settings(max_examples=100, deadline=None)
def test_every_rule_is_named_once(facts: dict[str, Fact]) -> None:
    result = diagnose(facts, SLOTS)
    named = [each.rule for each in (*result.findings, *result.unjudged, *result.cleared)]
    assert sorted(named) == sorted(RULES)
    gains = [finding.expected_gain for finding in result.findings]
    assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize("rule", TABLE.rule, ids=lambda r: r.id)
def test_a_finding_goes_with_its_evidence(rule: Rule) -> None:
    facts = strongest(rule)
    assert rule.id in {f.rule for f in diagnose(facts, SLOTS).findings}
    for condition in rule.when:
        without = {name: value for name, value in facts.items() if name != condition.fact}
        result = diagnose(without, SLOTS)
        assert rule.id not in {f.rule for f in result.findings}
        assert condition.fact in next(u.missing for u in result.unjudged if u.rule == rule.id)
        at_threshold = {**facts, condition.fact: fact(condition.threshold(facts))}
        assert rule.id in {c.rule for c in diagnose(at_threshold, SLOTS).cleared}


@pytest.mark.parametrize("rule", [r for r in TABLE.rule if r.any], ids=lambda r: r.id)
def test_one_of_several_signs_is_enough_and_none_is_not(rule: Rule) -> None:
    facts = strongest(rule)
    none = facts | {c.fact: fact(c.threshold(facts)) for c in rule.any}
    assert rule.id in {c.rule for c in diagnose(none, SLOTS).cleared}
    for condition in rule.any:
        one = diagnose({**none, condition.fact: facts[condition.fact]}, SLOTS)
        evidence = next(f.evidence for f in one.findings if f.rule == rule.id)
        assert {e.fact for e in evidence} == {c.fact for c in (*rule.when, condition)}
        # What shows in one sign needs no other; what shows in none hangs on those that are not measured.
        alone = {name: value for name, value in facts.items() if name not in {c.fact for c in rule.any}}
        assert rule.id in {f.rule for f in diagnose({**alone, condition.fact: facts[condition.fact]}, SLOTS).findings}
        unseen = diagnose({**alone, condition.fact: none[condition.fact]}, SLOTS)
        assert rule.id in {u.rule for u in unseen.unjudged}


def test_of_two_things_that_were_tried_the_one_that_brought_more_comes_first() -> None:
    for lower, earlier, first in ((0.5, 0.4, "too_strong"), (0.4, 0.5, "over_training")):
        tried = {"scale.lower.on_model": lower, "epoch.earlier.on_model": earlier}
        facts = strongest(RULES[first]) | {name: fact(gain, 0.1) for name, gain in tried.items()}
        result = diagnose(facts | {"epoch.earlier.epoch": fact(2.0)}, SLOTS)
        assert [f.rule for f in result.findings] == [first, *({"too_strong", "over_training"} - {first})]
        assert [f.expected_gain for f in result.findings] == [0.5, 0.4]


def test_what_was_tried_and_brought_nothing_sure_is_no_cause() -> None:
    facts = strongest(RULES["too_strong"]) | {"scale.lower.on_model": fact(0.3, 0.28, at="0.7")}
    assert "too_strong" in {c.rule for c in diagnose(facts, SLOTS).cleared}


@pytest.mark.parametrize("rule", TABLE.rule, ids=lambda r: r.id)
def test_a_cause_whose_scenarios_are_at_their_targets_is_none(rule: Rule) -> None:
    facts = strongest(rule) | {f"gap.{s}": fact(0.0) for s in rule.scenarios}
    assert rule.id in {c.rule for c in diagnose(facts, SLOTS).cleared}


def parses(line: str) -> None:
    """The command line reads it as it is; a wrong option or value raises."""
    program, verb, *arguments = shlex.split(line)
    assert program == "onmodel"
    load_verb(verb).make_context(verb, arguments).close()


@pytest.mark.parametrize("rule", TABLE.rule, ids=lambda r: r.id)
def test_every_command_of_a_finding_is_one_of_ours(rule: Rule) -> None:
    finding = next(f for f in diagnose(strongest(rule), SLOTS).findings if f.rule == rule.id)
    assert finding.commands
    for line in finding.commands:
        parses(line.replace("trial-000002.safetensors", "0.7") if "--lora-scale" in line else line)
    text = "\n".join(finding.commands)
    assert "RULE" not in text
    assert "'data/my set" in text or "TRIAL" in text or "out dir" in text, "the user's own paths stand in it"


def test_every_command_that_measures_is_one_of_ours() -> None:
    result = diagnose({}, SLOTS)
    assert {u.rule for u in result.unjudged} == set(RULES)
    for each in result.unjudged:
        parses(each.command)
    for start in TABLE.measure:
        parses(TABLE.command_for(start).format(**SLOTS).rstrip())


def test_options_that_name_other_models_stand_in_the_commands() -> None:
    names = Names(detector=("--detector", "film"), scorer=("--scorer", "ViT-B-32"))
    slots = slots_of(Sources(analysis=analysis({"zibo, a boy": 10})), Path("out"), names)
    looking = next(u.command for u in diagnose({}, slots).unjudged if u.missing[0].startswith("scale."))
    assert looking.endswith("--detector film --scorer ViT-B-32")
    parses(looking)


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    text = PACKAGED.read_text(encoding="utf-8")
    for old, new, said in (
        ('kind = "captions"', 'kind = "wish"', "kind"),
        ("above = 5.0", "over = 5.0", "did you mean"),
        ('"share." =', '"portion." =', "no command for the fact"),
        ('id = "identity_mixed"', 'id = "age_varies"', "twice"),
    ):
        path = tmp_path / f"{len(said)}.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(UserError, match=said):
            rule_table(path)
