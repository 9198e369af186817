"""Near-duplicates, kin and quality over made-up looks; pixels come in `test_merge`."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.images import encode_png
from onmodel.core.likeness import distance
from onmodel.core.vocabulary import ShotType
from onmodel.dataset.analysis import InstanceRow, Row
from onmodel.dataset.dedupe import exact, near
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.labels import Label
from onmodel.dataset.pool import AKIN_BITS, Entry, Look, QualityConfig, families, look, qualities

from .world import noise

SET = Dataset(Path("a"), ())


def entry(number: int, *, identity: float | None = None, before: dict[str, Any] | None = None, **row: Any) -> Entry:
    known: dict[str, Any] = {"hash": f"{number:064x}", "width": 512, "height": 512, "shot_type": ShotType.MEDIUM}
    made = Row(file=f"{number}.png", **(known | row))
    return Entry(SET, Picture(Path(f"a/{number}.png"), "said"), made, None, before or {}, identity, 0)


def looked(entries: list[Entry], prints: list[int], sharp: list[float] | None = None) -> dict[str, Look]:
    values = sharp or [100.0] * len(entries)
    return {e.hash: Look(mark, value) for e, mark, value in zip(entries, prints, values, strict=True)}


few_bits = st.integers(0, 2**64 - 1).map(lambda value: value & 0x0F0F_0000_0000_0707)


@given(st.lists(st.tuples(few_bits, st.integers(0, 20)), max_size=40), st.integers(-1, 10))
def test_what_is_kept_differs_and_what_is_left_out_is_near_to_something_better(
    given_: list[tuple[int, int]], bits: int
) -> None:
    entries = [entry(number) for number in range(len(given_))]
    looks = looked(entries, [mark for mark, _ in given_])
    quality = [value / 20 for _, value in given_]
    kept, dropped = near(entries, looks, quality, bits)
    assert len(kept) + len(dropped) == len(entries)
    prints = [given_[index][0] for index in kept]
    assert all(distance(a, b) > bits for n, a in enumerate(prints) for b in prints[:n])
    order = {e.hash: value for e, value in zip(entries, quality, strict=True)}
    for each in dropped:
        apart = distance(looks[each.entry.hash].fingerprint, looks[each.kept.hash].fingerprint)
        assert apart == each.bits
        assert apart <= bits
        assert order[each.kept.hash] >= order[each.entry.hash]


@given(st.lists(few_bits, max_size=40))
def test_kin_by_look_stay_near_to_one_of_them(prints: list[int]) -> None:
    entries = [entry(number) for number in range(len(prints))]
    groups: dict[Any, list[int]] = {}
    for kin, mark in zip(families(entries, looked(entries, prints)), prints, strict=True):
        if kin is not None:
            groups.setdefault(kin, []).append(mark)
    for members in groups.values():
        assert len(members) > 1
        assert all(distance(members[0], mark) <= AKIN_BITS for mark in members)


def test_kin_by_shot_and_by_original() -> None:
    shot = {"film_hash": "f", "shot": 4}
    crop = {"operation": "crop", "source_hash": f"{1:064x}"}
    merged_crop = {"operation": "caption", "source_hash": f"{4:064x}", "made": crop}
    drawn = {"operation": "crop", "source_hash": f"{5:064x}"}
    entries = [
        entry(1, before=shot), entry(2, before=shot), entry(3, before=crop), entry(4, before=merged_crop),
        entry(5), entry(6, before=drawn), entry(7),
    ]  # fmt: skip
    prints = [(number * 0x9E3779B97F4A7C15) % 2**64 for number in range(7)]
    kin = families(entries, looked(entries, prints))
    # A crop belongs to the film's shot that its original is of.
    assert kin[:4] == [("shot", "f", "4")] * 4
    assert kin[4] == kin[5] == ("original", f"{5:064x}")
    assert kin[6] is None


def test_quality_is_relative_to_the_shot_type_and_the_set() -> None:
    entries = [
        entry(1, identity=0.9), entry(2, identity=0.7), entry(3, identity=0.8), entry(4, identity=0.8, width=128),
        entry(5, shot_type=ShotType.FAR),
    ]  # fmt: skip
    looks = looked(entries, [0] * 5, [100.0, 400.0, 100.0, 50.0, 3.0])
    only = {"sharpness": 0.0, "size": 0.0, "identity": 0.0}
    assert qualities(entries, looks, 512, QualityConfig(**only | {"identity": 1})) == [1.0, 0.0, 0.5, 0.5, 0.5]
    # The far picture is as sharp as far ones are; more than the middle of a shot type is no better.
    assert qualities(entries, looks, 512, QualityConfig(**only | {"sharpness": 2})) == [1.0, 1.0, 1.0, 0.5, 1.0]
    assert qualities(entries, looks, 512, QualityConfig(**only | {"size": 1})) == [1.0, 1.0, 1.0, 0.25, 1.0]
    assert all(0 <= value <= 1 for value in qualities(entries, looks, 512))
    # A composite is worth less than a picture that is as good.
    made = [entry(1), entry(2, before={"synthetic": True})]
    drawn, composite = qualities(made, looks, 512, QualityConfig(**only | {"size": 1}))
    assert composite < drawn


def test_of_exact_copies_the_first_stands_for_all_and_learns_from_the_others() -> None:
    plain, liked = entry(1), entry(1, identity=0.8, before={"film_hash": "f", "shot": 2})
    label = Label(file="1.png", hash=plain.hash, shot_type=ShotType.FAR)
    row = plain.row.model_copy(update={"shot_type": ShotType.FAR})
    said = Entry(SET, Picture(Path("b/1.png"), "another caption"), row, label, {}, None, 2)
    (one,), dropped = exact([plain, liked, said])
    assert one.picture == plain.picture
    assert (one.identity, one.shot) == (0.8, ("f", "2"))
    assert (one.label, one.row.shot_type) == (label, ShotType.FAR)
    assert [each.entry for each in dropped] == [liked, said]
    assert {each.why for each in dropped} == {"the same file"}


def test_sharpness_is_that_of_the_character(tmp_path: Path) -> None:
    """A flat character before noise is not sharp, and a file that is no picture is said."""
    image = noise(64)
    image[16:48, 16:48] = 90
    paths = [tmp_path / name for name in ("whole.png", "boxed.png", "broken.png")]
    for path in paths[:2]:
        path.write_bytes(encode_png(image))
    paths[2].write_bytes(b"no")
    box = InstanceRow(box=(16, 16, 48, 48), confidence=1, label="c")
    rows = [
        Row(file="whole.png", hash="0" * 64),
        Row(file="boxed.png", hash="1" * 64, main=0, instances=(box,)),
        Row(file="broken.png", hash="2" * 64),
    ]
    entries = [Entry(SET, Picture(path), row, None, {}, None, 0) for path, row in zip(paths, rows, strict=True)]
    done: list[int] = []
    whole, boxed, broken = (found for _, found in look(entries, advance=done.append))
    assert isinstance(whole, Look)
    assert isinstance(boxed, Look)
    assert whole.sharpness > 100 > boxed.sharpness == 0
    assert whole.fingerprint == boxed.fingerprint
    assert broken == "broken.png: not a picture that can be read (png, jpg, webp, bmp, gif); remove it"
    assert sum(done) == 3
