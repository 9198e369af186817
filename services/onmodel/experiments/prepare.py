"""The sets of the experiment, made by the product's own verbs from renders and rendered films."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from onmodel.common.convert import ModelInfo
from onmodel.core.config import load
from onmodel.core.errors import ImageError
from onmodel.core.files import folder_aside, write_text
from onmodel.core.images import RGB, decode
from onmodel.core.progress import bar, console
from onmodel.core.vocabulary import ShotType
from onmodel.dataset.analysis import Analysis, analyze
from onmodel.dataset.augment import augment
from onmodel.dataset.composition import load_composition
from onmodel.dataset.facts import Outcome
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.materials import scenery_of
from onmodel.dataset.merge import merge
from onmodel.dataset.recommended import RECOMMENDED
from onmodel.detection.config import DetectorConfig
from onmodel.experiments.copies import copy_small, render_once
from onmodel.experiments.dose import make_dose_sets
from onmodel.experiments.plan import Layout, Settings, Unit, trials_of, units_of
from onmodel.experiments.rate import render_rate_set
from onmodel.film.cluster import ClusterConfig, Looking, cluster
from onmodel.film.cluster_output import write
from onmodel.film.extract import ExtractConfig, extract
from onmodel.film.identity import IdentityConfig
from onmodel.film.profile import plan
from onmodel.scoring.config import ScorerConfig
from onmodel.toybox.character import HELD_OUT, random_character
from onmodel.toybox.dataset import EVERY_FRAMING, PEOPLE, THINGS, TRIAL_SHARES, make_dataset, make_places
from onmodel.toybox.film import make_film
from onmodel.toybox.models import MODEL_SIDE

MATERIALS = ("backgrounds", "companions", "foregrounds")
REFERENCES: dict[ShotType, int] = {ShotType.CLOSE_UP: 8, ShotType.FULL_BODY: 8}
"""Most pictures of the baseline's set that tell extraction and clustering whom to look for: all that its owner has."""
ONE_CHARACTER = 2.0
"""`two_characters_gap` of extraction, so that it refuses no references: close-ups and full bodies of one character
are taken for two by the bundled scorer. Clustering has no such setting, and is given close-ups alone."""
FILM = "film.mp4"


def prepare(settings: Settings, layout: Layout, processes: int) -> None:
    """Make what there is not: renders and films on `processes` cores, then each unit's sets.

    Raises:
        UserError: a film shows nothing of a character.
    """
    _render_all(settings, layout, processes)
    units = [unit for unit in units_of(settings) if not _is_whole(settings, layout, unit)]
    if not units:
        return
    eyes = Eyes()
    for unit in units:
        console.print(f"{unit.name}: making its sets", highlight=False)
        if settings.dose:
            make_dose_sets(settings, layout, unit, eyes)
            continue
        maker = Maker(settings, layout, unit, eyes)
        maker.baseline()
        if "a" in settings.strategies:
            maker.augmented()
        if {"b", "b_d"} & set(settings.strategies):
            maker.extracted()


class Eyes:
    """The detector that `extract` and `cluster` load into this process, asked as the detection service is."""

    def __init__(self) -> None:
        self.config = DetectorConfig.preset("toybox")
        self.looking = Looking(self.config, ScorerConfig())

    @property
    def detection(self) -> "Eyes":
        """Itself."""
        return self

    def model_info(self) -> ModelInfo:
        """What facts are kept under."""
        return self.looking.look.detector

    def detect(self, images: Sequence[bytes], *, advance: Callable[[int], object] | None = None) -> list[Outcome]:
        """What is in each picture, or why it cannot be read; `advance` is called with their number."""
        found: list[Outcome | RGB] = []
        for data in images:
            try:
                found.append(decode(data))
            except ImageError as error:
                found.append(error)
        seen = iter(self.looking.look.detect([image for image in found if isinstance(image, np.ndarray)]))
        if advance is not None:
            advance(len(images))
        return [next(seen) if isinstance(each, np.ndarray) else each for each in found]


def _is_whole(settings: Settings, layout: Layout, unit: Unit) -> bool:
    wanted = {trial.dataset for trial in trials_of(settings) if trial.unit == unit}
    return all((layout.sets(unit) / name).is_dir() for name in wanted)


# Renders, each a job that a process of a pool can do.


def _render_all(settings: Settings, layout: Layout, processes: int) -> None:
    with ProcessPoolExecutor(max(1, processes), mp_context=get_context("spawn")) as pool:
        augments = "a" in settings.strategies and not settings.dose
        futures = [pool.submit(_render_materials, settings, layout, seed) for seed in settings.seeds if augments]
        futures.append(pool.submit(render_rate_set, settings, layout))
        futures += [pool.submit(_render_unit, settings, layout, unit) for unit in units_of(settings)]
        with bar("rendering", len(futures)) as shown:
            for future in futures:
                future.result()
                shown.advance(1)


def _render_materials(settings: Settings, layout: Layout, seed: int) -> None:
    """Others, things in front and empty places, each a folder."""
    folder, side, first = layout.materials(seed), settings.picture_side, 100 * seed + 50
    render_once(folder / "backgrounds", lambda out: make_places(out, settings.others, first, size=side))
    for number, (kind, shares) in enumerate((("companions", PEOPLE), ("foregrounds", THINGS)), start=1):
        render_once(
            folder / kind,
            lambda out, shares=shares, number=number: make_dataset(
                out, None, settings.others, shares, first + number, size=side
            ),
        )


def _render_unit(settings: Settings, layout: Layout, unit: Unit) -> None:
    """A unit's first set, held-back pictures, and the film of its character."""
    who, seed, folder = HELD_OUT[unit.character], unit.own_seed, layout.unit(unit)
    render_once(
        layout.held_back(unit),
        lambda out: make_dataset(
            out, who, settings.held_back, EVERY_FRAMING, seed + 10_000, size=MODEL_SIDE, trigger=unit.character
        ),
    )
    if settings.dose:
        return
    render_once(
        folder / "baseline",
        lambda out: make_dataset(
            out, who, settings.pictures, TRIAL_SHARES, seed, size=settings.picture_side, trigger=unit.character
        ),
    )
    if not (folder / FILM).is_file() and {"b", "b_d"} & set(settings.strategies):
        other = random_character(np.random.default_rng([seed, 20_000]))
        make_film(
            folder / FILM, (who, other), seconds=settings.film_seconds, seed=seed, size=settings.film_side,
            fps=settings.film_fps,
        )  # fmt: skip


class Maker:
    """Makes one unit's sets with the functions of the verbs."""

    def __init__(self, settings: Settings, layout: Layout, unit: Unit, eyes: Eyes) -> None:
        self._settings, self._layout, self._unit, self._eyes = settings, layout, unit, eyes
        self._folder = layout.unit(unit)

    def baseline(self) -> None:
        """The trial's own mix, as it is."""
        self._copy("baseline", self._folder / "baseline")

    def augmented(self) -> None:
        """Strategy A: `onmodel augment --strategy balanced` with materials of all three kinds."""
        target = self._folder / "a"
        if not target.is_dir():
            dataset, analysis = load_dataset(self._folder / "baseline"), self._analysis(self._folder / "baseline")
            backgrounds, companions, foregrounds = (
                [self._layout.materials(self._unit.seed) / kind] for kind in MATERIALS
            )
            scenery = scenery_of(
                dataset, analysis, (backgrounds, companions, foregrounds), False, self._eyes, self._eyes.config
            )
            augment(
                dataset, analysis, target, scenery=scenery, verify=self._eyes.detect,
                sees_things_in_front=bool(self._eyes.config.occluder_classes), seed=self._unit.own_seed,
            )  # fmt: skip
        self._copy("a", target)

    def extracted(self) -> None:
        """Strategy B: what is missing from a film, of that the character's cluster, merged to the target mix."""
        target = self._folder / "b"
        if not target.is_dir():
            frames, clusters = self._frames(), self._folder / "clusters"
            found = cluster(
                load_dataset(frames), self._eyes.looking, ClusterConfig(),
                references={self._unit.character: self._references(ShotType.CLOSE_UP)},
            )  # fmt: skip
            write(found, load_dataset(frames), clusters, self._eyes.looking.detector)
            # Extraction goes by likeness already; where no cluster is like the references, that alone decides.
            ours = clusters / self._unit.character
            folders = (self._folder / "baseline", ours if ours.is_dir() else frames)
            merge(
                [load_dataset(folder) for folder in folders],
                [self._analysis(folder) for folder in folders],
                load_composition("default").scaled(self._settings.merged),
                target,
            )
        self._copy("b", target)

    def _frames(self) -> Path:
        """What the film shows of the shot types that the baseline's set lacks."""
        # Deficits of a set of the size that is wanted, so that no more is looked for than can be used.
        wanted = RECOMMENDED.model_copy(update={"target_size": self._settings.merged})
        lacking = analyze(load_dataset(self._folder / "baseline"), self._eyes, recommended=wanted)
        who = HELD_OUT[self._unit.character]
        out = self._folder / "frames"
        extract(
            [self._folder / FILM], plan(lacking), out, self._eyes.looking.look, reference=self._references(*REFERENCES),
            knows_occluders=bool(self._eyes.config.occluder_classes),
            config=ExtractConfig(identity=IdentityConfig(two_characters_gap=ONE_CHARACTER)),
            trigger=f"{self._unit.character}, a {who.noun}",
        )  # fmt: skip
        return out

    def _references(self, *shots: ShotType) -> Path:
        """The baseline's clearest pictures of the character in some shot types, by its analysis."""
        folder = self._folder / f"references_{'_'.join(shots)}" / self._unit.character
        if not folder.is_dir():
            source = self._folder / "baseline"
            rows = self._analysis(source).rows
            with folder_aside(folder) as aside:
                for shot in shots:
                    able = [row for row in rows if row.shot_type is shot and len(row.instances) == 1]
                    for row in able[: REFERENCES[shot]]:
                        shutil.copyfile(source / row.file, aside / row.file)
        return folder

    def _analysis(self, folder: Path) -> Analysis:
        """What `onmodel analyze` says of a set, kept beside it."""
        kept = folder.parent / f"{folder.name}.analysis.json"
        if not kept.is_file():
            analysis = analyze(load_dataset(folder), self._eyes)
            write_text(kept, analysis.model_dump_json(indent=1) + "\n")
        return load(Analysis, kept)

    def _copy(self, name: str, source: Path) -> None:
        target = self._layout.sets(self._unit) / name
        if not target.is_dir():
            copy_small(load_dataset(source), self._analysis(source), target, MODEL_SIDE)
