"""Each family through the real code path: encoded, trained, exported, drawn."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from onmodel.core.errors import ImageError, UserError
from onmodel.core.images import load, size
from onmodel.evaluation import generate, planned
from onmodel.evaluation.suite import TestSuite
from onmodel.training import run
from onmodel.training.base_kind import without_effect
from onmodel.training.config import ModelSection
from onmodel.training.families import base, make_family
from onmodel.training.families.sizes import size_conditioning
from onmodel.training.lora_file import read_layers
from onmodel.training.pipeline import load_lora, load_pipeline

from .conftest import MakeConfig

VERSIONS = {
    "sd1": ("onmodel_toybox", "onmodel-toybox/lora", "epsilon"),
    "sd2": ("onmodel_toybox_v", "onmodel-toybox/lora", "v"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "epsilon"),
    "flux": ("flux1", "flux-1-dev/lora", None),
}


def opened(folder: Path) -> tuple[Any, Any]:
    pipeline = load_pipeline(str(folder))
    return pipeline, make_family(pipeline, ModelSection(pretrained_model_name_or_path=str(folder)))


@pytest.mark.parametrize("text", [False, True], ids=["denoiser", "with-text"])
@pytest.mark.parametrize("name", ["sd2", "sdxl", "flux"])
def test_a_family_is_trained_and_its_file_loads(
    name: str, text: bool, tiny_base: Callable[[str], Path], make_config: MakeConfig
) -> None:
    config = make_config(
        model={"pretrained_model_name_or_path": str(tiny_base(name))},
        network={"network_train_unet_only": not text},
        training={"max_train_epochs": None, "max_train_steps": 3},
        advanced={"gradient_checkpointing": text},
    )
    result = run.train(config, num_workers=0)
    assert len(result.losses) == 3
    layers, metadata = read_layers(result.checkpoints[-1])
    version, architecture, prediction = VERSIONS[name]
    assert metadata["ss_base_model_version"] == version
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["ss_network_module"] == ("networks.lora_flux" if name == "flux" else "networks.lora")
    assert metadata.get("modelspec.prediction_type") == prediction
    assert any(key.startswith("lora_te") for key in layers) == text
    # Of SDXL's first text encoder the last layer is never used.
    used = [layer for key, layer in layers.items() if not key.startswith("lora_te1_text_model_encoder_layers_1")]
    assert all(layer.norm > 0 for layer in used), "every layer has learned something"
    load_lora(load_pipeline(str(tiny_base(name))), result.checkpoints[-1])


def test_text_encoders_alone_at_rates_of_their_own(tiny_base: Callable[[str], Path], make_config: MakeConfig) -> None:
    config = make_config(
        model={"pretrained_model_name_or_path": str(tiny_base("sdxl"))},
        network={"network_train_text_encoder_only": True},
        optimizer={"text_encoder_lr": [0.0, 1e-3]},
        training={"max_train_epochs": None, "max_train_steps": 2},
    )
    layers, _ = read_layers(run.train(config, num_workers=0).checkpoints[-1])
    assert {key.split("_")[1] for key in layers} == {"te1", "te2"}
    assert all((layer.norm > 0) == key.startswith("lora_te2") for key, layer in layers.items())
    with pytest.raises(UserError, match="3 rates for 2 text encoder"):
        run.train(
            config.with_changes(optimizer={"text_encoder_lr": [1e-3] * 3}, training={"output_name": "b"}), num_workers=0
        )


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_the_denoiser_is_called_as_the_pipeline_calls_it(name: str, tiny_base: Callable[[str], Path]) -> None:
    """The first step of the pipeline's own loop, caught where it enters the denoiser."""
    pipeline, family = opened(tiny_base(name))
    denoiser = next(iter(family.components.values()))
    caught: list[Any] = []

    def catch(module: Any, args: Any, kwargs: Any, answer: Any) -> None:
        caught.append((args, answer[0]))

    handle = denoiser.register_forward_hook(catch, with_kwargs=True)
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    common = {"prompt": "zork boy", "num_inference_steps": 1, "output_type": "latent", "height": 64, "width": 96}
    if name == "flux":
        packed = latents.view(1, 4, 4, 2, 6, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 24, 16)
        pipeline(**common, guidance_scale=1.0, latents=packed, max_sequence_length=20)
        wanted = caught[0][1].view(1, 4, 6, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 4, 8, 12)
        noisy, time = latents, pipeline.scheduler.timesteps[0]
    else:
        pipeline(**common, guidance_scale=1.0, latents=latents)
        (noisy, time), wanted = caught[0]
    handle.remove()
    with torch.no_grad():
        given = family.predict(noisy, time[None], family.encode_captions(["zork boy"]))
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_test_pictures_are_drawn(name: str, tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    suite = TestSuite.model_validate(
        {
            "name": "tiny",
            "seeds": [1, 2],
            "steps": 2,
            "width": 64,
            "height": 64,
            "scenarios": {"full_body": ["a boy standing", "a boy in the forest"]},
        }
    )
    model = planned.drawing_model(str(tiny_base(name)))
    pictures = planned.plan(suite, suite.prompts("zork"), model, tmp_path)
    pipeline, _ = opened(tiny_base(name))
    generate.generate(pictures, suite, model, pipeline, batch_size=3)
    assert [load(picture.path).shape for picture in pictures] == [(64, 64, 3)] * 4


def test_sizes_are_those_of_sd_scripts(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "wide.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (300, 200)).save(tmp_path / "turned.jpg", exif=turned)
    assert size(tmp_path / "turned.jpg") == (200, 300)
    rows = size_conditioning([(tmp_path / "wide.png", (64, 64)), (tmp_path / "turned.jpg", (96, 64))]).tolist()
    # Fitted into 64x64 the wide picture is 64 x 42.7, (64 − 42.7) // 2 = 10 from the top.
    assert rows == [[200, 300, 10, 0, 64, 64], [300, 200, 0, 26, 64, 96]]
    with pytest.raises(ImageError, match="absent"):
        size(tmp_path / "absent.png")


def test_sizes_change_what_sdxl_predicts(tiny_base: Callable[[str], Path]) -> None:
    _, family = opened(tiny_base("sdxl"))
    latents, time = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([500])
    said = family.encode_captions(["zork"])
    with torch.no_grad():
        whole = family.predict(latents, time, said)
        same = family.predict(latents, time, said, torch.tensor([[64, 64, 0, 0, 64, 64]]))
        cropped = family.predict(latents, time, said, torch.tensor([[900, 600, 20, 0, 64, 64]]))
    assert torch.equal(whole, same)
    assert not torch.allclose(whole, cropped, atol=1e-5)


@pytest.mark.parametrize(("width", "rows"), [(8, 1), (20, 2), (16, 1)])
def test_packed_conditioning_comes_apart(width: int, rows: int) -> None:
    text, pooled = torch.randn(2, 5, 16), torch.randn(2, width)
    packed = base.pack(text, pooled)
    assert packed.shape == (2, 5 + rows, 16)
    again = base.unpack(packed, width)
    assert torch.equal(again[0], text)
    assert torch.equal(again[1], pooled)


def test_what_no_family_can_train_is_refused(tiny_base: Callable[[str], Path]) -> None:
    pipeline = load_pipeline(str(tiny_base("flux")))
    with pytest.raises(UserError, match="v_parameterization"):
        make_family(pipeline, ModelSection(pretrained_model_name_or_path="x", v_parameterization=True))
    with pytest.raises(UserError, match="odd; set bucket_reso_steps to a multiple of 16"):
        make_family(pipeline, ModelSection(pretrained_model_name_or_path="x")).predict(
            torch.zeros(1, 4, 5, 4), torch.tensor([1.0]), torch.zeros(1, 22, 24)
        )
    with pytest.raises(UserError, match="a str cannot be trained"):
        make_family("pipeline", ModelSection(pretrained_model_name_or_path="x"))


def original_names(pipeline: Any) -> dict[str, torch.Tensor]:
    """The tiny SD pipeline's weights under the names of the original code's single file."""
    tensors: dict[str, torch.Tensor] = {}
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    resnet |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    starts = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "down_blocks.0.resnets.0.": "input_blocks.1.0.",
        "down_blocks.0.attentions.0.": "input_blocks.1.1.",
        "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.",
        "down_blocks.1.resnets.0.": "input_blocks.3.0.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
        "up_blocks.0.resnets.0.": "output_blocks.0.0.",
        "up_blocks.0.resnets.1.": "output_blocks.1.0.",
        "up_blocks.0.upsamplers.0.conv.": "output_blocks.1.1.conv.",
        "up_blocks.1.resnets.0.": "output_blocks.2.0.",
        "up_blocks.1.attentions.0.": "output_blocks.2.1.",
        "up_blocks.1.resnets.1.": "output_blocks.3.0.",
        "up_blocks.1.attentions.1.": "output_blocks.3.1.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
    }
    for name, tensor in pipeline.unet.state_dict().items():
        start = next(start for start in starts if name.startswith(start))
        rest = name.removeprefix(start)
        if ".resnets." in start:
            head, _, tail = rest.partition(".")
            rest = f"{resnet[head]}.{tail}"
        tensors[f"model.diffusion_model.{starts[start]}{rest}"] = tensor
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for name, tensor in pipeline.vae.state_dict().items():
        new = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for index in range(4):
            new = new.replace(f"down_blocks.{index}.resnets.", f"down.{index}.block.")
            new = new.replace(f"down_blocks.{index}.downsamplers.0", f"down.{index}.downsample")
            new = new.replace(f"up_blocks.{index}.resnets.", f"up.{3 - index}.block.")
            new = new.replace(f"up_blocks.{index}.upsamplers.0", f"up.{3 - index}.upsample")
        if "mid_block.attentions.0." in new:
            head, _, tail = new.partition("mid_block.attentions.0.")
            part, _, kind = tail.rpartition(".")
            linear = kind == "weight" and part != "group_norm"
            new = f"{head}mid.attn_1.{attention[part]}.{kind}"
        else:
            linear = False
        # The original code's attention is made of 1x1 convolutions.
        tensors[f"first_stage_model.{new}"] = tensor[:, :, None, None] if linear else tensor
    for name, tensor in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name}"] = tensor
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def test_a_single_file_takes_its_configs_from_the_folder_beside_it(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pipeline, family = opened(tiny_base("sd1"))
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(original_names(pipeline), file)
    with pytest.raises(UserError, match="configs and tokenizers come from the folder"):
        load_pipeline(str(file))
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(tiny_base("sd1"), tmp_path / "model", ignore=weights)
    _, again = opened(file)
    said = family.encode_captions(["zork boy"])
    torch.testing.assert_close(again.encode_captions(["zork boy"]), said)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = family.predict(latents, torch.tensor([500]), said)
        torch.testing.assert_close(again.predict(latents, torch.tensor([500]), said), wanted)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    torch.testing.assert_close(again.encode_pictures(pixels), family.encode_pictures(pixels))


def test_settings_that_a_base_model_has_no_use_for_are_said(
    tiny_base: Callable[[str], Path], make_config: MakeConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    idle = {"clip_skip": 2, "max_token_length": 150, "guidance_scale": 3.5}
    wanted = {
        "sd1": {"guidance_scale"},
        "sdxl": {"clip_skip", "guidance_scale"},
        "flux": {"clip_skip", "max_token_length"},
    }
    for name, keys in wanted.items():
        model = ModelSection.model_validate({"pretrained_model_name_or_path": str(tiny_base(name)), **idle})
        assert {phrase.split("`")[1] for phrase in without_effect(model)} == keys
        assert not without_effect(ModelSection(pretrained_model_name_or_path=str(tiny_base(name))))
    safetensors.torch.save_file({"conditioner.embedders.1.x": torch.zeros(1)}, tmp_path / "one.safetensors")
    single = ModelSection(pretrained_model_name_or_path=str(tmp_path / "one.safetensors"), clip_skip=2)
    assert without_effect(single) == ["`clip_skip` (SDXL always reads the last but one layer)"]
    config = make_config(
        model={"pretrained_model_name_or_path": str(tiny_base("sdxl")), "clip_skip": 2},
        training={"max_train_epochs": None, "max_train_steps": 1},
    )
    run.train(config, num_workers=0)
    assert "`clip_skip` (SDXL always reads the last but one layer)" in capsys.readouterr().err
