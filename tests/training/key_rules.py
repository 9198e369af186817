"""The names of trained layers in sd-scripts' files for the tiny pipelines, counted out from the models' plans.

Nothing of OnModel is used: this is the rule that its exporter is held against. `python -m tests.training.key_rules`
from the repository's root writes the lists beside it anew.
"""

from pathlib import Path

KEYS = Path(__file__).parent / "keys"

_ATTENTION = ["to_q", "to_k", "to_v", "to_out_0"]
_TRANSFORMER = [
    "proj_in",
    *(f"transformer_blocks_0_{attention}_{part}" for attention in ("attn1", "attn2") for part in _ATTENTION),
    "transformer_blocks_0_ff_net_0_proj",
    "transformer_blocks_0_ff_net_2",
    "proj_out",
]


def text_encoder(prefix: str) -> list[str]:
    """CLIP of two layers."""
    each = [*(f"self_attn_{part}_proj" for part in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]
    return [f"{prefix}_text_model_encoder_layers_{layer}_{part}" for layer in range(2) for part in each]


def sd_unet(*, convolutions: bool) -> list[str]:
    """Two levels of one layer, attention on the first; diffusers' block names."""
    names: list[str] = []

    def resnet(place: str, shortcut: bool) -> None:
        parts = ["conv1", "time_emb_proj", "conv2", *(["conv_shortcut"] if shortcut else [])]
        names.extend(f"{place}_{part}" for part in parts if convolutions)

    def transformer(place: str) -> None:
        names.extend(f"{place}_{part}" for part in _TRANSFORMER)

    resnet("down_blocks_0_resnets_0", False)
    transformer("down_blocks_0_attentions_0")
    resnet("down_blocks_1_resnets_0", True)
    for place in (0, 1):
        resnet(f"mid_block_resnets_{place}", False)
    transformer("mid_block_attentions_0")
    for layer in (0, 1):
        # On the way up each layer takes the skip connection of one on the way down.
        resnet(f"up_blocks_0_resnets_{layer}", True)
        resnet(f"up_blocks_1_resnets_{layer}", True)
        transformer(f"up_blocks_1_attentions_{layer}")
    if convolutions:
        names += ["down_blocks_0_downsamplers_0_conv", "up_blocks_0_upsamplers_0_conv"]
    return [f"lora_unet_{name}" for name in names]


def sdxl_unet(*, convolutions: bool) -> list[str]:
    """Two levels of two layers, attention on the second; the original code's counting of blocks."""
    names: list[str] = []

    def resnet(place: str, shortcut: bool) -> None:
        parts = ["in_layers_2", "emb_layers_1", "out_layers_3", *(["skip_connection"] if shortcut else [])]
        names.extend(f"{place}_{part}" for part in parts if convolutions)

    def transformer(place: str) -> None:
        names.extend(f"{place}_{part}" for part in _TRANSFORMER)

    at = 1  # input block 0 is the first convolution
    for level in (0, 1):
        for layer in (0, 1):
            resnet(f"input_blocks_{at}_0", level == 1 and layer == 0)
            if level == 1:
                transformer(f"input_blocks_{at}_1")
            at += 1
        if level == 0:
            names.extend([f"input_blocks_{at}_0_op"] if convolutions else [])
            at += 1
    resnet("middle_block_0", False)
    transformer("middle_block_1")
    resnet("middle_block_2", False)
    at = 0
    for level in (1, 0):
        for layer in (0, 1, 2):
            resnet(f"output_blocks_{at}_0", True)
            if level == 1:
                transformer(f"output_blocks_{at}_1")
                if layer == 2:
                    names.extend([f"output_blocks_{at}_2_conv"] if convolutions else [])
            at += 1
    return [f"lora_unet_{name}" for name in names]


def flux_joined() -> list[str]:
    """Two double blocks and a single one, in the original code's layers."""
    double = [
        f"{stream}_{part}"
        for stream in ("img", "txt")
        for part in ("mod_lin", "attn_qkv", "attn_proj", "mlp_0", "mlp_2")
    ]
    names = [f"double_blocks_{block}_{part}" for block in (0, 1) for part in double]
    names += [f"single_blocks_0_{part}" for part in ("linear1", "linear2", "modulation_lin")]
    return [f"lora_unet_{name}" for name in names]


def flux_apart() -> list[str]:
    """The same in diffusers' layers, as LyCORIS names them."""
    double = ["norm1_linear", "norm1_context_linear"]
    double += [f"attn_{part}" for part in (*_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")]
    double += [f"{stream}_net_{part}" for stream in ("ff", "ff_context") for part in ("0_proj", "2")]
    names = [f"transformer_blocks_{block}_{part}" for block in (0, 1) for part in double]
    single = ["norm_linear", "proj_mlp", "proj_out", *(f"attn_{part}" for part in ("to_q", "to_k", "to_v"))]
    names += [f"single_transformer_blocks_0_{part}" for part in single]
    return [f"lycoris_{name}" for name in names]


def layer_names() -> dict[str, list[str]]:
    """Sorted names by list."""
    lists = {
        "sd": [*sd_unet(convolutions=False), *text_encoder("lora_te")],
        "sd_convolutions": [*sd_unet(convolutions=True), *text_encoder("lora_te")],
        "sdxl": [*sdxl_unet(convolutions=False), *text_encoder("lora_te1"), *text_encoder("lora_te2")],
        "sdxl_convolutions": [*sdxl_unet(convolutions=True), *text_encoder("lora_te1"), *text_encoder("lora_te2")],
        "flux": [*flux_joined(), *text_encoder("lora_te1")],
        "flux_lycoris": [*flux_apart(), *text_encoder("lora_te1")],
    }
    return {name: sorted(names) for name, names in lists.items()}


if __name__ == "__main__":
    for name, names in layer_names().items():
        (KEYS / f"{name}.txt").write_text("\n".join(names) + "\n")
