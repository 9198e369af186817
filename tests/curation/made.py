"""Folders of clusters with exact facts, and sessions over them."""

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from onmodel.core.files import content_hash
from onmodel.core.images import decode, encode_png, load
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, ShotType
from onmodel.curation.catalogue import Catalogue, load_catalogue
from onmodel.curation.session import ActionRequest, PageOptions, Session
from onmodel.curation.start import Settings, open_session
from onmodel.curation.store import Kind
from onmodel.dataset.facts import Facts
from onmodel.detection.convert import Detected
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import Shares, make_dataset, read_truth
from onmodel.toybox.render import Truth

MODEL = ("0" * 64, "1" * 64)
CLUSTERS = {"zibo": 10, "cluster_01": 6, "outliers": 3}
SHARES = Shares(close_up=0.5, full_body=0.3, far=0.2)


class NoServices:
    """Where everything is known, nothing may be asked."""

    @property
    def detection(self) -> "NoServices":
        raise AssertionError("detection was asked for pictures whose facts are known")

    def detect(self, *_: object, **__: object) -> list[Detected]:
        raise AssertionError("detection was asked for pictures whose facts are known")

    def model_info(self) -> None:
        raise AssertionError("detection was asked for its model")


def make_clusters(folder: Path) -> Path:
    """Three clusters of 96 px pictures, and two near-duplicates of zibo's first picture."""
    for seed, ((name, count), character) in enumerate(zip(CLUSTERS.items(), HELD_OUT, strict=True)):
        place = folder / name
        make_dataset(place, HELD_OUT[character], count, SHARES, 21 + seed, size=96, trigger=character)
        truth = read_truth(place)
        (place / "toybox_truth.jsonl").unlink()
        facts = Facts.open(place)
        for file, exact in truth.items():
            facts.put((content_hash((place / file).read_bytes()), *MODEL), _detected(exact))
        if name == "zibo":
            first = min(truth)
            for shift in (1, 2):
                near = np.clip(load(place / first).astype(np.int16) + shift, 0, 255).astype(np.uint8)
                data = encode_png(near)
                (place / f"near_{shift}.png").write_bytes(data)
                facts.put((content_hash(data), *MODEL), _detected(truth[first]))
        facts.save()
    return folder


def _detected(truth: Truth) -> Detected:
    people = [person for person in truth.characters if person.visible_box is not None]
    instances = tuple(
        Instance(p.visible_box, 1.0, "character", p.face_box) for p in people if p.visible_box is not None
    )
    decision = Decision(truth.shot_type, frozenset(truth.attributes), 0 if instances else None, "whole")
    return Detected(Detections(truth.size, truth.size, instances), decision)


def make_many(folder: Path, count: int) -> Path:
    """Tiny distinct pictures with facts, in two clusters: made in seconds."""
    rng = np.random.default_rng(5)
    shots, attributes = list(ShotType), list(Attribute)
    for name, part in (("left", count // 2), ("right", count - count // 2)):
        place = folder / name
        place.mkdir(parents=True)
        facts = Facts.open(place)
        for number in range(part):
            small = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            data = encode_png(np.kron(small, np.ones((4, 4, 1), np.uint8)))
            (place / f"p{number:05d}.png").write_bytes(data)
            decision = Decision(
                shots[number % 5], frozenset(attributes[number % 3 : number % 3 + number % 2]), 0, "whole"
            )
            found = Detections(24, 16, (Instance(Box(4, 2, 12, 14), 0.9, "character"),))
            facts.put((content_hash(data), *MODEL), Detected(found, decision))
        facts.save()
    return folder


def catalogue_of(folder: Path) -> Catalogue:
    """A catalogue that must not need a service."""
    return load_catalogue(folder, NoServices())  # pyright: ignore[reportArgumentType]


@contextmanager
def session_of(
    source: Path, output_dir: Path, *, composition: str | None = None, page: PageOptions | None = None
) -> Generator[Session]:
    """A session without embeddings; its background work is not started."""
    settings = Settings(
        source=source,
        output_dir=output_dir,
        composition=composition,
        embeddings=False,
        page=page or PageOptions(),
    )
    with open_session(settings) as session:
        yield session


_TOKENS = iter(range(10**9))


def ask(session: Session, kind: Kind, pictures: Sequence[str], **fields: object) -> ActionRequest:
    """A request as a page makes it."""
    values = {"client": "test", "token": f"t{next(_TOKENS)}", "since": session.store.revision, **fields}
    return ActionRequest.model_validate({**values, "kind": kind, "pictures": tuple(pictures)})


def ids(catalogue: Catalogue, group: str) -> list[str]:
    """Ids of a cluster's pictures, in order."""
    return [entry.id for entry in catalogue.entries if entry.group == group]


def fresh(made: Path, place: Path) -> Path:
    """A copy of a made folder that may be changed."""
    return Path(shutil.copytree(made, place))


def same_pixels(first: Path, second: Path) -> bool:
    """Whether two files hold the same picture."""
    return bool(np.array_equal(decode(first.read_bytes()), decode(second.read_bytes())))
