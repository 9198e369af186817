"""Composites of rendered pictures: cuts against exact masks, places within bounds, what the bundled detector sees."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import ImageError
from onmodel.core.files import file_hash, tree_hash
from onmodel.core.images import RGB, decode, encode_png, load
from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.dataset.analysis import Analysis, Row, analyze
from onmodel.dataset.augment import LINEAGE, AugmentResult, augment
from onmodel.dataset.candidates import Planned, composites
from onmodel.dataset.compose import HIDDEN, Recipe, Subject, paint, plan_composite
from onmodel.dataset.crops import CropConfig, cut
from onmodel.dataset.cutouts import Cutout, cut_character
from onmodel.dataset.folder import Dataset, load_dataset
from onmodel.dataset.labels import read_labels
from onmodel.dataset.scenery import Backdrop, Scenery, has_ground, is_opaque, lightness
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.model import Detector, load_detector
from onmodel.detection.rules import decide
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import Shares, plan, scene_for
from onmodel.toybox.render import Rendered, render
from onmodel.toybox.scene import random_scene

SIDE = 192
CONFIG = DetectorConfig.preset("toybox")


class Bundled:
    """The bundled detector in this process, as the service answers."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.asked = 0

    @property
    def detection(self) -> "Bundled":
        return self

    def detect(
        self, images: Sequence[bytes], *, advance: Callable[[int], object] | None = None
    ) -> list[Detected | ImageError]:
        self.asked += len(images)
        return [self._one(data) for data in images]

    def _one(self, data: bytes) -> Detected | ImageError:
        try:
            image = decode(data)
        except ImageError as error:
            return error
        (found,) = self._detector.detect([image])
        return Detected(found, decide(image, found, CONFIG.shots))

    def see(self, images: Sequence[bytes]) -> list[Detected]:
        """The same for pictures that can surely be read."""
        return [each for each in self.detect(images) if isinstance(each, Detected)]

    def model_info(self) -> ModelInfo:
        return ModelInfo(self._detector.name, self._detector.hash, CONFIG.hash)


@dataclass(frozen=True)
class World:
    """Folders of rendered pictures: our character, backgrounds, others, cutouts with transparency."""

    folder: Path
    rendered: dict[str, Rendered]
    services: Bundled
    analysis: Analysis
    scenery: Scenery

    @property
    def dataset(self) -> Dataset:
        return load_dataset(self.folder / "zibo")

    def row(self, shot: ShotType, *, busy: bool = False) -> Row:
        return next(
            row
            for row in self.analysis.rows
            if row.shot_type is shot and (Attribute.COMPLEX_BACKGROUND in row.attributes) == busy
        )


def thing(number: int) -> RGB | None:
    """A thing that stands on the ground, as RGBA; None for one that does not."""
    scene = random_scene(
        np.random.default_rng([3, number]), shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=True,
        complex_background=False,
    )  # fmt: skip
    empty = dataclasses.replace(scene, people=(), shot_type=ShotType.UNCLASSIFIED)
    with_it = render(empty, SIDE).image
    without = render(dataclasses.replace(empty, occluders=()), SIDE).image
    alpha = (np.abs(with_it.astype(int) - without).max(axis=2) > 3).astype(np.uint8) * 255
    if alpha[-2:].any() or (alpha > 0).sum() < 300:
        return None
    return np.dstack([with_it, alpha])


def backdrop(number: int, *, busy: bool) -> RGB:
    scene = random_scene(
        np.random.default_rng([2, number]), shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=False,
        complex_background=busy,
    )  # fmt: skip
    return render(dataclasses.replace(scene, people=(), shot_type=ShotType.UNCLASSIFIED), SIDE).image


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    names = ("zibo", "backgrounds", "others", "things")
    zibo, backgrounds, others, things = (folder / name for name in names)
    for each in (zibo, backgrounds, others, things):
        each.mkdir()
    rendered: dict[str, Rendered] = {}
    shares = Shares(close_up=0.4, full_body=0.45, complex_background=0.1)
    for number, item in enumerate(plan(22, shares, np.random.default_rng(1))):
        picture = render(scene_for(item, np.random.default_rng([1, number]), HELD_OUT["zibo"]), SIDE)
        name = f"zibo_{number:02d}.png"
        (zibo / name).write_bytes(encode_png(picture.image))
        said = "zibo, a teenage boy, plain background" if item.shot_type is not ShotType.UNCLASSIFIED else "no people"
        (zibo / name).with_suffix(".txt").write_text(said, encoding="utf-8")
        rendered[name] = picture
    for number in range(5):
        (backgrounds / f"b{number}.png").write_bytes(encode_png(backdrop(number, busy=number < 4)))
        (backgrounds / f"b{number}.txt").write_text("no people, in a far country", encoding="utf-8")
        scene = random_scene(
            np.random.default_rng([4, number]), shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=False,
            complex_background=False,
        )  # fmt: skip
        (others / f"o{number}.png").write_bytes(encode_png(render(scene, SIDE).image))
    for number in range(12):
        rgba = thing(number)
        if rgba is not None:
            Image.fromarray(rgba).save(things / f"t{number}.png")
            (things / f"t{number}.txt").write_text("a thing", encoding="utf-8")
    services = Bundled(load_detector(CONFIG))

    def looked_at(path: Path) -> tuple[Dataset, Analysis]:
        given = load_dataset(path)
        return given, analyze(given, services, model=services.model_info())

    scenery = Scenery()
    scenery.add_backgrounds(*looked_at(backgrounds))
    scenery.add_companions(*looked_at(others))
    scenery.add_foregrounds(load_dataset(things), None)
    return World(folder, rendered, services, looked_at(zibo)[1], scenery)


@pytest.fixture(scope="module")
def filled(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AugmentResult, str]:
    """A set with composites, checked by the detector; with the hash of everything it was made from before."""
    before = tree_hash(world.folder)
    out = tmp_path_factory.mktemp("filled") / "out"
    crop = CropConfig(min_side=48, resolution=128)
    result = augment(
        world.dataset, world.analysis, out, target_size=120, crop=crop, scenery=world.scenery,
        verify=world.services.detect, max_synthetic=0.3, caption_lines=2, sees_things_in_front=True,
    )  # fmt: skip
    return out, result, before


def lineage(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LINEAGE).read_text(encoding="utf-8").splitlines()]


def possible(world: World) -> list[Planned]:
    sources = {world.dataset.relative(picture): picture for picture in world.dataset.pictures}
    crop = CropConfig(min_side=48, resolution=128)
    return list(composites(world.analysis.rows, sources, world.scenery, crop, 1, 0, Counter()))


def start(world: World, item: Planned) -> RGB:
    """What a composite is painted on."""
    image = load(world.folder / "zibo" / item.row.file)
    return image if item.window is None else cut(image, item.window, CropConfig(min_side=48, resolution=128))


def test_cuts_are_the_character(world: World) -> None:
    """Against the renderer's masks; what stands before a busy background is refused without an outline."""
    overlaps: list[float] = []
    for row in world.analysis.rows:
        image = load(world.folder / "zibo" / row.file)
        cut = cut_character(image, row)
        if isinstance(cut, str):
            continue
        assert Attribute.COMPLEX_BACKGROUND not in row.attributes
        truth = world.rendered[row.file].masks[0]
        mine = np.zeros(truth.shape, dtype=np.bool_)
        x0, y0, x1, y1 = (int(v) for v in cut.box.as_tuple())
        mine[y0:y1, x0:x1] = cut.alpha > 0.5
        overlaps.append(float((mine & truth).sum() / (mine | truth).sum()))
    assert len(overlaps) >= 10
    assert np.mean(overlaps) > 0.93
    assert min(overlaps) > 0.8
    busy = next(row for row in world.analysis.rows if row.main is not None and "complex_background" in row.attributes)
    said = cut_character(load(world.folder / "zibo" / busy.file), busy)
    assert isinstance(said, str)


def test_an_outline_is_believed_anywhere(world: World) -> None:
    row = world.row(ShotType.FULL_BODY)
    main = row.main_instance
    assert main is not None
    x0, y0, x1, y1 = main.box
    drawn = main.model_copy(update={"outline": ((x0, y1), (x1, y1), ((x0 + x1) / 2, y0))})
    outlined = row.model_copy(update={"instances": (drawn,), "main": 0, "attributes": ("complex_background",)})
    cut = cut_character(load(world.folder / "zibo" / row.file), outlined)
    assert isinstance(cut, Cutout)
    assert cut.alpha[2, : cut.alpha.shape[1] // 4].max() < 0.5


def test_what_the_detector_sees_is_what_was_meant(world: World) -> None:
    """Without any check, most composites are seen as planned; what was put there is really there."""
    items = possible(world)
    kinds = {item.kind for item in items}
    assert {"composite background", "composite companion", "composite foreground"} <= kinds
    rng = np.random.default_rng(0)
    shots = seen_company = company = 0
    some = [items[int(i)] for i in rng.permutation(len(items))[:40]]
    for item in some:
        assert item.recipe is not None
        on = start(world, item)
        picture = paint(item.recipe, on)
        assert picture.shape == on.shape
        (found,) = world.services.see([encode_png(picture)])
        shots += found.decision.shot_type is item.shot
        if item.recipe.companion is not None:
            company += 1
            seen_company += Attribute.MULTI_CHARACTER in found.decision.attributes
    assert shots >= 0.75 * len(some)
    assert seen_company >= 0.75 * company > 0


def test_medium_shots_have_company_though_the_set_has_none(
    world: World, filled: tuple[Path, AugmentResult, str]
) -> None:
    """Made of full bodies, before plain and busy places: what always stood alone would be learned so."""
    made = [item for item in possible(world) if item.window is not None]
    assert {item.row.shot_type for item in made} == {ShotType.FULL_BODY}
    assert {item.shot for item in made} == {ShotType.MEDIUM}
    company = [item for item in made if Attribute.MULTI_CHARACTER in item.attributes]
    assert {Attribute.COMPLEX_BACKGROUND in item.attributes for item in company} == {False, True}
    seen = 0
    for item in company:
        assert item.recipe is not None
        assert item.recipe.companion is not None
        assert item.recipe.main is not None
        # Cut by the lower edge, as the window cuts ours.
        assert item.recipe.main.box.y1 > item.recipe.size[1]
        (found,) = world.services.see([encode_png(paint(item.recipe, start(world, item)))])
        seen += found.decision.shot_type is ShotType.MEDIUM and Attribute.MULTI_CHARACTER in found.decision.attributes
    assert seen >= 0.75 * len(company) > 0
    out, _, _ = filled
    rows = [row for row in lineage(out) if row["operation"] == "composite" and row["box"] is not None]
    assert rows
    for row in rows:
        assert row["shot_type"] == "medium"
        assert "full body" not in str(row["caption"])


def test_the_character_keeps_its_pixels(world: World) -> None:
    """Neither flipped nor recoloured: well inside its mask a composite has the original's own values."""
    tried = 0
    for item in possible(world):
        recipe = item.recipe
        assert recipe is not None
        if recipe.main is None or recipe.foreground is not None or item.shot is not item.row.shot_type:
            continue
        original = load(world.folder / "zibo" / item.row.file)
        made = paint(recipe, original)
        here, there = recipe.main.cutout.box, recipe.main.box
        alpha = recipe.main.cutout.alpha
        rows, columns = np.nonzero(alpha == 1.0)
        deep = [
            (r, c)
            for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
            if alpha[max(0, r - 4) : r + 5, max(0, c - 4) : c + 5].min() == 1.0
        ]
        r, c = np.array(deep).T
        y, x = r + int(there.y0), c + int(there.x0)
        seen = (x >= 0) & (x < SIDE) & (y < SIDE)
        source = original[r[seen] + int(here.y0), c[seen] + int(here.x0)]
        assert np.array_equal(made[y[seen], x[seen]], source)
        tried += 1
    assert tried >= 10


def test_the_set_is_checked_and_in_range(world: World, filled: tuple[Path, AugmentResult, str]) -> None:
    out, result, _ = filled
    assert result.checked > 0
    assert result.synthetic <= 30.0 + 1e-6
    assert result.derived.keys() >= {"crop medium"}
    assert result.after["multi_character"] > 8
    assert result.after["occlusion"] > 5
    # What was made is looked at again, from its files: every picture is what its lineage says.
    for row in lineage(out):
        if row["operation"] == "copy":
            continue
        (seen,) = world.services.see([(out / str(row["file"])).read_bytes()])
        assert seen.decision.shot_type.value == row["shot_type"]
        assert sorted(a.value for a in seen.decision.attributes) == row["attributes"]
    before = world.services.asked
    again = analyze(load_dataset(out), world.services, model=world.services.model_info())
    assert world.services.asked == before
    for name, share in result.after.items():
        assert again.shares[name] == pytest.approx(share)


def test_what_it_is_made_from_stays(world: World, filled: tuple[Path, AugmentResult, str]) -> None:
    assert tree_hash(world.folder) == filled[2]


def test_lineage_names_every_part(world: World, filled: tuple[Path, AugmentResult, str]) -> None:
    out, result, _ = filled
    known = {file_hash(path) for path in world.folder.rglob("*.png")}
    rows = lineage(out)
    made = {p.path.relative_to(out).as_posix(): p for p in load_dataset(out).pictures}
    assert {str(row["file"]) for row in rows} == set(made)
    synthetic = shown = 0
    for row in rows:
        assert row["synthetic"] == (row["operation"] in ("composite", "widen"))
        repeats = row["repeats"]
        assert isinstance(repeats, int)
        shown += repeats
        synthetic += repeats if row["synthetic"] else 0
        parts = row["parts"]
        assert (parts is not None) == (row["operation"] == "composite")
        if isinstance(parts, dict):
            hashes = [part["hash"] for part in parts.values() if part is not None]
            assert hashes
            assert set(hashes) <= known
            attributes = row["attributes"]
            assert isinstance(attributes, list)
            assert (Attribute.MULTI_CHARACTER in attributes) or parts["companion"] is None
            assert (Attribute.OCCLUSION in attributes) or parts["foreground"] is None
            if parts["background"] is not None:
                assert "in a far country" in str(row["caption"])
            if parts["foreground"] is not None:
                assert "behind a thing" in str(row["caption"])
    assert shown == result.shown
    assert 100 * synthetic / shown == pytest.approx(result.synthetic)


def test_the_cap_holds(world: World, tmp_path: Path) -> None:
    result = augment(
        world.dataset, world.analysis, tmp_path / "out", target_size=100, scenery=world.scenery,
        crop=CropConfig(min_side=48, resolution=128), max_synthetic=0.1, variants=1,
    )  # fmt: skip
    assert 0 < result.synthetic <= 10 + 1e-6
    assert result.checked == 0


def test_a_detector_without_a_class_for_things_in_front(world: World, tmp_path: Path) -> None:
    """It cannot confirm what was put in front: that is known by construction, and kept as a label."""
    blind = world.analysis.model_copy(
        update={"rows": tuple(row.model_copy(update={"occluders": ()}) for row in world.analysis.rows)}
    )

    def look(images: Sequence[bytes]) -> list[Detected]:
        found = world.services.see(images)
        return [
            Detected(
                dataclasses.replace(each.detections, occluders=()),
                dataclasses.replace(each.decision, attributes=each.decision.attributes - {Attribute.OCCLUSION}),
            )
            for each in found
        ]

    things = Scenery(foregrounds=world.scenery.foregrounds)
    out = tmp_path / "out"
    augment(
        world.dataset, blind, out, target_size=80, scenery=things, verify=look,
        crop=CropConfig(min_side=48, resolution=128),
    )  # fmt: skip
    labels = read_labels(out)
    hidden = [row for row in lineage(out) if row["operation"] == "composite"]
    assert hidden
    for row in hidden:
        label = labels[str(row["hash"])]
        assert label.file == row["file"]
        assert label.attributes is not None
        assert Attribute.OCCLUSION in label.attributes
    again = analyze(load_dataset(out), world.services, model=world.services.model_info())
    assert again.counts["occlusion"] >= len(hidden)


def subject(world: World, row: Row) -> Subject:
    image = load(world.folder / "zibo" / row.file)
    cut = cut_character(image, row)
    main = row.main_instance
    assert isinstance(cut, Cutout)
    assert main is not None
    face = None if main.face is None else Box(*main.face)
    return Subject(Box(*main.box), face, row.shot_type, lightness(image), (row.width, row.height), cut)


@pytest.mark.parametrize("seed", range(12))
def test_things_in_front_hide_a_fit_share(world: World, seed: int) -> None:
    someone = subject(world, world.row(ShotType.FULL_BODY))
    rng = np.random.default_rng(seed)
    front = world.scenery.foregrounds[seed % len(world.scenery.foregrounds)]
    back = next(each for each in world.scenery.backdrops if abs(each.light - someone.light) < 28 and each.ground)
    recipe = plan_composite(someone, ShotType.FULL_BODY, CropConfig(), rng, backdrop=back, foreground=front)
    if isinstance(recipe, str):
        assert "in front" in recipe
        return
    assert recipe.main is not None
    bare = paint(dataclasses.replace(recipe, foreground=None), np.zeros((SIDE, SIDE, 3), np.uint8))
    made = paint(recipe, np.zeros((SIDE, SIDE, 3), np.uint8))
    body = np.zeros((SIDE, SIDE), dtype=np.bool_)
    box, alpha = recipe.main.box, recipe.main.cutout.alpha > 0.5
    y0, x0 = int(box.y0), int(box.x0)
    part = alpha[: SIDE - y0, max(0, -x0) : SIDE - x0]
    body[y0 : y0 + part.shape[0], max(0, x0) : max(0, x0) + part.shape[1]] = part
    hidden = (np.abs(bare.astype(int) - made).max(axis=2) > 2) & body
    # Its shadow darkens a little of what it leaves bare.
    assert HIDDEN[0] - 0.05 <= hidden.sum() / body.sum() <= HIDDEN[1] + 0.2


def test_what_cannot_look_right_is_refused(world: World) -> None:
    someone = subject(world, world.row(ShotType.FULL_BODY))
    rng = np.random.default_rng(0)
    back = world.scenery.backdrops[0]

    def said(**changes: object) -> Recipe | str:
        return plan_composite(
            someone, ShotType.FULL_BODY, CropConfig(), rng, backdrop=dataclasses.replace(back, **changes)
        )

    assert said(light=someone.light + 60) == "the background's light is too different"
    assert said(light=someone.light, width=40, height=40) == "the background has too few pixels"
    assert said(light=someone.light, ground=False) == "the background has no ground to stand on"
    uncut = dataclasses.replace(someone, cutout=None)
    refused = plan_composite(uncut, ShotType.FULL_BODY, CropConfig(), rng, backdrop=back)
    assert refused == "no believable cut of the character"


def test_ground_and_sky() -> None:
    sky = np.zeros((90, 160, 3), np.uint8)
    sky[:] = np.linspace((90, 130, 200), (170, 190, 220), 90)[:, None]
    sky[::7, ::5] = 240
    assert not has_ground(sky)
    meadow = sky.copy()
    meadow[50:] = (70, 120, 40)
    assert has_ground(meadow)
    assert has_ground(np.full((90, 160, 3), 200, np.uint8))


def test_backgrounds_show_nobody(world: World) -> None:
    scenery = Scenery()
    scenery.add_backgrounds(world.dataset, world.analysis, trigger="zibo")
    shown = sum(bool(row.instances) for row in world.analysis.rows)
    assert scenery.refused["background: it shows a character"] == shown
    rows = {row.file: row for row in world.analysis.rows}
    assert all(not rows[each.file].instances for each in scenery.backdrops)
    named = Scenery()
    renamed = dataclasses.replace(
        world.dataset,
        pictures=tuple(dataclasses.replace(p, caption="zibo, in a park") for p in world.dataset.pictures),
    )
    named.add_backgrounds(renamed, world.analysis, trigger="zibo")
    assert not named.backdrops


def test_our_own_pictures_are_no_companions(world: World) -> None:
    scenery = Scenery()
    scenery.add_companions(world.dataset, world.analysis, [row.hash or "" for row in world.analysis.rows])
    assert not scenery.companions


def test_broken_and_empty_things_are_counted(world: World, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGBA", (60, 60), (0, 0, 0, 0)).save(tmp_path / "empty.png")
    Image.new("RGB", (60, 60), (200, 0, 0)).save(tmp_path / "opaque.png")
    given = load_dataset(tmp_path)
    assert [is_opaque(picture) for picture in given.pictures] == [True, False, True]
    scenery = Scenery()
    scenery.add_foregrounds(given, analyze(given, world.services, model=world.services.model_info()))
    assert not scenery.foregrounds
    assert scenery.refused.total() == 3


def test_things_are_cut_from_pictures_with_something_in_front(world: World, tmp_path: Path) -> None:
    found = Scenery()
    for number in range(6):
        scene = random_scene(
            np.random.default_rng([6, number]), shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=True,
            complex_background=False,
        )  # fmt: skip
        (tmp_path / f"{number}.png").write_bytes(encode_png(render(scene, SIDE).image))
    given = load_dataset(tmp_path)
    found.add_foregrounds(given, analyze(given, world.services, model=world.services.model_info()))
    assert len(found.foregrounds) + found.refused.total() == 6
    assert found.foregrounds


def test_a_backdrop_is_read_when_it_is_painted(world: World) -> None:
    """Ten thousand backgrounds are not held in memory."""
    first = world.scenery.backdrops[0]
    assert isinstance(first, Backdrop)
    assert first.read().shape == (SIDE, SIDE, 3)
