"""How good the bundled models are, on pictures and characters that they were not trained on.

    python -m onmodel.toybox.measure detector|clip|diffusion [PICTURES]

Prints one JSON object; the model cards quote it.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from onmodel.core.vocabulary import Box, ShotType
from onmodel.toybox.character import HELD_OUT, Character, near_twin, random_character
from onmodel.toybox.models import bundled
from onmodel.toybox.render import Rendered, Truth, render
from onmodel.toybox.scene import FRAMED, random_scene
from onmodel.toybox.train_clip import cut_out
from onmodel.toybox.wording import describe

SEED: Final[int] = 90210
"""Apart from the training set's seed, so that no picture is shared with it."""


def pictures(count: int) -> list[Rendered]:
    """Pictures of every kind, four shot types in turn."""
    return [
        render(random_scene(np.random.default_rng([SEED, k]), shot_type=FRAMED[k % len(FRAMED)])) for k in range(count)
    ]


def _best(box: Box, found: list[Box]) -> float:
    return max((box.iou(other) for other in found), default=0.0)


def detector(count: int, image_size: int = 128, confidence: float = 0.35) -> dict[str, float]:
    """Recall, precision and mean IoU a class, and how often a plain box rule names the shot type.

    The rule: a face taller than 0.62 of its character's visible box is a close-up; a box that ends at the lower edge of
    the frame is a medium shot; a box lower than 0.45 of the frame is far; the rest is full body.
    """
    from ultralytics import YOLO

    model: Any = YOLO(str(bundled("detector")))
    drawn = pictures(count)
    overlaps: dict[int, list[float]] = {0: [], 1: [], 2: []}
    precise: dict[int, list[float]] = {0: [], 1: [], 2: []}
    right = many = hidden = 0
    for item in drawn:
        result = model.predict(Image.fromarray(item.image), imgsz=image_size, conf=confidence, verbose=False)[0].boxes
        found: dict[int, list[Box]] = {0: [], 1: [], 2: []}
        for label, corners in zip(result.cls.tolist(), result.xyxy.tolist(), strict=True):
            found[int(label)].append(Box(*corners))
        wanted = _wanted(item.truth)
        for label, boxes in wanted.items():
            overlaps[label] += [_best(box, found[label]) for box in boxes]
            precise[label] += [float(_best(box, boxes) > 0.5) for box in found[label]]
        right += _rule(found, item.truth.size) is item.truth.shot_type
        many += (len(found[0]) > 1) == (item.truth.count > 1)
        hidden += (len(found[2]) > 0) == (len(item.truth.occluders) > 0)
    report: dict[str, float] = {
        "pictures": count,
        "shot_type_by_rule": right / count,
        "several_characters_right": many / count,
        "something_in_front_right": hidden / count,
    }
    for label, name in enumerate(("character", "face", "object")):
        values = np.array(overlaps[label])
        report[f"{name}_recall_at_50"] = float((values > 0.5).mean())
        report[f"{name}_precision_at_50"] = float(np.mean(precise[label]))
        report[f"{name}_mean_iou_when_found"] = float(values[values > 0.5].mean())
    return {k: round(v, 4) for k, v in report.items()}


def _wanted(truth: Truth) -> dict[int, list[Box]]:
    people = [c for c in truth.characters if c.visible_pixels >= 8]
    return {
        0: [c.visible_box for c in people if c.visible_box is not None],
        1: [c.face_box for c in people if c.face_box is not None],
        2: [o.box for o in truth.occluders],
    }


def _rule(found: dict[int, list[Box]], size: int) -> ShotType:
    if not found[0]:
        return ShotType.UNCLASSIFIED
    main = max(found[0], key=lambda b: b.area)
    face = max(found[1], key=main.intersection, default=None)
    if face is not None and face.height > 0.62 * main.height and main.y1 > 0.97 * size:
        return ShotType.CLOSE_UP
    if main.y1 > 0.97 * size:
        return ShotType.MEDIUM
    return ShotType.FAR if main.height < 0.45 * size else ShotType.FULL_BODY


def auc(genuine: npt.NDArray[np.float64], impostor: npt.NDArray[np.float64]) -> float:
    """The chance that a genuine pair scores above an impostor pair (Mann–Whitney), ties counted half."""
    both = np.concatenate([genuine, impostor])
    ranks = both.argsort().argsort().astype(np.float64) + 1
    return float((ranks[: len(genuine)].sum() - len(genuine) * (len(genuine) + 1) / 2) / (len(genuine) * len(impostor)))


def _views(character: Character, seed: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """Crops of one character from pictures of any kind but far ones."""
    crops: list[npt.NDArray[np.uint8]] = []
    for k in range(count):
        scene = random_scene(np.random.default_rng([SEED, seed, k]), character=character, shot_type=FRAMED[k % 3])
        drawn = render(scene)
        box = drawn.truth.characters[0].visible_box
        assert box is not None
        crops.append(cut_out(drawn.image, box))
    return crops


@torch.no_grad()
def clip(count: int) -> dict[str, float]:
    """Verification of unseen characters from crops, against others and against near twins; and caption retrieval."""
    import open_clip

    name = f"local-dir:{bundled('clip')}"
    loaded: Any = open_clip.create_model_and_transforms(name)
    model, _, prepare = loaded
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)

    def embed(images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float64]:
        batch = torch.stack([prepare(Image.fromarray(i)) for i in images])
        unit: torch.Tensor = torch.nn.functional.normalize(model.encode_image(batch), dim=-1)
        return unit.double().numpy()

    rng = np.random.default_rng(SEED)
    people = [*HELD_OUT.values(), *(random_character(rng) for _ in range(count))]
    twins = [near_twin(rng, p) for p in people]
    own = [embed(_views(p, 10 + k, 6)) for k, p in enumerate(people)]
    twin = [embed(_views(p, 10_000 + k, 3)) for k, p in enumerate(twins)]
    upper = np.triu_indices(6, 1)
    genuine = np.concatenate([(v @ v.T)[upper] for v in own])
    others = np.concatenate([(own[k] @ own[(k + s) % len(own)].T).ravel() for k in range(len(own)) for s in (1, 2)])
    near = np.concatenate([(a @ b.T).ravel() for a, b in zip(own, twin, strict=True)])
    drawn: list[Rendered] = []
    captions: list[str] = []
    for k in range(100):
        chance = np.random.default_rng([SEED, 7, k])
        scene = random_scene(chance, shot_type=FRAMED[k % 4])
        drawn.append(render(scene))
        captions.append(describe(scene, chance, keep=1.0))
    texts = torch.nn.functional.normalize(model.encode_text(tokenizer(captions)), dim=-1).double().numpy()
    best = (embed([d.image for d in drawn]) @ texts.T).argmax(axis=1)
    framing = embed([d.image for d in drawn]) @ embed_prompts(model, tokenizer).T
    report = {
        "characters": float(len(people)),
        "auc_other_characters": auc(genuine, others),
        "auc_near_twins": auc(genuine, near),
        "genuine_mean": float(genuine.mean()),
        "impostor_mean": float(others.mean()),
        "twin_mean": float(near.mean()),
        "caption_of_100_right": float((best == np.arange(100)).mean()),
        "framing_by_prompt_right": float((framing.argmax(axis=1) == np.arange(100) % 4).mean()),
    }
    return {k: round(v, 4) for k, v in report.items()}


@torch.no_grad()
def embed_prompts(model: Any, tokenizer: Any) -> npt.NDArray[np.float64]:
    """Unit embeddings (4, d) of one prompt a shot type, in the order of `FRAMED`."""
    prompts = ["close-up portrait", "medium shot, upper body", "full body, from head to feet", "far away, wide shot"]
    return torch.nn.functional.normalize(model.encode_text(tokenizer(prompts)), dim=-1).double().numpy()


PROMPTS: Final[dict[ShotType, str]] = {
    ShotType.CLOSE_UP: "close-up of a {who}, {hair}, {scene}",
    ShotType.MEDIUM: "medium shot of a {who}, {hair}, standing, {scene}",
    ShotType.FULL_BODY: "full body of a {who}, {hair}, standing, {scene}",
    ShotType.FAR: "wide shot of a {who}, {hair}, standing, {scene}",
}


def diffusion(count: int, steps: int = 25) -> dict[str, float]:
    """Generated pictures judged by the bundled detector: is someone there, and framed as the prompt said?"""
    from diffusers import StableDiffusionPipeline
    from ultralytics import YOLO

    pipeline: Any = StableDiffusionPipeline.from_pretrained(bundled("diffusion"))
    pipeline.set_progress_bar_config(disable=True)
    model: Any = YOLO(str(bundled("detector")))
    people = ("teenage boy", "little girl", "man", "woman")
    hairs = ("spiky red hair", "long blonde hair", "short black hair", "curly brown hair")
    report: dict[str, float] = {"pictures": float(count * len(FRAMED))}
    for shot in FRAMED:
        prompts = [
            PROMPTS[shot].format(
                who=people[k % 4], hair=hairs[(k // 4) % 4], scene="plain background" if k % 2 else "in a park"
            )
            for k in range(count)
        ]
        generator = torch.Generator().manual_seed(SEED)
        images = pipeline(prompts, num_inference_steps=steps, guidance_scale=4.0, generator=generator).images
        found_any = right = 0
        for image in images:
            boxes = model.predict(image, imgsz=128, conf=0.35, verbose=False)[0].boxes
            found: dict[int, list[Box]] = {0: [], 1: [], 2: []}
            for label, corners in zip(boxes.cls.tolist(), boxes.xyxy.tolist(), strict=True):
                found[int(label)].append(Box(*corners))
            found_any += bool(found[0])
            right += _rule(found, image.width) is shot
        report[f"{shot.value}_someone_found"] = found_any / count
        report[f"{shot.value}_framed_right"] = right / count
    return {k: round(v, 4) for k, v in report.items()}


if __name__ == "__main__":
    which = {"detector": detector, "clip": clip, "diffusion": diffusion}[sys.argv[1]]
    print(json.dumps(which(int(sys.argv[2]) if len(sys.argv) > 2 else 100), indent=2))
