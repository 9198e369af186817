"""The CLIP model gives what open_clip gives, in batches of any size, and explains what it cannot load."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from onmodel.core.errors import NotFoundError, ResourceError, UserError
from onmodel.scoring.model import ClipModel, ScorerConfig, load_scorer

from .made import noise


def test_embeddings_are_open_clips_own(scorer: ClipModel, clip_folder: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    pictures = [noise(0), noise(1, 32, 32), noise(2, 90, 33)]
    with torch.inference_mode():
        apply: Any = transform
        pixels = torch.stack([apply(Image.fromarray(p)) for p in pictures])
        expected = torch.nn.functional.normalize(model.eval().encode_image(pixels), dim=-1)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    np.testing.assert_allclose(scorer.embed_images(pictures), expected.numpy(), atol=1e-5)


def test_batches_do_not_change_the_answer(scorer: ClipModel) -> None:
    pictures = [noise(seed) for seed in range(9)]
    together = scorer.embed_images(pictures)
    alone = np.concatenate([scorer.embed_images([picture]) for picture in pictures])
    assert together.shape == (9, 32) and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_texts_are_unit_vectors_and_differ(scorer: ClipModel) -> None:
    texts = scorer.embed_texts(["a boy on a beach", "a red car", "a boy on a beach", "x " * 500, "y"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(texts[0], texts[2], atol=1e-6)
    assert not np.allclose(texts[0], texts[1], atol=1e-3)


def test_nothing_gives_nothing(scorer: ClipModel) -> None:
    assert len(scorer.embed_images([])) == 0
    assert len(scorer.embed_texts([])) == 0


def test_hash_is_that_of_the_files(scorer: ClipModel, clip_folder: Path, tmp_path: Path) -> None:
    assert scorer.hash == ScorerConfig(model=str(clip_folder)).hash
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert ScorerConfig(model=str(tmp_path)).hash == scorer.hash
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"other")
    assert ScorerConfig(model=str(tmp_path)).hash != scorer.hash


def test_published_weights_hash_by_name() -> None:
    first = ScorerConfig(model="ViT-B-32", pretrained="openai").hash
    assert first != ScorerConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k").hash


@pytest.mark.parametrize(
    ("config", "kind", "says"),
    [
        (ScorerConfig(model="ViT-B-23", pretrained="openai"), NotFoundError, "did you mean `ViT-B-32`"),
        (ScorerConfig(model="ViT-B-32"), UserError, "no weights are named"),
        (ScorerConfig(model="ViT-B-32", pretrained="opena"), UserError, "no tag `opena`"),
        (ScorerConfig(model="ViT-B-32", pretrained="/nowhere/x.pt"), NotFoundError, "no such checkpoint"),
        (ScorerConfig(model="./nowhere"), NotFoundError, "no such folder"),
        (ScorerConfig(device="cuda:99"), ResourceError, "shows no such GPU"),
        (ScorerConfig(device="gpu"), UserError, "use auto, cpu or cuda"),
    ],
)
def test_what_cannot_be_loaded_is_a_sentence(config: ScorerConfig, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        load_scorer(config)


def test_a_folder_without_a_model_and_a_bare_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no open_clip_config\.json"):
        load_scorer(ScorerConfig(model=str(tmp_path)))
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match="does not say its architecture"):
        load_scorer(ScorerConfig(model=str(tmp_path / "model.pt")))


def test_damaged_weights_are_a_sentence(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_bytes((clip_folder / "open_clip_config.json").read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises((UserError, NotFoundError), match="scorer model"):
        load_scorer(ScorerConfig(model=str(tmp_path)))
