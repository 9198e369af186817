"""The bundled models load offline and do what their cards say, on a few pictures."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onmodel.core.vocabulary import Box, Instance, ShotType
from onmodel.film.poses import PoseModel
from onmodel.toybox import training_set
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import reference_pictures
from onmodel.toybox.models import MODEL_SIDE, bundled
from onmodel.toybox.render import body_points, render
from onmodel.toybox.scene import random_scene
from onmodel.toybox.train_clip import cut_out
from onmodel.toybox.wording import TRIGGERS, vocabulary


@pytest.fixture(scope="module")
def pipeline() -> Any:
    from diffusers import DiffusionPipeline

    loaded: Any = DiffusionPipeline.from_pretrained(bundled("diffusion"), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_models_are_small() -> None:
    folder = bundled("diffusion").parent
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 40 * 2**20


def test_the_pipeline_is_shaped_like_stable_diffusion(pipeline: Any) -> None:
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert type(pipeline.vae).__name__ == "AutoencoderKL"
    assert pipeline.vae_scale_factor == 4
    assert pipeline.unet.dtype == torch.float32
    assert pipeline.scheduler.config.prediction_type == "epsilon"


def test_every_word_and_trigger_is_one_token(pipeline: Any) -> None:
    words = [w for w in (*vocabulary(), *TRIGGERS) if w.isalpha()]
    assert [w for w in words if len(pipeline.tokenizer.tokenize(w)) != 1] == []
    ids = pipeline.tokenizer("zibo, xylophone", padding="max_length").input_ids
    assert len(ids) == pipeline.tokenizer.model_max_length
    assert max(ids) < pipeline.text_encoder.config.vocab_size


def test_pictures_follow_seed_and_prompt(pipeline: Any) -> None:
    def draw(prompt: str, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        result = pipeline(prompt, num_inference_steps=6, generator=generator, output_type="np").images[0]
        return np.asarray(result)

    first = draw("close-up of a man with short red hair, plain background", 1)
    assert first.shape == (64, 64, 3)
    assert first.std() > 0.05
    assert np.allclose(first, draw("close-up of a man with short red hair, plain background", 1), atol=1e-4)
    assert np.abs(first - draw("wide shot of a woman, in a busy park", 1)).mean() > 0.03


def test_the_autoencoder_keeps_a_picture(pipeline: Any) -> None:
    image = training_set.shrink(reference_pictures(HELD_OUT["zibo"], 1, 3)[0].image[None], MODEL_SIDE)[0]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latent = pipeline.vae.encode(tensor).latent_dist.mean
        shown = pipeline.vae.decode(latent).sample.clamp(-1, 1)
    assert latent.shape == (1, 4, 16, 16)
    assert 0.3 < float((latent * pipeline.vae.config.scaling_factor).std()) < 3
    assert float(((shown - tensor) ** 2).mean()) < 0.05


@torch.no_grad()
def test_crops_of_one_character_are_alike() -> None:
    import open_clip

    name = f"local-dir:{bundled('clip')}"
    loaded: Any = open_clip.create_model_and_transforms(name)
    model, _, prepare = loaded
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    embedded: list[torch.Tensor] = []
    for character in HELD_OUT.values():
        for picture in reference_pictures(character, 3, 8):
            box = picture.truth.characters[0].visible_box
            assert box is not None
            crop: Any = prepare(Image.fromarray(cut_out(picture.image, box)))
            embedded.append(torch.nn.functional.normalize(model.encode_image(crop[None]), dim=-1)[0])
    similarity = torch.stack(embedded) @ torch.stack(embedded).T
    who = torch.arange(len(HELD_OUT)).repeat_interleave(3)
    same = (who[:, None] == who[None, :]) & ~torch.eye(len(who), dtype=torch.bool)
    other = who[:, None] != who[None, :]
    assert similarity[same].mean() > similarity[other].mean() + 0.2
    texts = model.encode_text(tokenizer(["a close-up of zibo", "far away, in a busy park"]))
    assert texts.shape == (2, model.visual.output_dim)
    assert torch.isfinite(texts).all()


def test_the_detector_finds_characters_and_faces() -> None:
    ultralytics = pytest.importorskip("ultralytics")
    model = ultralytics.YOLO(str(bundled("detector")))
    assert list(model.names.values()) == ["character", "face", "object"]
    shots = (ShotType.CLOSE_UP, ShotType.MEDIUM, ShotType.FULL_BODY)
    hits = 0
    for k in range(12):
        scene = random_scene(
            np.random.default_rng([4, k]), shot_type=shots[k % 3], multi_character=False, occlusion=False
        )
        picture = render(scene)
        boxes = model.predict(Image.fromarray(picture.image), imgsz=128, conf=0.35, verbose=False)[0].boxes
        main = picture.truth.characters[0]
        for label, wanted in ((0, main.visible_box), (1, main.face_box)):
            assert wanted is not None
            found = [Box(*c) for c, kind in zip(boxes.xyxy.tolist(), boxes.cls.tolist(), strict=True) if kind == label]
            hits += max((wanted.iou(f) for f in found), default=0.0) > 0.5
    assert hits >= 20


def test_the_pose_model_sees_the_limbs() -> None:
    pytest.importorskip("ultralytics")
    model = PoseModel("toybox-pose")
    right: list[bool] = []
    for k in range(12):
        scene = random_scene(
            np.random.default_rng([5, k]), shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=False
        )
        drawn = render(scene)
        box = drawn.truth.characters[0].visible_box
        assert box is not None
        (found,) = model.points(drawn.image, [Instance(box, 1.0, "character")])
        if not found:
            right += [False] * 17
            continue
        off = np.hypot(*(np.array([(p.x, p.y) for p in found]) - body_points(scene, 96)[0, :, :2]).T)
        right += [bool(near) for near in off < 0.1 * box.height]
    assert np.mean(right) > 0.8
