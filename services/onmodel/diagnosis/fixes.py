"""The steps that mend a dataset: captions put right, frames taken from a film, gaps filled."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.core.progress import bar
from onmodel.dataset.analysis import Analysis, analyze
from onmodel.dataset.augment import augment
from onmodel.dataset.composition import load_composition
from onmodel.dataset.facts import Outcome
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.materials import scenery_of
from onmodel.dataset.merge import MergeConfig, merge
from onmodel.dataset.recaption import CaptionConfig, write_captions
from onmodel.dataset.settle import Verify
from onmodel.detection.config import DetectorConfig
from onmodel.detection.weights import local_model
from onmodel.diagnosis.project import Project
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import Services

Ask = Callable[[str], bool]
"""Asks a person a question to be answered with yes or no."""


class WaitingForCuration(UserError):
    """The loop stops here until a person has curated, or says that nothing is to be curated."""


@dataclass
class Workshop:
    """What the steps work with."""

    project: Project
    services: Services
    detector: DetectorConfig
    scorer: ScorerConfig
    measured_with: str
    """Names detector and scorer; part of what stored figures depend on."""
    ask: Ask | None = None
    """None: nobody is asked, and clusters are taken as they are."""
    local: bool = True
    """Detection runs on this machine, so that its model is known without starting it."""
    _analyses: dict[Path, Analysis] = field(default_factory=dict[Path, Analysis])

    def analyze(self, dataset: Path) -> Analysis:
        """A dataset's analysis; what is known of it already is not looked at again."""
        if dataset not in self._analyses:
            loaded = load_dataset(dataset)
            model = local_model(self.detector) if self.local else None
            with bar(f"analysing {dataset.name}", len(loaded.pictures)) as shown:
                self._analyses[dataset] = analyze(loaded, self.services, model=model, advance=shown.advance)
        return self._analyses[dataset]


def mend_captions(shop: Workshop, dataset: Path, out: Path) -> str:
    """Put wrong captions right, in a derived set; says what was done."""
    wording = _wording(shop.project)
    loaded = load_dataset(dataset)
    rows = {row.file: row for row in shop.analyze(dataset).rows}
    with bar("writing captions", len(loaded.pictures)) as shown:
        result = write_captions(loaded, rows, out, wording, mode="fix", advance=shown.advance)
    return f"{result.changed} of {result.pictures} captions were put right."


def _wording(project: Project) -> CaptionConfig:
    return CaptionConfig(trigger=project.trigger, class_word=project.class_word, age=project.age)


def fill(shop: Workshop, dataset: Path, out: Path) -> str:
    """Fill gaps with crops, and with composites where there are materials; says what was done."""
    loaded, known = load_dataset(dataset), shop.analyze(dataset)
    detector = shop.detector if shop.local else None
    scenery = scenery_of(loaded, known, shop.project.materials.folders, False, shop.services, detector)
    with bar("filling", None) as shown:
        result = augment(
            loaded,
            known,
            out,
            target_size=shop.project.target_size,
            scenery=scenery,
            verify=_detect(shop),
            sees_things_in_front=bool(shop.detector.occluder_classes),
            advance=shown.advance,
        )
    made = result.pictures - result.copied
    missed = f" Not reached: {'; '.join(result.unreachable)}." if result.unreachable else ""
    return f"{made} pictures were made of {result.copied}, {result.synthetic:.0f} % of an epoch synthetic.{missed}"


def _detect(shop: Workshop) -> Verify:
    # Asked for where something was made, so that no service starts for nothing.
    def look(images: Sequence[bytes]) -> Sequence[Outcome]:
        return shop.services.detection.detect(images)

    return look


def take_from_film(shop: Workshop, dataset: Path, out: Path, work: Path) -> str:
    """Frames of what is missing, grouped, curated where somebody is asked, captioned and merged; says what was done.

    Raises:
        WaitingForCuration: a person is to look at the groups first.
        UserError: the film has nothing of what is missing.
    """
    # Decoding and clustering libraries take seconds to import, and most projects have no film.
    from onmodel.film.cluster import ClusterConfig, Looking, cluster
    from onmodel.film.cluster_output import write
    from onmodel.film.extract import extract
    from onmodel.film.look import LookConfig
    from onmodel.film.profile import plan

    project = shop.project
    assert project.film is not None
    references = project.film.references or project.references
    frames, clusters = work / "frames", work / "clusters"
    profile = plan(shop.analyze(dataset))
    write_text(
        work / "profile.json", profile.model_dump_json(indent=1, exclude_none=True, exclude_defaults=True) + "\n"
    )
    with closing(LookConfig(shop.detector, shop.scorer).open()) as look:
        extract(
            project.film.files,
            profile,
            frames,
            look,
            reference=references,
            knows_occluders=bool(shop.detector.occluder_classes),
            trigger=project.trigger,
        )
    loaded = load_dataset(frames)
    if not clusters.is_dir():
        looking = Looking(shop.detector, shop.scorer)
        with bar("looking at characters", 2 * len(loaded.pictures)) as shown:
            found = cluster(
                loaded, looking, ClusterConfig(), references={project.trigger: references}, advance=shown.advance
            )
        write(found, loaded, clusters, looking.detector)
    kept = curated(shop, clusters, work / "curated")
    rows = {row.file: row for row in shop.analyze(kept).rows}
    captioned = work / "captioned"
    write_captions(load_dataset(kept), rows, captioned, _wording(project))
    wanted = load_composition("default")
    size = project.target_size
    report = merge(
        [load_dataset(dataset), load_dataset(captioned)],
        [shop.analyze(dataset), shop.analyze(captioned)],
        wanted if size is None else wanted.scaled(size),
        out,
        MergeConfig(class_tokens=f"{project.trigger} {project.class_word}"),
    )
    frames_taken = len(load_dataset(kept).pictures)
    return f"{frames_taken} frames were taken from the film; the merged set has {report.pictures} pictures."


def curated(shop: Workshop, clusters: Path, target: Path) -> Path:
    """The set that a person kept of the clusters, or the character's cluster where nobody is to be asked.

    Raises:
        WaitingForCuration: the person wants to look first; says with which command.
        UserError: no cluster is the character's.
    """
    if target.is_dir():
        return target
    own = clusters / shop.project.trigger
    if shop.ask is not None:
        count = len(load_dataset(own).pictures) if own.is_dir() else 0
        question = f"{count} frames are grouped as {shop.project.trigger} in {clusters}. Take them without curation?"
        if not shop.ask(question):
            command = shlex.join(["onmodel", "curate", str(clusters), "--output-dir", str(target)])
            raise WaitingForCuration(
                f"{clusters}: waits for curation; run `{command}`, write the set there, and run `onmodel improve` again"
            )
    if not own.is_dir():
        raise UserError(f"{clusters}: no cluster is like the references; give --film references of the same look")
    return own


DATASET_STEPS: Mapping[str, Callable[[Workshop, Path, Path, Path], str]] = {
    "captions": lambda shop, dataset, out, work: mend_captions(shop, dataset, out),
    "extract": take_from_film,
    "augment": lambda shop, dataset, out, work: fill(shop, dataset, out),
}
"""Step -> what it does with (workshop, dataset, new dataset's folder, folder for what is on the way)."""
