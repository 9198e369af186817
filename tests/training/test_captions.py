"""Captions at one showing, and those that are encoded beforehand."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from onmodel.training.captions import dropped, pool, vary
from onmodel.training.config import DataSection
from onmodel.training.job import CaptionRules

from .conftest import MakeConfig
from .running import run_to
from .test_loop import make_trainer

TAGS = st.lists(st.text("abcxyz ", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=8)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WILD = CaptionRules(enable_wildcard=True)


CHOICES = st.lists(st.lists(st.text("abc ,", min_size=1, max_size=4), min_size=1, max_size=3), max_size=4)


@given(CHOICES, st.integers(0, 99))
def test_a_wildcard_says_one_of_its_alternatives(choices: list[list[str]], seed: int) -> None:
    line = "zork" + "".join(f" {{{'|'.join(each)}}}." for each in choices)
    allowed = {"zork" + "".join(f" {taken}." for taken in every) for every in itertools.product(*choices)}
    assert vary(line, WILD, 0.0, drawn(seed)) in allowed
    assert WILD.plain(line) == "zork" + "".join(f" {each[0]}." for each in choices)
    assert vary(line, CaptionRules(), 0.0, drawn(seed)) == line, "nobody asked for it"


def test_wildcards_are_drawn_evenly_and_make_a_pool() -> None:
    said = [vary("a {red|blue} {{cap}}", WILD, 0.0, drawn(seed)) for seed in range(400)]
    assert set(said) == {"a red {cap}", "a blue {cap}"}
    assert 150 < said.count("a red {cap}") < 250
    assert set(pool(("a {red|blue} cap",), WILD, 0.0, 16, 0)) == {"a red cap", "a blue cap"}
    assert pool(("a cap",), WILD, 0.0, 16, 0) == ("a cap",)


@given(TAGS, st.integers(0, 9), st.integers(0, 99))
def test_shuffling_keeps_the_first_tags_and_loses_none(tags: list[str], keep: int, seed: int) -> None:
    rules = CaptionRules(shuffle_caption=True, keep_tokens=keep)
    said = vary(",".join(tags), rules, 0.0, drawn(seed)).split(", ")
    assert said[:keep] == tags[:keep]
    assert sorted(said) == sorted(tags)


@given(TAGS, st.integers(0, 99))
def test_left_out_tags_leave_the_others_in_order(tags: list[str], seed: int) -> None:
    said = vary(",".join(tags), CaptionRules(keep_tokens=1), 0.5, drawn(seed)).split(", ")
    assert said[0] == tags[0]
    rest = iter(tags)
    assert all(tag in rest for tag in said)


def test_a_separator_divides_what_stays_from_what_moves() -> None:
    rules = CaptionRules(shuffle_caption=True, keep_tokens_separator="|||", keep_tokens=5)
    line = "zork, a boy ||| red, green, blue, grey ||| best"
    said = {vary(line, rules, 0.0, drawn(seed)) for seed in range(20)}
    assert len(said) > 5
    for caption in said:
        parts = caption.split(", ")
        assert (parts[:2], sorted(parts[2:-1]), parts[-1]) == (
            ["zork", "a boy"], ["blue", "green", "grey", "red"], "best",
        )  # fmt: skip
    assert vary(line, CaptionRules(keep_tokens_separator="|||"), 0.0, drawn(0)) == (
        "zork, a boy red, green, blue, grey best"
    )


def test_tags_are_left_out_as_often_as_asked() -> None:
    line = ", ".join(f"t{index}" for index in range(200))
    kept = [len(vary(line, CaptionRules(), 0.3, drawn(seed)).split(", ")) for seed in range(20)]
    assert abs(sum(kept) / 4000 - 0.7) < 0.03
    own = CaptionRules(caption_tag_dropout_rate=0.0)
    assert vary(line, own, 0.3, drawn(0)) == line, "a subset's own rate goes before the config's"


def test_the_pool_is_bounded_and_depends_on_line_and_seed_alone() -> None:
    rules = CaptionRules(shuffle_caption=True, keep_tokens=1)
    lines = ("zork, a, b, c, d, e", "zork, far, small, high, wide")
    found = pool(lines, rules, 0.0, 4, seed=1)
    assert len(found) == 8
    assert found[4:] == pool(lines[1:], rules, 0.0, 4, seed=1)
    assert found != pool(lines, rules, 0.0, 4, seed=2)
    assert pool(lines, CaptionRules(), 0.0, 4, seed=1) == lines


def test_captions_are_dropped_by_chance_and_by_epoch() -> None:
    data = DataSection(train_data_dir="x", caption_dropout_rate=0.3)
    assert [dropped(CaptionRules(), data, chance, 1) for chance in (0.29, 0.31)] == [True, False]
    assert [dropped(CaptionRules(caption_dropout_rate=0.0), data, chance, 1) for chance in (0.29, 0.31)] == [False] * 2
    every = CaptionRules(caption_dropout_rate=0.0, caption_dropout_every_n_epochs=2)
    assert [dropped(every, data, 0.9, epoch) for epoch in range(4)] == [True, False, True, False]


def test_shuffled_captions_train_with_the_cache_and_with_a_trained_encoder(make_config: MakeConfig) -> None:
    """The cached encoder says what a pool holds; a trained one says what its own draws give, the same in two runs."""
    from dataclasses import replace

    for unet_only in (True, False):
        config = make_config(network={"network_train_unet_only": unet_only}, training={"max_train_epochs": 1})
        losses: list[list[float]] = []
        for rules in (CaptionRules(shuffle_caption=True), CaptionRules(shuffle_caption=True), CaptionRules()):
            trainer = make_trainer(config)
            data = trainer._data  # pyright: ignore[reportPrivateUsage]
            line = "zork, a, boy, in, the, forest, standing"
            made = pool((line,), rules, 0.0, 3, seed=0)
            data.pictures[:] = [
                replace(picture, caption=line, rules=rules, pool=made if unet_only else ()) for picture in data.pictures
            ]
            if unet_only:
                family = trainer._family  # pyright: ignore[reportPrivateUsage]
                with torch.no_grad():
                    encoded = family.encode_captions(["", *made])
                data.conditioning = dict(zip(["", *made], encoded, strict=True))
            losses.append([report.loss for report in run_to(trainer)[0]])
        assert losses[0] == losses[1]
        assert losses[0] != losses[2]
