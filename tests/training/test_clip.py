"""How captions are read: an earlier layer, longer captions, another autoencoder beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from onmodel.core.errors import NotFoundError, UserError
from onmodel.evaluation.trial import open_trial
from onmodel.training import run
from onmodel.training.families import StableDiffusion, StableDiffusionXL, clip
from onmodel.training.lora_file import read_metadata
from onmodel.training.pipeline import load_pipeline

from .conftest import MakeConfig
from .tiny import WORDS
from .tiny_models import vae as tiny_vae

LONG = ", ".join(["zork", *["standing in the forest"] * 8])


def as_sd_scripts_cuts(tokenizer: Any, caption: str, count: int) -> Tensor:
    """`_get_input_ids` of sd-scripts in other words: one padded row cut into windows, and the seams mended."""
    inside = tokenizer.model_max_length - 2
    row = tokenizer(
        caption, padding="max_length", truncation=True, max_length=count * inside + 2, return_tensors="pt"
    ).input_ids[0]
    found: list[Tensor] = []
    for start in range(1, count * inside + 1, inside):
        window = torch.cat([row[:1], row[start : start + inside], row[-1:]])
        if tokenizer.pad_token_id != tokenizer.eos_token_id:
            if window[-2] not in (tokenizer.eos_token_id, tokenizer.pad_token_id):
                window[-1] = tokenizer.eos_token_id
            if window[1] == tokenizer.pad_token_id:
                window[1] = tokenizer.eos_token_id
        found.append(window)
    return torch.stack(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), max_size=60), count=st.sampled_from([1, 2, 3]), own_pad=st.booleans())
def test_windows_are_those_of_sd_scripts(tiny_pipeline: Path, words: list[str], count: int, own_pad: bool) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tiny_pipeline / "tokenizer")
    tokenizer.pad_token = ",</w>" if own_pad else tokenizer.eos_token
    caption = " ".join(words)
    assert torch.equal(clip.windows(tokenizer, [caption], count)[0], as_sd_scripts_cuts(tokenizer, caption, count))


@torch.no_grad()
def test_clip_skip_reads_captions_as_if_the_last_layers_were_not_there(tiny_pipeline: Path) -> None:
    pipeline: Any = load_pipeline(str(tiny_pipeline))
    plain = StableDiffusion(pipeline)
    skipping = StableDiffusion(pipeline, clip_skip=2)
    assert plain.caption_hash() != skipping.caption_hash()
    assert plain.model_hash() == skipping.model_hash()
    assert torch.equal(StableDiffusion(pipeline, clip_skip=1).encode_captions([LONG]), plain.encode_captions([LONG]))
    found = skipping.encode_captions(["zork", LONG])
    encoder = pipeline.text_encoder
    layers = getattr(encoder, "text_model", encoder).encoder.layers
    del layers[-1]
    torch.testing.assert_close(found, plain.encode_captions(["zork", LONG]))
    with pytest.raises(UserError, match="text encoder has 2 layers; lower it"):
        StableDiffusion(pipeline, clip_skip=3)


@torch.no_grad()
def test_long_captions_are_read_window_by_window(tiny_pipeline: Path, tiny_base: Callable[[str], Path]) -> None:
    pipeline: Any = load_pipeline(str(tiny_pipeline))
    family = StableDiffusion(pipeline, windows=3)
    found = family.encode_captions(["zork", LONG])
    assert found.shape[1] == 3 * 14 + 2
    ids = as_sd_scripts_cuts(pipeline.tokenizer, LONG, 3)
    states = pipeline.text_encoder(ids)[0]
    wanted = torch.cat([states[0, :1], *(window[1:-1] for window in states), states[2, -1:]])
    torch.testing.assert_close(found[1], wanted)
    noisy = torch.randn(2, 4, 8, 8)
    assert family.predict(noisy, torch.tensor([1, 2]), found).shape == noisy.shape

    two: Any = load_pipeline(str(tiny_base("sdxl")))
    short, long = StableDiffusionXL(two), StableDiffusionXL(two, windows=2)
    pooled_rows = short.encode_captions(["zork"]).shape[1] - 16
    one, more = short.encode_captions(["zork"]), long.encode_captions(["zork"])
    assert more.shape[1] == 2 * 14 + 2 + pooled_rows
    torch.testing.assert_close(more[:, :15], one[:, :15])
    torch.testing.assert_close(more[:, -pooled_rows:], one[:, -pooled_rows:])
    assert long.predict(noisy, torch.tensor([1, 2]), more.expand(2, -1, -1)).shape == noisy.shape


def test_a_run_with_them_says_so_in_its_files_and_is_evaluated_alike(make_config: MakeConfig, tmp_path: Path) -> None:
    tiny_vae(channels=4).save_pretrained(tmp_path / "other" / "vae")
    plain = run.train(make_config(training={"max_train_epochs": 1}), num_workers=0)
    keys = {"clip_skip": 2, "max_token_length": 150, "vae": str(tmp_path / "other")}
    config = make_config(model=keys, training={"output_name": "other", "max_train_epochs": 1})
    result = run.train(config, num_workers=0)
    assert result.losses != plain.losses
    metadata = read_metadata(result.checkpoints[-1])
    named = [metadata[key] for key in ("ss_clip_skip", "ss_max_token_length", "ss_vae_name")]
    assert named == ["2", "150", "other"]
    trial = open_trial(result.trial_dir)
    assert (trial.clip_skip, trial.vae) == (2, str(tmp_path / "other"))
    assert (open_trial(plain.trial_dir).clip_skip, open_trial(plain.trial_dir).vae) == (1, None)


def test_another_autoencoder_from_a_folder_or_a_file(tiny_pipeline: Path, tmp_path: Path) -> None:
    torch.manual_seed(9)
    other = tiny_vae(channels=4)
    other.save_pretrained(tmp_path / "folder")
    save_file({name: value.contiguous() for name, value in other.state_dict().items()}, tmp_path / "file.safetensors")
    own = StableDiffusion(load_pipeline(str(tiny_pipeline)))
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        wanted = other.encode(pixels).latent_dist.mode() * other.config.scaling_factor
    for place in (tmp_path / "folder", tmp_path / "file.safetensors"):
        family = StableDiffusion(load_pipeline(str(tiny_pipeline), vae=str(place)))
        torch.testing.assert_close(family.encode_pictures(pixels), wanted)
        assert family.picture_hash() != own.picture_hash()
    with pytest.raises(NotFoundError, match=r"vae .*nowhere: no such file"):
        load_pipeline(str(tiny_pipeline), vae=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load_pipeline(str(tiny_pipeline), vae=str(tmp_path))
    (tmp_path / "broken.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match=r"broken\.safetensors: is no autoencoder"):
        load_pipeline(str(tiny_pipeline), vae=str(tmp_path / "broken.safetensors"))
    tiny_vae(channels=16).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="16 channels in 4 blocks, the base model's 4 in 4"):
        load_pipeline(str(tiny_pipeline), vae=str(tmp_path / "wide"))
