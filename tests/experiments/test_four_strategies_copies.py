"""Training from the small copies is training from the originals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from onmodel.core.images import load
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.analysis import Analysis, analyze
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import load_dataset
from onmodel.experiments.copies import categories_in, copy_small
from onmodel.experiments.packing import pack_sets, unpack
from onmodel.experiments.plan import Layout, Settings, claim, config_of, trials_of
from onmodel.experiments.prepare import Eyes
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import BALANCED_SHARES, make_dataset
from onmodel.training.buckets import cut_to_bucket
from onmodel.training.mix import solve_mixes
from onmodel.training.pictures import load_pictures

SIDE = 64


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    """A set with a repeat folder, looked at by the bundled detector."""
    folder = tmp_path_factory.mktemp("original")
    make_dataset(folder, HELD_OUT["zibo"], 10, BALANCED_SHARES, 3, size=96, trigger="zibo", prefix="a")
    make_dataset(folder / "3_zibo boy", HELD_OUT["zibo"], 6, BALANCED_SHARES, 4, size=96, trigger="zibo", prefix="b")
    return folder, analyze(load_dataset(folder), Eyes())


def test_copies_train_as_the_originals_do(original: tuple[Path, Analysis], tmp_path: Path) -> None:
    folder, analysis = original
    layout = Layout(tmp_path)
    settings = Settings(characters=("zibo",), seeds=(1,))
    (trial,) = [t for t in trials_of(settings) if t.kind == "b_d"]
    target = layout.sets(trial.unit) / trial.dataset
    copy_small(load_dataset(folder), analysis, target, SIDE)
    small = config_of(settings, trial, layout, categories_in(target).values())
    large = small.with_changes(data={"train_data_dir": str(folder)})
    ours, theirs = load_pictures(small), load_pictures(large)
    assert [picture.path.relative_to(target).with_suffix("") for picture in ours] == [
        picture.path.relative_to(folder.resolve()).with_suffix("") for picture in theirs
    ]
    assert [(p.captions, p.repeats, p.categories) for p in ours] == [
        (p.captions, p.repeats, p.categories) for p in theirs
    ]
    for mine, other in zip(solve_mixes(small, ours), solve_mixes(large, theirs), strict=True):
        np.testing.assert_allclose(mine.showings, other.showings, atol=1e-9)
    for mine, other in zip(ours, theirs, strict=True):
        difference = cut_to_bucket(load(mine.path), (SIDE, SIDE)) - cut_to_bucket(load(other.path), (SIDE, SIDE))
        # Half a step of 8 bits, which -1 to 1 has 255 of.
        assert float(torch.abs(difference).max()) <= 0.5 / 127.5 + 1e-6


def test_labels_say_what_the_detector_saw(original: tuple[Path, Analysis], tmp_path: Path) -> None:
    folder, analysis = original
    copy_small(load_dataset(folder), analysis, tmp_path / "copy", SIDE)
    found = {path.stem: categories for path, categories in categories_in(tmp_path / "copy").items()}
    assert found == {Path(row.file).stem: row.categories for row in analysis.rows}
    assert not Facts.open(tmp_path / "copy").models
    assert {ShotType.CLOSE_UP.value, Attribute.MULTI_CHARACTER.value} <= set().union(*found.values())


def test_packed_sets_are_the_sets(original: tuple[Path, Analysis], tmp_path: Path) -> None:
    folder, analysis = original
    settings = Settings(characters=("zibo",), seeds=(1,))
    layout = Layout(tmp_path / "work")
    claim(layout.work, settings)
    for name in ("baseline", "a"):
        copy_small(load_dataset(folder), analysis, layout.work / "sets" / "zibo_1" / name, SIDE)
    packed = pack_sets(layout)
    first = packed.read_bytes()
    assert pack_sets(layout).read_bytes() == first
    # The second set's pictures are the first's.
    sizes = sum(f.stat().st_size for f in (layout.work / "sets").rglob("*.webp"))
    assert len(first) < 0.75 * sizes
    unpack(packed, tmp_path / "there")
    files = {f.relative_to(layout.work): f.read_bytes() for f in (layout.work / "sets").rglob("*") if f.is_file()}
    assert files == {
        f.relative_to(tmp_path / "there"): f.read_bytes()
        for f in (tmp_path / "there" / "sets").rglob("*")
        if f.is_file()
    }
    assert claim(tmp_path / "there", None) == settings
