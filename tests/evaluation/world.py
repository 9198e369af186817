"""Stand-ins that know the answer: a detector that reads a render's truth, and a scorer that looks at colours.

With them the figures can be checked on renders with planted faults, without any trained model or service.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onmodel.core.cutouts import GREY
from onmodel.core.errors import ImageError
from onmodel.core.files import content_hash
from onmodel.core.images import decode, encode_png
from onmodel.core.vocabulary import Decision, Detections, Instance, ShotType
from onmodel.evaluation.planned import DrawingModel, plan
from onmodel.evaluation.suite import Prompt
from onmodel.evaluation.tasks import Task
from onmodel.evaluation.trial import Trial
from onmodel.toybox.character import HELD_OUT, Character, random_character
from onmodel.toybox.render import Rendered, Truth, render
from onmodel.toybox.scene import random_scene

from .conftest import small_suite

OURS = HELD_OUT["zibo"]
SCENARIOS: tuple[str, ...] = ("close_up", "full_body", "multi_character", "complex_background", "occlusion")
SUITE = small_suite(scenarios={name: [f"{name} {{trigger}} {n}" for n in range(3)] for name in SCENARIOS}, seeds=[1, 2])


@dataclass(frozen=True)
class Answer:
    detections: Detections
    decision: Decision


@dataclass
class World:
    """Services over pictures whose truth is known; counts what was asked of it."""

    truths: dict[str, Truth] = field(default_factory=dict)
    embedded: int = 0

    @property
    def detection(self) -> "World":
        return self

    @property
    def scoring(self) -> "World":
        return self

    def add(self, picture: Rendered) -> bytes:
        data = encode_png(picture.image)
        self.truths[content_hash(data)] = picture.truth
        return data

    def detect(self, images: Sequence[bytes]) -> list[Answer | ImageError]:
        return [self._answer(data) for data in images]

    def _answer(self, data: bytes) -> Answer | ImageError:
        truth = self.truths.get(content_hash(data))
        if truth is None:
            return ImageError("picture: unknown")
        shown = [c for c in truth.characters if c.visible_box is not None and c.visible_pixels > 0]
        instances = tuple(Instance(c.box, 0.9, "character", c.face_box) for c in shown)
        occluders = tuple(o.box for o in truth.occluders)
        main = 0 if shown and truth.shot_type is not ShotType.UNCLASSIFIED else None
        decision = Decision(truth.shot_type, truth.attributes, main, "the truth")
        return Answer(Detections(truth.size, truth.size, instances, occluders), decision)

    def embed_images(self, images: Sequence[bytes]) -> list[npt.NDArray[np.float32] | ImageError]:
        self.embedded += len(images)
        return [colours(data) for data in images]

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), 125)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def colours(data: bytes) -> npt.NDArray[np.float32]:
    """Root of the histogram over 5x5x5 colours, padding left out: unit length, so a cosine is a Bhattacharyya overlap.

    Pixels count less towards the edges, where a crop shows background.
    """
    image = decode(data)
    across, down = (np.exp(-(np.linspace(-1, 1, n) ** 2) / 0.08) for n in (image.shape[1], image.shape[0]))
    weights = (np.ones_like(down)[:, None] * across[None]).ravel()
    pixels = image.reshape(-1, 3)
    weights = np.where((pixels != GREY).any(axis=1), weights, 0.0)
    cells = (pixels.astype(np.int64) * 5) // 256 @ np.array([25, 5, 1])
    counts = np.bincount(cells, weights=weights, minlength=125) + 1e-9
    return np.sqrt(counts / counts.sum()).astype(np.float32)


@functools.cache
def draw(scenario: str, seed: int, character: Character | None = OURS) -> Rendered:
    """A render that answers `scenario`; None draws a stranger."""
    rng = np.random.default_rng(seed)
    shot = ShotType(scenario) if scenario in ("close_up", "full_body") else ShotType.FULL_BODY
    scene = random_scene(
        rng,
        character=character or random_character(rng),
        shot_type=shot,
        multi_character=scenario == "multi_character",
        occlusion=scenario == "occlusion",
        complex_background=scenario == "complex_background",
    )
    return render(scene, 96)


Painter = Callable[[Prompt, int, int], Rendered]
"""Draws a model's picture for a prompt, variation and seed."""


def task(folder: Path, world: World, painter: Painter) -> Task:
    """A checkpoint whose pictures `painter` drew, with strangers drawn for the same prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    lora = folder / "trial-000001.safetensors"
    lora.write_bytes(b"")
    prompts = SUITE.prompts()
    model = DrawingModel("toy", "0" * 64, lora, "1" * 64)
    pictures = plan(SUITE, prompts, model, folder)
    strangers = plan(SUITE, prompts, DrawingModel("toy", "0" * 64), folder)
    for number, (picture, stranger) in enumerate(zip(pictures, strangers, strict=True)):
        for planned, paint in ((picture, painter), (stranger, stranger_painter)):
            planned.path.parent.mkdir(parents=True, exist_ok=True)
            planned.path.write_bytes(world.add(paint(planned.prompt, planned.variation, number)))
    trial = Trial(folder.name, lora, "toy", None, (), None)
    return Task(trial, model, pictures[0].path.parent, tuple(pictures), tuple(strangers))


def stranger_painter(prompt: Prompt, variation: int, seed: int) -> Rendered:
    return draw(prompt.scenario, seed, None)


def own_painter(prompt: Prompt, variation: int, seed: int) -> Rendered:
    return draw(prompt.scenario, seed)


def references(folder: Path, world: World) -> tuple[Path, ...]:
    """Held-back pictures: four each of close-up and full body."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for number in range(8):
        file = folder / f"{number}.png"
        file.write_bytes(world.add(draw(("close_up", "full_body")[number % 2], 9900 + number)))
        files.append(file)
    return tuple(files)
