"""One part of a film from frames to looked-at candidates: a pure function of film, part, questions and models."""

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onmodel.core.cutouts import square_crop
from onmodel.core.errors import InternalError
from onmodel.core.files import folder_aside
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, Keypoint, ShotType
from onmodel.detection.config import ShotConfig
from onmodel.detection.convert import Detected
from onmodel.detection.rules import decide_for
from onmodel.film.candidates import BEYOND, Candidate, Counted, SamplingConfig, candidates
from onmodel.film.decode import Film, Piece, Reader
from onmodel.film.identity import Character, IdentityConfig, crop_of, hidden_share, likeness, signature
from onmodel.film.look import Look

Item = TypeVar("Item")
BATCH = 16
"""Candidates that are looked at together; their full frames are all that is held in memory."""
ROWS = "rows.json"


@dataclass(frozen=True, slots=True)
class Questions:
    """What every candidate is asked. Picklable."""

    characters: tuple[Character, ...]
    """Ours first; none = whoever is the main character."""
    identity: IdentityConfig
    texts: tuple[tuple[str, npt.NDArray[np.float32]], ...]
    """Scene name and the embeddings of its texts (n, width), of scenes that have any."""
    categories: frozenset[str]
    """Categories asked for: pictures of others are not kept."""
    floor: float
    """Likeness below which a picture is not kept, well below any threshold that may be found later."""
    thresholds: ShotConfig
    """By which shot types and attributes are decided."""
    colours_hide: bool
    """Whether what stands in front is judged by colours, since the detector knows no class of it."""


@dataclass(frozen=True, slots=True)
class Task:
    """One part of one film."""

    film: Film
    index: int
    piece: Piece
    sampling: SamplingConfig
    questions: Questions


@dataclass(slots=True)
class Looked:
    """One candidate and all that was seen in it."""

    time_s: float
    shot: int
    sharpness: float
    fingerprint: int
    fault: str | None
    detected: Detected | None = None
    """Its decision is about the instance most like our character, not about the most prominent one."""
    likeness: tuple[tuple[float, ...], ...] = ()
    """Of each character asked for, to each instance."""
    hidden: float = 0.0
    """See `hidden_share`; of our character."""
    texts: tuple[float, ...] = ()
    """Of each scene with texts: the best match with frame or crop, as a cosine."""
    picture: str | None = None
    """File name of the kept picture in the part's folder."""


@dataclass(slots=True)
class Part:
    """What is known of one part."""

    frames: int
    shots: int
    cut_at_end: bool
    damaged: int
    rows: list[Looked]


def work(
    task: Task, look: Look, reader: Reader, *, advance: Callable[[int], object] = lambda count: None
) -> tuple[Part, dict[str, bytes]]:
    """Decode, sample and look at one part.

    Returns:
        What is known of it, and the packed pictures that may be chosen, by file name.
    """
    counted = Counted()
    damaged = reader.damaged
    frames = _counting(reader.read(*task.piece, beyond=BEYOND), advance)
    rows: list[Looked] = []
    pictures: dict[str, bytes] = {}
    # Decoding goes on in a thread of its own while models compute.
    for batch in ahead(_batches(candidates(frames, task.sampling, counted)), depth=1):
        rows += _look_at(batch, task.questions, look, pictures)
    rows.sort(key=lambda row: row.time_s)
    return Part(counted.frames, counted.shots, counted.cut_at_end, reader.damaged - damaged, rows), pictures


def _counting(frames: Iterable[Any], advance: Callable[[int], object]) -> Iterator[Any]:
    for frame, beyond in frames:
        if not beyond:
            advance(1)
        yield frame, beyond


def _batches(found: Iterable[Candidate]) -> Iterator[list[tuple[Candidate, RGB | None]]]:
    """Runs of candidates with at most `BATCH` pictures in full size among them."""
    batch: list[tuple[Candidate, RGB | None]] = []
    held = 0
    for candidate in found:
        picture = None if candidate.frame is None else candidate.frame.picture()
        candidate.frame = None
        held += picture is not None
        batch.append((candidate, picture))
        if held == BATCH:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """The items in order, made by another thread up to `depth` of them in advance; its error is raised here."""
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=make, name="decode", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        stop.set()
        thread.join()


def _look_at(
    batch: list[tuple[Candidate, RGB | None]], questions: Questions, look: Look, pictures: dict[str, bytes]
) -> list[Looked]:
    images = [picture for _, picture in batch if picture is not None]
    found = look.detect(images) if images else []
    crops = [
        crop_of(image, instance.box, d.detections.occluders)
        for image, d in zip(images, found, strict=True)
        for instance in d.detections.instances
    ]
    embedded = look.embed(crops) if questions.characters else np.zeros((len(crops), 0), np.float32)
    rows: list[Looked] = []
    looked: list[tuple[Looked, RGB]] = []
    answers = iter(found)
    start = 0
    for candidate, picture in batch:
        fault = None if candidate.fault is None else candidate.fault.value
        row = Looked(candidate.time_s, candidate.shot, candidate.sharpness, candidate.fingerprint, fault)
        rows.append(row)
        if picture is None:
            continue
        row.detected = next(answers)
        count = len(row.detected.detections.instances)
        _compare(row, picture, embedded[start : start + count], questions)
        start += count
        looked.append((row, picture))
    if questions.texts:
        _match_texts(looked, questions, look)
    for row, picture in looked:
        if _may_be_chosen(row, questions):
            row.picture = f"{round(row.time_s * 1000):09d}.rgb"
            pictures[row.picture] = pack(picture)
    return rows


def _compare(row: Looked, picture: RGB, embedded: npt.NDArray[np.float32], questions: Questions) -> None:
    assert row.detected is not None
    boxes = [instance.box for instance in row.detected.detections.instances]
    if not boxes or not questions.characters:
        return
    colours = np.stack([signature(picture, box, row.detected.detections.occluders) for box in boxes])
    row.likeness = tuple(
        tuple(round(float(v), 6) for v in likeness(embedded, colours, character, questions.identity))
        for character in questions.characters
    )
    ours = int(np.argmax(row.likeness[0]))
    found = row.detected
    busy = Attribute.COMPLEX_BACKGROUND in found.decision.attributes
    decision = decide_for(found.detections, ours, questions.thresholds, complex_background=busy)
    if questions.colours_hide:
        row.hidden = round(hidden_share(picture, boxes[ours], questions.characters[0]), 6)
        if row.hidden >= questions.identity.hidden_share:
            decision = replace(decision, attributes=decision.attributes | {Attribute.OCCLUSION})
    row.detected = Detected(found.detections, decision)


def _match_texts(looked: list[tuple[Looked, RGB]], questions: Questions, look: Look) -> None:
    """Best cosine of each scene's texts with the whole frame and with our character's crop."""
    images: list[RGB] = []
    for row, picture in looked:
        assert row.detected is not None
        main = row.detected.decision.main
        instances = row.detected.detections.instances
        images += [picture, picture if main is None else square_crop(picture, instances[main].box)[0]]
    embedded = look.embed(images)
    for number, (row, _) in enumerate(looked):
        pair = embedded[2 * number : 2 * number + 2]
        row.texts = tuple(round(float((pair @ texts.T).max()), 6) for _, texts in questions.texts)


def _may_be_chosen(row: Looked, questions: Questions) -> bool:
    assert row.detected is not None
    decision = row.detected.decision
    if decision.main is None or (row.likeness and row.likeness[0][decision.main] < questions.floor):
        return False
    return bool(decision.categories & questions.categories)


def pack(image: RGB) -> bytes:
    """A picture without loss and in a few milliseconds: differences of neighbours, zstandard level 1."""
    delta = image.copy()
    delta[:, 1:] -= image[:, :-1]
    height, width = image.shape[:2]
    body: bytes = pa.compress(delta.tobytes(), codec="zstd", asbytes=True)
    return f"{height} {width}\n".encode() + body


def unpack(data: bytes) -> RGB:
    """The picture of `pack`. Raises InternalError for other bytes."""
    head, _, body = data.partition(b"\n")
    try:
        height, width = (int(v) for v in head.split())
        raw: bytes = pa.decompress(body, decompressed_size=height * width * 3, codec="zstd", asbytes=True)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise InternalError(f"a kept picture cannot be read again ({error}); run again with --no-resume") from None
    return np.cumsum(np.frombuffer(raw, np.uint8).reshape(height, width, 3), axis=1, dtype=np.uint8)


def save(folder: Path, part: Part, pictures: dict[str, bytes]) -> None:
    """Write a part's folder whole or not at all."""
    with folder_aside(folder) as aside:
        for name, data in pictures.items():
            (aside / name).write_bytes(data)
        head = {"frames": part.frames, "shots": part.shots, "cut_at_end": part.cut_at_end, "damaged": part.damaged}
        rows = [asdict(row) for row in part.rows]
        (aside / ROWS).write_text(json.dumps({**head, "rows": rows}, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not written to {ROWS}")


def read(folder: Path) -> Part | None:
    """A finished part's rows, or None where it is not finished."""
    path = folder / ROWS
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [_row(row) for row in found["rows"]]
    return Part(found["frames"], found["shots"], found["cut_at_end"], found["damaged"], rows)


def _row(row: dict[str, Any]) -> Looked:
    detected = row.pop("detected")
    made = Looked(**row)
    made.likeness = tuple(tuple(values) for values in row["likeness"])
    made.texts = tuple(row["texts"])
    made.detected = None if detected is None else _detected(detected)
    return made


def _detected(value: dict[str, Any]) -> Detected:
    found, decision = value["detections"], value["decision"]
    instances = tuple(
        Instance(
            Box(**instance["box"]),
            instance["confidence"],
            instance["label"],
            Box(**instance["face"]) if instance["face"] else None,
            tuple(Keypoint(**point) for point in instance["keypoints"]),
            tuple((float(x), float(y)) for x, y in instance["outline"]),
        )
        for instance in found["instances"]
    )
    occluders = tuple(Box(**box) for box in found["occluders"])
    return Detected(
        Detections(found["width"], found["height"], instances, occluders),
        Decision(
            ShotType(decision["shot_type"]),
            frozenset(Attribute(name) for name in decision["attributes"]),
            decision["main"],
            decision["reason"],
        ),
    )
