"""Networks: what arguments make, ranks, norms, dropout; and files that other programs write."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner

from onmodel.cli import train as verb
from onmodel.core.config import validate
from onmodel.core.errors import UserError
from onmodel.training import network, run
from onmodel.training.lora_file import read_lora, split
from onmodel.training.naming import FluxNaming, SdNaming, SdxlNaming
from onmodel.training.network_spec import FULL_RANK, NetworkSection, NetworkSpec, make_spec
from onmodel.training.pipeline import load_lora, load_pipeline
from onmodel.training.weights import DOWN, UP, LayerWeights, delta_norm

from .conftest import MakeConfig


def spec(*args: str, module: str = "networks.lora", dropout: float = 0.0) -> NetworkSpec:
    return make_spec(module, 8, 4.0, args, dropout)


def test_lycoris_trains_convolutions_unless_told_otherwise() -> None:
    assert (spec().conv_dim, spec("conv_dim=3").conv_alpha) == (None, 1.0)
    lycoris = spec("algo=locon", module="lycoris.kohya")
    assert (lycoris.kind, lycoris.conv_dim, lycoris.conv_alpha) == ("lora", 8, 4.0)
    assert spec("algo=loha", "preset=attn-mlp", module="lycoris.kohya").conv_dim is None
    assert spec("algo=lokr", "full_matrix=True", module="lycoris.kohya").dim == FULL_RANK
    assert spec("rs_lora=True").shape("any", spatial=False, block=None) == (8, 4.0 * math.sqrt(8))


def test_ranks_go_by_pattern_then_by_block() -> None:
    dims = ",".join(str(index) for index in range(25))
    given = spec(f"block_dims={dims}", "conv_dim=2", "network_reg_dims=attn2=3,mid_block=0")
    assert given.shape("lora_unet_down_blocks_1_attentions_0_attn2_to_k", spatial=False, block=4) == (3, 4.0)
    assert given.shape("lora_unet_mid_block_attentions_0_proj_in", spatial=False, block=12) is None
    assert given.shape("lora_unet_down_blocks_1_attentions_0_proj_in", spatial=False, block=4) == (4, 4.0)
    assert given.shape("lora_unet_down_blocks_0_resnets_0_conv1", spatial=True, block=1) == (2, 1.0)
    assert given.shape("lora_te_text_model_encoder_layers_0_mlp_fc1", spatial=False, block=None) == (8, 4.0)


@pytest.mark.parametrize(
    ("naming", "key", "block"),
    [
        (SdNaming(), "lora_unet_down_blocks_0_attentions_0_proj_in", 1),
        (SdNaming(), "lora_unet_down_blocks_2_downsamplers_0_conv", 9),
        (SdNaming(), "lora_unet_mid_block_attentions_0_proj_in", 12),
        (SdNaming(), "lora_unet_up_blocks_3_attentions_2_proj_in", 24),
        (SdNaming(), "lora_te_text_model_encoder_layers_0_mlp_fc1", None),
        (SdxlNaming(), "lora_unet_input_blocks_8_1_proj_in", 9),
        (SdxlNaming(), "lora_unet_middle_block_1_proj_in", 11),
        (SdxlNaming(), "lora_unet_output_blocks_0_1_proj_in", 13),
        (FluxNaming(), "lora_unet_double_blocks_0_img_attn_qkv", None),
    ],
)
def test_blocks_are_counted_as_sd_scripts_counts_them(naming: Any, key: str, block: int | None) -> None:
    assert naming.block(key) == block


def test_blocks_of_flux_are_chosen() -> None:
    given = spec("train_double_block_indices=0-2,5", "train_single_block_indices=none", "img_mlp_dim=2")
    names = [f"lora_unet_double_blocks_{index}_img_attn_qkv" for index in range(7)]
    assert [name for name in names if given.shape(name, spatial=False, block=None)] == [names[i] for i in (0, 1, 2, 5)]
    assert given.shape("lora_unet_double_blocks_1_img_mlp_0", spatial=False, block=None) == (2, 4.0)
    assert given.shape("lora_unet_single_blocks_1_linear1", spatial=False, block=None) is None


@pytest.mark.parametrize(
    ("module", "args", "said"),
    [
        ("networks.lora", ["conv_dimm=4"], "did you mean `conv_dim`"),
        ("networks.lora", ["conv_dim"], "written conv_dim=VALUE"),
        ("networks.lora", ["conv_dim=many"], "a whole number of at least 1"),
        ("networks.lora", ["conv_alpha=2"], "no effect without conv_dim"),
        ("networks.lora", ["algo=loha"], 'network_module = "lycoris.kohya"'),
        ("networks.lora", ["rank_dropout=0.1"], "`rank_dropout` is possible for loha and lokr alone"),
        ("networks.lora", ["network_reg_dims=(=4"], "regex=rank"),
        ("networks.lora", ["block_alphas=1,2"], "no effect without `block_dims`"),
        ("networks.lora", ["init=pissa"], "default, gaussian or orthogonal"),
        ("lycoris.kohya", ["algo=loha", "dora_wd=True"], "`dora_wd` is possible for lora alone, not for loha"),
        ("lycoris.kohya", ["algo=loha", "factor=4"], "`factor` is possible for lokr alone"),
        ("lycoris.kohya", ["algo=oft"], "lora, locon, loha or lokr"),
        ("lycoris.kohya", ["preset=attn-mlp", "conv_dim=4"], "trains no convolutions"),
    ],
)
def test_arguments_that_make_no_network_are_refused(module: str, args: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        validate(NetworkSection, {"network_module": module, "network_args": args}, "config.toml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["block_dims=1,2"], "block_dims has 2 values; the base model's structure takes 25 values"),
        (["network_reg_dims=.*=0"], "every layer has rank 0"),
    ],
)
def test_ranks_that_fit_no_block_are_refused(args: list[str], said: str, tiny_base: Callable[[str], Path]) -> None:
    components = network.lora_components(load_pipeline(str(tiny_base("sd1"))))
    with pytest.raises(UserError, match=said):
        network.attach(components, spec(*args), SdNaming(), seed=1)


class Small(nn.Module):
    """One layer of each kind that networks are put on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.conv = nn.Conv2d(8, 6, 3, padding=1)


SHAPES: dict[str, tuple[int, float]] = {"linear": (3, 6.0), "conv": (2, 1.0)}


def small(kind: Any, **changes: Any) -> Small:
    module = Small()
    network._inject(module, NetworkSpec(kind=kind, **changes), SHAPES)  # pyright: ignore[reportPrivateUsage]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters(module):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def change(module: Small) -> dict[str, Tensor]:
    """What peft itself adds to each base weight."""
    return {path: layer.get_delta_weight(network.ADAPTER).detach() for path, layer in network.lora_layers(module)}  # pyright: ignore


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lora", {}),
        ("loha", {}),
        ("loha", {"tucker": True}),
        ("lokr", {}),
        ("lokr", {"tucker": True, "decompose_both": True, "factor": 2}),
    ],
)
def test_norms_are_scaled_down_to_the_limit(kind: str, changes: dict[str, Any]) -> None:
    module = small(kind, **changes)
    before = change(module)
    for path, layer in network.lora_layers(module):
        weights = network.layer_weights(layer)
        torch.testing.assert_close(weights.delta() * weights.scale, before[path].flatten(1), atol=1e-5, rtol=1e-5)
        assert float(delta_norm(weights).detach()) * weights.scale == pytest.approx(
            float(before[path].norm()), rel=1e-4
        )
    norms = {path: float(delta.norm()) for path, delta in before.items()}
    limit = sum(norms.values()) / 2
    assert network.scale_norms(module, limit).tolist() == pytest.approx(list(norms.values()), rel=1e-4)
    after = change(module)
    assert sum(norm > limit for norm in norms.values()) == 1
    for path, delta in after.items():
        ratio = min(1.0, limit / norms[path])
        torch.testing.assert_close(delta, before[path] * ratio, atol=1e-4, rtol=1e-4)
    assert network.scale_norms(nn.Linear(2, 2), 1.0).tolist() == []


def test_dropout_is_on_in_training_alone() -> None:
    module, x = small("lora"), torch.randn(64, 12)
    whole = module.linear(x)
    network.set_dropout({"unet": module}, NetworkSpec(dropout=0.5))
    assert not torch.equal(module.linear(x), whole)
    module.eval()
    assert torch.equal(module.linear(x), whole)
    module.train()
    network.set_dropout({"unet": module}, NetworkSpec())
    assert torch.equal(module.linear(x), whole)
    lokr = small("lokr", module_dropout=0.5)
    outputs = {lokr.linear(x[:1]).sum().item() for _ in range(40)}
    assert len(outputs) == 2, "a layer's change is there or not"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
def test_a_layer_over_several_comes_apart(rank: int, sizes: list[int], apart: bool) -> None:
    down, up = torch.randn(rank, 7), torch.randn(sum(sizes), rank)
    if apart:
        down = torch.randn(rank * len(sizes), 7)
        up = torch.block_diag(*(torch.randn(size, rank) for size in sizes))
    joined = LayerWeights({DOWN: down, UP: up}, alpha=3.0)
    pieces = split(joined, sizes, "file")
    deltas = torch.cat([piece.delta() * piece.scale for piece in pieces])
    torch.testing.assert_close(deltas, joined.delta() * joined.scale)
    if apart:
        assert {piece.rank for piece in pieces} == {rank}


def by_hand(layers: dict[str, tuple[int, ...]], alpha: float) -> dict[str, Tensor]:
    """sd-scripts' tensors: name to (rank, in, out[, kernel])."""
    generator = torch.Generator().manual_seed(6)
    tensors: dict[str, Tensor] = {}
    for name, (rank, inputs, outputs, *kernel) in layers.items():
        cells = (kernel[0],) * 2 if kernel else ()
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, inputs, *cells, generator=generator)
        tensors[f"{name}.lora_up.weight"] = torch.randn(outputs, rank, *([1] * len(cells)), generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


# Family; then by name in the file: rank, inputs, outputs and kernel, and where in the pipeline the layer is.
HAND_WRITTEN: dict[str, tuple[str, dict[str, tuple[tuple[int, ...], str]]]] = {
    "lora": (
        "sd1",
        {
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0": (
                (4, 32, 32),
                "unet down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
            ),
            "lora_unet_mid_block_attentions_0_proj_in": ((4, 64, 64, 1), "unet mid_block.attentions.0.proj_in"),
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (
                (4, 32, 32),
                "text_encoder encoder.layers.0.self_attn.q_proj",
            ),
        },
    ),
    "locon": (
        "sd1",
        {
            "lora_unet_up_blocks_1_resnets_0_conv1": ((2, 96, 32, 3), "unet up_blocks.1.resnets.0.conv1"),
            "lora_unet_up_blocks_1_resnets_0_conv_shortcut": (
                (4, 96, 32, 1),
                "unet up_blocks.1.resnets.0.conv_shortcut",
            ),
            "lora_unet_down_blocks_0_downsamplers_0_conv": (
                (2, 32, 32, 3),
                "unet down_blocks.0.downsamplers.0.conv",
            ),
        },
    ),
    "sdxl": (
        "sdxl",
        {
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (
                (4, 48, 32),
                "unet down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
            ),
            "lora_unet_output_blocks_2_1_proj_out": ((4, 32, 32), "unet up_blocks.0.attentions.2.proj_out"),
            "lora_te1_text_model_encoder_layers_0_mlp_fc1": ((4, 32, 64), "text_encoder encoder.layers.0.mlp.fc1"),
            "lora_te2_text_model_encoder_layers_1_mlp_fc1": (
                (4, 16, 32),
                "text_encoder_2 text_model.encoder.layers.1.mlp.fc1",
            ),
        },
    ),
}


@pytest.mark.parametrize("name", list(HAND_WRITTEN))
def test_files_written_by_hand_land_on_their_layers(
    name: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    base, layers = HAND_WRITTEN[name]
    places = {layer: place for layer, (_, place) in layers.items()}
    tensors = by_hand({layer: shape for layer, (shape, _) in layers.items()}, alpha=2.0)
    safetensors.torch.save_file(tensors, tmp_path / "hand.safetensors")
    pipeline: Any = load_pipeline(str(tiny_base(base)))
    before = {
        place: getattr(pipeline, place.split()[0]).get_submodule(place.split()[1]).weight.clone()
        for place in places.values()
    }
    load_lora(pipeline, tmp_path / "hand.safetensors", scale=0.5)
    network.merge(network.lora_components(pipeline))
    for layer, place in places.items():
        component, path = place.split()
        down, up = tensors[f"{layer}.lora_down.weight"], tensors[f"{layer}.lora_up.weight"]
        wanted = before[place] + 0.5 * 2.0 / len(down) * (up.flatten(1) @ down.flatten(1)).view_as(before[place])
        torch.testing.assert_close(getattr(pipeline, component).get_submodule(path).weight, wanted)


def test_training_starts_from_a_file_of_the_same_layers(make_config: MakeConfig, tmp_path: Path) -> None:
    network_keys = {"network_args": ["conv_dim=2"]}
    config = make_config(network=network_keys, training={"max_train_epochs": None, "max_train_steps": 2})
    first = run.train(config, num_workers=0).checkpoints[-1]
    on = make_config(
        network={**network_keys, "network_weights": str(first)},
        optimizer={"learning_rate": 1e-9},
        training={"max_train_epochs": None, "max_train_steps": 1, "output_name": "on"},
    )
    second = run.train(on, num_workers=0).checkpoints[-1]
    mine, theirs = (safetensors.torch.load_file(file) for file in (first, second))
    assert mine.keys() == theirs.keys()
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key], atol=1e-6, rtol=1e-5)
    with pytest.raises(UserError, match="is a lora of"):
        run.train(
            on.with_changes(
                network={"network_module": "lycoris.kohya", "network_args": ["algo=loha"]},
                training={"output_name": "other"},
            ),
            num_workers=0,
        )


def test_a_tucker_convolution_is_read_as_a_plain_one(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    down, mid, up = (torch.randn(*shape, generator=generator) for shape in ((2, 32, 1, 1), (2, 2, 3, 3), (32, 2, 1, 1)))
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up}
    safetensors.torch.save_file(tensors, tmp_path / "tucker.safetensors")
    components = network.lora_components(load_pipeline(str(tiny_base("sd1"))))
    layer = read_lora(tmp_path / "tucker.safetensors", components, SdNaming())["unet"]["down_blocks.0.resnets.0.conv1"]
    x = torch.randn(1, 32, 5, 5, generator=generator)
    conv = nn.functional.conv2d
    wanted = conv(conv(conv(x, down), mid, padding=1), up)
    torch.testing.assert_close(conv(x, layer.delta().view(32, 32, 3, 3), padding=1), wanted, atol=1e-3, rtol=1e-3)
    assert layer.scale == 1.0


@pytest.fixture
def cli() -> Callable[..., Any]:
    app = typer.Typer()
    app.command()(verb.command)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_inspect_shows_metadata_and_layers(make_config: MakeConfig, cli: Callable[..., Any], tmp_path: Path) -> None:
    config = make_config(network={"network_args": ["conv_dim=2"]}, training={"max_train_epochs": 1})
    result = run.train(config, num_workers=0)
    shown = json.loads(cli("--inspect", result.checkpoints[-1], "--json").stdout)
    assert shown["metadata"]["ss_network_args"] == {"conv_dim": "2"}
    assert shown["metadata"]["ss_dataset_dirs"]["2_zork boy"]["img_count"] == 6
    assert {layer["rank"] for layer in shown["layers"]} == {2, 4}
    assert {layer["kind"] for layer in shown["layers"]} == {"lora"}
    assert all(layer["norm"] > 0 for layer in shown["layers"])
    table = cli("--inspect", result.checkpoints[-1]).stdout
    assert "ss_network_dim: 4" in table
    assert "lora_unet" in table
    peft = json.loads(cli("--inspect", result.trial_dir / "peft" / result.checkpoints[-1].stem, "--json").stdout)
    norms = sorted(layer["norm"] for layer in peft["layers"])
    assert norms == pytest.approx(sorted(layer["norm"] for layer in shown["layers"]), rel=1e-5)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors")
    error = cli("--inspect", tmp_path / "odd.safetensors").exception
    assert "are no part of a LoRA (weight)" in str(error)


def test_merge_wants_a_base_and_a_new_folder(
    cli: Callable[..., Any], tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    file = tmp_path / "hand.safetensors"
    safetensors.torch.save_file(by_hand({layer: (4, 64, 64, 1)}, 2.0), file)
    assert "--into BASE" in str(cli("--merge", file).exception)
    done = cli("--merge", file, "--into", tiny_base("sd1"), "--output-dir", tmp_path / "new", "--scale", "0.5")
    assert done.stdout.strip() == str(tmp_path / "new")
    assert (tmp_path / "new" / "model_index.json").is_file()
    again = cli("--merge", file, "--into", tiny_base("sd1"), "--output-dir", tmp_path / "new")
    assert "give a new folder" in str(again.exception)
