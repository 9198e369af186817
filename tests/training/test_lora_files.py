"""LoRA files: names, metadata, and pictures drawn with them in diffusers."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from onmodel.core.errors import NotFoundError, UserError
from onmodel.training import export, lora_file, network
from onmodel.training.naming import SdNaming
from onmodel.training.network_spec import NetworkSpec
from onmodel.training.pipeline import load_lora, load_pipeline, set_lora_scale, unload_lora
from onmodel.training.weights import DOWN, UP, LoraWeights


def trained(pipeline: Any, *, dim: int = 4, alpha: float = 2.0) -> LoraWeights:
    """A LoRA on `pipeline` whose up matrices are not zero, as after training."""
    components = network.lora_components(pipeline)
    network.attach(components, NetworkSpec(dim=dim, alpha=alpha), SdNaming(), seed=7)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for module in components.values():
            for parameter in network.parameters(module):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.read_weights(components)


def draw(pipeline: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(4)
    return pipeline("zork in the forest", num_inference_steps=3, generator=generator, output_type="np").images[0]


@pytest.fixture(scope="module")
def drawn(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder with the LoRA in both formats, the base model's picture, and the picture at training's end."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline = load_pipeline(str(tiny_pipeline))
    base = draw(pipeline)
    weights = trained(pipeline)
    export.write_lora(folder / "zork.safetensors", weights, SdNaming(), {"ss_network_dim": "4"})
    export.write_peft(folder / "peft", weights, NetworkSpec())
    return folder, base, draw(pipeline)


def reconstructed_names(module: nn.Module, prefix: str, classes: set[str]) -> set[str]:
    """sd-scripts' own rule, written down a second time: parents by class, children Linear or 1x1 convolution."""
    names: set[str] = set()
    for name, parent in module.named_modules():
        if parent.__class__.__name__ in classes:
            for child_name, child in parent.named_modules():
                kind = child.__class__.__name__
                if kind == "Linear" or (kind == "Conv2d" and tuple(child.kernel_size) == (1, 1)):  # pyright: ignore
                    names.add((prefix + "." + name + "." + child_name).replace(".", "_"))
    return names


def test_file_holds_the_keys_that_sd_scripts_would_write(
    tiny_pipeline: Path, drawn: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    pipeline: Any = load_pipeline(str(tiny_pipeline))
    wanted = reconstructed_names(pipeline.unet, "lora_unet", {"Transformer2DModel"})
    # In sd-scripts the text encoder keeps the level `text_model` that transformers 5 took away.
    wanted |= reconstructed_names(pipeline.text_encoder, "lora_te_text_model", {"CLIPAttention", "CLIPMLP"})
    keys = set(safetensors.torch.load_file(drawn[0] / "zork.safetensors"))
    assert keys == {f"{name}.{part}" for name in wanted for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight" in keys
    assert "lora_te_text_model_encoder_layers_1_mlp_fc2.alpha" in keys


@pytest.mark.parametrize("file", ["zork.safetensors", "peft"])
def test_diffusers_loads_every_key_and_draws_what_training_drew(
    file: str, tiny_pipeline: Path, drawn: tuple[Path, np.ndarray, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    folder, base, wanted = drawn
    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(draw(pipeline), base, atol=1e-6)
    with caplog.at_level("WARNING"):
        pipeline.load_lora_weights(folder / file)
    said = [record.getMessage() for record in caplog.records]
    assert not [text for text in said if re.search("unexpected|missing|No LoRA keys", text, re.IGNORECASE)], said
    picture = draw(pipeline)
    assert np.abs(picture - base).max() > 0.02, "the LoRA changes nothing"
    np.testing.assert_allclose(picture, wanted, atol=1e-4)


@pytest.mark.parametrize("file", ["zork.safetensors", "peft", "peft/pytorch_lora_weights.safetensors"])
def test_own_loader_draws_what_training_drew_and_leaves_no_trace(
    file: str, tiny_pipeline: Path, drawn: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    folder, base, wanted = drawn
    pipeline = load_pipeline(str(tiny_pipeline))
    load_lora(pipeline, folder / file)
    np.testing.assert_allclose(draw(pipeline), wanted, atol=1e-5)
    set_lora_scale(pipeline, 0.0)
    np.testing.assert_allclose(draw(pipeline), base, atol=1e-6)
    load_lora(pipeline, folder / file, 1.0)
    np.testing.assert_allclose(draw(pipeline), wanted, atol=1e-5)
    unload_lora(pipeline)
    assert (draw(pipeline) == base).all()
    assert not [name for name, _ in network.lora_layers(network.lora_components(pipeline)["unet"])]


def test_model_hash_is_that_of_the_bytes_after_the_header(drawn: tuple[Path, np.ndarray, np.ndarray]) -> None:
    file = drawn[0] / "zork.safetensors"
    data = file.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    metadata = lora_file.read_metadata(file)
    # The header only moves the body; its bytes are those of the file with `ss_*` metadata alone.
    assert metadata["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert len(metadata["sshs_legacy_hash"]) == 8


def test_a_key_that_fits_nothing_is_named(
    tiny_pipeline: Path, drawn: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    tensors = safetensors.torch.load_file(drawn[0] / "zork.safetensors")
    tensors["lora_unet_other_block.lora_down.weight"] = torch.zeros(4, 8)
    safetensors.torch.save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="lora_unet_other_block"):
        load_lora(load_pipeline(str(tiny_pipeline)), tmp_path / "odd.safetensors")


def test_a_lora_of_another_width_is_refused(
    tiny_pipeline: Path, drawn: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    tensors = safetensors.torch.load_file(drawn[0] / "zork.safetensors")
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    tensors[key] = torch.zeros(4, 7, 1, 1)
    safetensors.torch.save_file(tensors, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="another base model"):
        load_lora(load_pipeline(str(tiny_pipeline)), tmp_path / "wide.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_damaged_file_is_a_sentence(content: bytes, tiny_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    pipeline = load_pipeline(str(tiny_pipeline))
    with pytest.raises(UserError, match=r"bad\.safetensors"):
        load_lora(pipeline, tmp_path / "bad.safetensors")
    with pytest.raises(NotFoundError, match="absent"):
        load_lora(pipeline, tmp_path / "absent.safetensors")


def test_initial_weights_are_sd_scripts(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline))
    components = {"unet": network.lora_components(pipeline)["unet"]}
    network.attach(components, NetworkSpec(dim=4, alpha=2.0), SdNaming(), seed=1)
    weights = network.read_weights(components)["unet"]
    for layer in weights.values():
        bound = 1 / np.sqrt(layer.parts[DOWN][0].numel())
        assert float(layer.parts[DOWN].abs().max()) <= bound
        assert float(layer.parts[DOWN].std()) == pytest.approx(bound / np.sqrt(3), rel=0.35)
        assert not layer.parts[UP].any()
        assert (layer.rank, layer.alpha) == (4, 2.0)
    again = load_pipeline(str(tiny_pipeline))
    network.attach({"unet": network.lora_components(again)["unet"]}, NetworkSpec(dim=4, alpha=2.0), SdNaming(), seed=1)
    same = network.read_weights({"unet": network.lora_components(again)["unet"]})["unet"]
    assert all(torch.equal(same[path].parts[DOWN], layer.parts[DOWN]) for path, layer in weights.items())


def test_peft_copy_names_its_rank_and_alpha(drawn: tuple[Path, np.ndarray, np.ndarray]) -> None:
    metadata = lora_file.read_metadata(drawn[0] / "peft")
    adapter = json.loads(metadata["lora_adapter_metadata"])
    assert (adapter["unet.r"], adapter["unet.lora_alpha"]) == (4, 2.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/nowhere/at/all", "no such file or folder"),
        ("absent.safetensors", "no such file or folder"),
        ("not a hub id!", "neither a file nor a folder"),
    ],
)
def test_a_missing_base_model_is_a_sentence(name: str, said: str) -> None:
    with pytest.raises(NotFoundError, match=said):
        load_pipeline(name)


def test_folders_and_files_that_are_no_pipeline_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_pipeline(str(tmp_path / "model.safetensors"))


def test_offline_hub_id_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError, match="download it and give its folder"):
        load_pipeline("nobody/no-such-model")
