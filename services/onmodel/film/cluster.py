"""Who is in the pictures of a dataset: its characters as instances, clustered by identity and named by references."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from onmodel.core.config import Config
from onmodel.core.errors import ImageError, UserError
from onmodel.core.images import RGB, decode
from onmodel.core.vocabulary import Instance, ShotType
from onmodel.dataset.facts import Facts, Outcome, complete
from onmodel.dataset.folder import Dataset, Picture, load_dataset
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.weights import weights_hash
from onmodel.film.groups import GroupingConfig, Labels, Vectors, adopted, group, matches, nearness, similarity
from onmodel.film.look import Look, LookConfig
from onmodel.film.naming import Asked, alike
from onmodel.film.poses import PoseModel, name_pose
from onmodel.film.signatures import Cut, Key, Signature, SignatureConfig, Signatures, cut
from onmodel.scoring.config import ScorerConfig

AT_ONCE = 32
"""Pictures that are decoded, cut and embedded together."""
FEW_FACES = 0.5
"""With faces on a smaller share of the instances, the finder is no judge: those without one count like the others."""
MATCH = 0.8
"""Mean cosine to a cluster's nearest members from which a reference is of that character in any case."""


class ClusterConfig(Config):
    """All settings of clustering."""

    min_size: int = Field(default=12, ge=1)
    """Instances whose box's shorter side has fewer pixels are left out. Small enough for the bundled world, whose far
    characters are 12 pixels wide; for films 100 to 200 leaves what a person can recognise."""
    aspect_ratio: tuple[float, float] | None = None
    """Least and most width over height of a box; None = any. Standing people have 0.3, close-ups 1."""
    use_face_detection: bool = False
    """Only instances with a face."""
    signature: SignatureConfig = SignatureConfig()
    grouping: GroupingConfig = GroupingConfig()

    @model_validator(mode="after")
    def _check(self) -> "ClusterConfig":
        if self.aspect_ratio is not None and not 0 < self.aspect_ratio[0] <= self.aspect_ratio[1]:
            raise ValueError("aspect_ratio must be two numbers above 0, the smaller one first, as in 0.5-2.0")
        return self


class Looking:
    """The models, loaded at their first use; what they are called by is known before where they are local."""

    def __init__(self, detector: DetectorConfig, scorer: ScorerConfig, address: str | None = None) -> None:
        self._config = LookConfig(detector, scorer, address)

    @cached_property
    def look(self) -> Look:
        """The models themselves. Raises NotFoundError, UserError or ServiceError where they cannot be had."""
        return self._config.open()

    @cached_property
    def detector(self) -> tuple[str, str]:
        """Hashes of the detector's weights and settings, as facts are kept under them."""
        if self._config.address is not None:
            return self.look.detector.hash, self.look.detector.config_hash
        config = self._config.detector
        return weights_hash(config.weights, config.face_weights), config.hash

    @cached_property
    def scorer(self) -> str:
        """Names the scorer."""
        return self.look.models if self._config.address is not None else self._config.scorer.hash


@dataclass(slots=True)
class Member:
    """One instance of one picture."""

    file: str
    """The picture's path below the dataset."""
    index: int
    """Its number among the picture's instances."""
    main: bool
    instance: Instance
    refused: str | None = None
    """Why it is not clustered."""
    signature: Signature | None = None
    cluster: str | None = None
    similarity: float | None = None
    """Cosine to the middle of its cluster, at most 1; of an outlier to the nearest members of any."""
    pose: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One readable picture with what is in it."""

    picture: Picture
    file: str
    found: Detected
    members: tuple[Member, ...]

    @property
    def main(self) -> Member | None:
        return next((m for m in self.members if m.main), None)


@dataclass(slots=True)
class Clustering:
    """The whole answer."""

    seen: list[Seen]
    unreadable: list[str]
    """A sentence each."""
    names: list[str]
    """Clusters by falling number of instances."""
    notes: list[str] = field(default_factory=list[str])

    @property
    def members(self) -> Iterator[Member]:
        return (member for seen in self.seen for member in seen.members)

    @property
    def refused(self) -> dict[str, int]:
        """Why instances were not clustered -> how many."""
        return dict(Counter(m.refused for m in self.members if m.refused is not None))


def cluster(
    dataset: Dataset,
    looking: Looking,
    config: ClusterConfig,
    *,
    references: Mapping[str, Path] | None = None,
    pose: PoseModel | None = None,
    facts: Facts | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Clustering:
    """Find the characters of a dataset and who is who.

    Args:
        dataset: its pictures; not changed. What is found is kept in `onmodel.parquet` and
            `onmodel.signatures.parquet` beside it, so that a second run looks at nothing again.
        looking: detector and scorer.
        config: filters, weights, thresholds.
        references: name -> folder of pictures of that character.
        pose: names poses; None = by body points that the detector itself found.
        facts: what is known of the dataset; None opens the file beside it.
        advance: called with the number of pictures done, twice for each picture.

    Raises:
        UserError: a reference folder shows nobody.
        ServiceError: a service fails; what was found until then is kept.
    """
    facts = Facts.open(dataset.path) if facts is None else facts
    seen, unreadable, notes = observe(dataset, looking, config, facts, pose, advance)
    result = Clustering(seen, unreadable, [], notes)
    known = {name: _reference(name, path, looking, config) for name, path in (references or {}).items()}
    members = [m for m in result.members if m.signature is not None]
    if not members:
        result.notes.append("no character of the size, shape and kind asked for is in the pictures")
        return result
    vectors = np.stack([_signature(m).vector(config.signature) for m in members])
    number = {s.file: n for n, s in enumerate(seen)}
    labels = group(vectors, [number[m.file] for m in members], _certain(members), config.grouping)
    owners = matches(list(known.values()), vectors, labels, MATCH)
    of = {s.file: s for s in seen}
    unclaimed = {
        c: _asked([m for m, label in zip(members, labels, strict=True) if label == c], of)
        for c in sorted(set(labels.tolist()) - {-1, *owners})
    }
    owners |= alike(unclaimed, list((references or {}).values()), looking)
    result.names = _name(members, vectors, labels, known, owners, config.grouping)
    result.notes += [f"{name}: no cluster is like its references" for name in known if name not in result.names]
    return result


def observe(
    dataset: Dataset,
    looking: Looking,
    config: ClusterConfig,
    facts: Facts,
    pose: PoseModel | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> tuple[list[Seen], list[str], list[str]]:
    """Readable pictures with their instances and signatures, sentences about unreadable ones, and notes."""
    readers: dict[str, Picture] = {}
    unreadable: list[str] = []
    hashes: dict[Path, str] = {}
    for picture in dataset.pictures:
        try:
            hashes[picture.path] = picture.hash
            readers.setdefault(picture.hash, picture)
        except ImageError as error:
            unreadable.append(str(error))
    advance(len(dataset.pictures) - len(readers))
    complete(
        facts,
        {content: picture.bytes for content, picture in readers.items()},
        looking.detector,
        lambda images: _detect(images, looking.look, advance),
        chunk=AT_ONCE,
        advance=advance,
    )
    seen: list[Seen] = []
    for picture in dataset.pictures:
        found = facts.get((hashes[picture.path], *looking.detector)) if picture.path in hashes else None
        if isinstance(found, Detected):
            seen.append(_seen(picture, dataset.relative(picture), found, config))
        elif found is not None:
            unreadable.append(f"{dataset.relative(picture)}: {str(found).removeprefix('picture: ')}")
    store = Signatures.open(
        facts.path.with_name(f"{facts.path.stem}.signatures.parquet"), f"{looking.scorer} {config.signature.hash}"
    )
    _sign(seen, looking, config, store, pose, advance)
    return seen, unreadable, [note for note in (facts.note, store.note) if note is not None]


def _detect(images: Sequence[bytes], look: Look, advance: Callable[[int], object]) -> list[Outcome]:
    """Answers for encoded pictures, in order; an unreadable one's error."""
    outcomes: list[Outcome | RGB] = []
    for data in images:
        try:
            outcomes.append(decode(data))
        except ImageError as error:
            outcomes.append(error)
    found = iter(look.detect([image for image in outcomes if isinstance(image, np.ndarray)]))
    advance(len(images))
    return [next(found) if isinstance(outcome, np.ndarray) else outcome for outcome in outcomes]


def _seen(picture: Picture, file: str, found: Detected, config: ClusterConfig) -> Seen:
    return Seen(
        picture,
        file,
        found,
        tuple(
            Member(file, n, n == found.decision.main, instance, _refusal(instance, config))
            for n, instance in enumerate(found.detections.instances)
        ),
    )


def _refusal(instance: Instance, config: ClusterConfig) -> str | None:
    """Why an instance is not clustered, in words that count over instances."""
    box = instance.box
    if min(box.width, box.height) < config.min_size:
        return f"smaller than {config.min_size} pixels"
    if config.aspect_ratio is not None:
        low, high = config.aspect_ratio
        if not low <= box.width / max(box.height, 1e-6) <= high:
            return f"of another shape than {low:g} to {high:g}"
    return "without a face" if config.use_face_detection and instance.face is None else None


def _sign(
    seen: Sequence[Seen],
    looking: Looking,
    config: ClusterConfig,
    store: Signatures,
    pose: PoseModel | None,
    advance: Callable[[int], object],
) -> None:
    """Give every instance that is clustered its signature, and each its pose."""
    try:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(seen), AT_ONCE):
                part = seen[start : start + AT_ONCE]
                wanted = [s for s in part if any(store.get(_key(s, m)) is None for m in s.members if m.refused is None)]
                cuts = [item for made in pool.map(lambda s: _cuts(s, config.signature, store), wanted) for item in made]
                _embed(cuts, looking, store)
                for picture in part:
                    _finish(picture, store, pose)
                    advance(1)
    except BaseException:
        store.save()
        raise
    store.save()


def _key(seen: Seen, member: Member) -> Key:
    return (seen.picture.hash, member.instance.box.as_tuple())


def _cuts(seen: Seen, config: SignatureConfig, store: Signatures) -> list[tuple[Key, Cut]]:
    image = decode(seen.picture.bytes(), seen.file)
    return [
        (_key(seen, m), cut(image, seen.found.detections, m.index, config))
        for m in seen.members
        if m.refused is None and store.get(_key(seen, m)) is None
    ]


def _embed(cuts: Sequence[tuple[Key, Cut]], looking: Looking, store: Signatures) -> None:
    if not cuts:
        return
    rows = looking.look.embed([c.crop for _, c in cuts] + [c.head for _, c in cuts])
    for n, (key, made) in enumerate(cuts):
        store.put(key, Signature(rows[n], rows[len(cuts) + n], made.head_colours, made.chest_colours))


def _finish(seen: Seen, store: Signatures, pose: PoseModel | None) -> None:
    points = [m.instance.keypoints for m in seen.members]
    if pose is not None and seen.members:
        points = pose.points(decode(seen.picture.bytes(), seen.file), [m.instance for m in seen.members])
    for member, found in zip(seen.members, points, strict=True):
        if found:
            member.instance = replace(member.instance, keypoints=found)
        member.pose = name_pose(found)
        member.signature = store.get(_key(seen, member)) if member.refused is None else None


def _signature(member: Member) -> Signature:
    assert member.signature is not None
    return member.signature


def _certain(members: Sequence[Member]) -> list[bool]:
    """Whose signature is of the parts that it says: head and chest seen, and the head where a face was found."""
    faces = sum(m.instance.face is not None for m in members)
    needed = faces >= FEW_FACES * len(members)
    return [_signature(m).complete and (m.instance.face is not None or not needed) for m in members]


def _reference(name: str, path: Path, looking: Looking, config: ClusterConfig) -> Vectors:
    """Vectors of the main characters of a folder of reference pictures. Raises UserError where there are none."""
    dataset = load_dataset(path)
    # References may be crops of any size, so the filters do not hold for them.
    loose = ClusterConfig(min_size=1, signature=config.signature)
    seen, _, _ = observe(dataset, looking, loose, Facts.open(dataset.path))
    vectors = [_signature(s.main).vector(config.signature) for s in seen if s.main is not None]
    if not vectors:
        raise UserError(f"{path}: no character is found in its pictures; give --reference {name} clear ones")
    return np.stack(vectors)


def _asked(members: Sequence[Member], seen: Mapping[str, Seen]) -> list[Asked]:
    return [
        Asked(
            seen[m.file].picture,
            m.instance.box,
            seen[m.file].found.detections.occluders,
            seen[m.file].found.decision.shot_type if m.main else ShotType.UNCLASSIFIED,
        )
        for m in members
    ]


def _name(
    members: Sequence[Member],
    vectors: Vectors,
    labels: Labels,
    known: Mapping[str, Vectors],
    owners: Mapping[int, int],
    config: GroupingConfig,
) -> list[str]:
    """Write each member's cluster and similarity; the clusters' names by falling size.

    `owners`: cluster -> index of the one in `known` that it shows.
    """
    names = list(known)
    count = int(labels.max(initial=-1)) + 1
    # Those of nobody known are numbered among all, so that a name given later renumbers no other.
    called = [names[owners[c]] if c in owners else f"cluster_{c:02d}" for c in range(count)]
    order = {name: n for n, name in enumerate(dict.fromkeys(called))}
    joined = np.array([order[called[c]] if c >= 0 else -1 for c in labels.tolist()], dtype=np.int64)
    if owners:
        # References are members too, and fragments that are one now no longer compete for those between them.
        more = [(order[name], rows) for name, rows in known.items() if name in order]
        every = np.concatenate([vectors, *(rows for _, rows in more)])
        tags = np.concatenate([joined, *(np.full(len(rows), n, dtype=np.int64) for n, rows in more)])
        joined = adopted(tags, every, config)[: len(vectors)]
    values = similarity(vectors, joined)
    middles = [vectors[joined == c] for c in range(len(order))]
    for n, member in enumerate(members):
        if joined[n] >= 0:
            member.cluster = list(order)[int(joined[n])]
            member.similarity = min(1.0, float(values[n]))
        elif middles:
            member.similarity = min(1.0, max(float(nearness(vectors[n][None], rows)[0]) for rows in middles))
    sizes = Counter(member.cluster for member in members if member.cluster is not None)
    return sorted(order, key=lambda name: (-sizes[name], order[name]))
