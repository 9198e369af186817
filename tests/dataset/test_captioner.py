"""Captioning models of real classes with random weights: loaded by path, batched, cleaned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onmodel.core.errors import UserError
from onmodel.core.images import encode_png
from onmodel.dataset.captioner import Captioner, CaptionerConfig, clean
from onmodel.dataset.recaption import CaptionConfig, write_captions

from .conftest import Trial
from .test_caption import seen_by
from .world import noise

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[ENC]", "[DEC]"]
WORDS = [*SPECIAL, "a", "boy", "in", "the", "red", "blue", "hat", "park", "running", "with", "friend"]
SIZE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}


def tokenizer(folder: Path) -> Any:
    from transformers.models.bert.tokenization_bert import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return BertTokenizer(vocab=str(folder / "vocab.txt"))


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(3)
    tokens: dict[str, Any] = {"bos_token_id": 6, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        vision_config={**SIZE, "image_size": 32, "patch_size": 16},
        text_config={
            **SIZE,
            **tokens,
            "vocab_size": len(WORDS),
            "encoder_hidden_size": 16,
            "max_position_embeddings": 32,
        },
        projection_dim=8,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(processor, tokenizer(folder / "words")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder of two models, which has no processor of its own."""
    import torch
    from transformers import (
        BertConfig,
        BertLMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(4)
    decoder = BertConfig(**SIZE, vocab_size=len(WORDS), is_decoder=True, add_cross_attention=True)
    model: Any = VisionEncoderDecoderModel(
        encoder=ViTModel(ViTConfig(**SIZE, image_size=32, patch_size=16)), decoder=BertLMHeadModel(decoder)
    )
    for each in (model.config, model.generation_config):
        each.decoder_start_token_id, each.pad_token_id, each.eos_token_id = 2, 0, 3
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer(folder).save_pretrained(folder)
    return folder


def pictures(count: int) -> list[bytes]:
    return [encode_png(noise(24 + 3 * n, seed=n)) for n in range(count)]


@pytest.mark.parametrize("kind", ["blip", "pair"])
def test_batches_say_what_single_pictures_do(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    done: list[int] = []
    batched = Captioner(CaptionerConfig(path=folder, batch_size=3, max_new_tokens=6))
    said = batched.describe(pictures(5), advance=done.append)
    assert done == [3, 2]
    single = Captioner(CaptionerConfig(path=folder, batch_size=1, max_new_tokens=6))
    assert said == single.describe(pictures(5))
    assert any(said)
    assert all(set(line.lower().split()) <= {word.lower() for word in WORDS} for line in said)


def test_a_broken_picture_says_nothing(blip: Path) -> None:
    given = [b"no picture", *pictures(2)]
    said = Captioner(CaptionerConfig(path=blip, max_new_tokens=6)).describe(given)
    assert said[0] == ""
    assert len(said) == 3


def test_a_prompt_is_followed_and_not_repeated(blip: Path) -> None:
    said = Captioner(CaptionerConfig(path=blip, prompt="a boy", max_new_tokens=6)).describe(pictures(2))
    assert all(not line.startswith("a boy") for line in said)


def test_a_folder_of_something_else(tmp_path: Path, clip_folder: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(UserError, match="no image-to-text model"):
        Captioner(CaptionerConfig(path=tmp_path))


def test_clean() -> None:
    assert clean(" A boy in a hat. \n") == "a boy in a hat"
    assert clean("a photo of a boy", "A photo of") == "a boy"
    assert clean("TV on a table") == "TV on a table"


def test_the_model_describes_what_has_no_words(trial: Trial, tmp_path: Path) -> None:
    asked: list[int] = []

    def describe(images: "list[bytes] | Any") -> list[str]:
        asked.append(len(images))
        return ["a young boy in a red hat standing next to an old man"] * len(images)

    seen = seen_by(trial)
    bare = [p for p in trial.dataset.pictures if len(seen[p.path.name].instances) == 1][:2]
    for picture in bare:
        picture.path.with_suffix(".txt").write_text("zibo", encoding="utf-8")
    config = CaptionConfig(trigger="zibo", age="teenage boy")
    result = write_captions(trial.dataset, seen, tmp_path / "out", config, describe=describe)
    assert asked == [2]
    assert result.described == 2
    for picture in bare:
        line = (tmp_path / "out" / picture.path.name).with_suffix(".txt").read_text(encoding="utf-8")
        # The picture shows one character, and its age is known better.
        assert "old man" not in line
        assert "young boy" not in line
        assert "teenage boy in a red hat" in line
    everything = write_captions(
        trial.dataset, seen, tmp_path / "all", config.model_copy(update={"recaption": True}), describe=describe
    )
    assert everything.described == len(np.unique([p.hash for p in trial.dataset.pictures]))
