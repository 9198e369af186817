"""What LoRA files call a layer: sd-scripts' rule for each model structure, and the other names that files use.

A component is a part of a diffusers pipeline by its name there; a path is that of a module inside it.
"""

import re
from dataclasses import dataclass
from typing import Any, Protocol

from onmodel.training.network_spec import Kind


@dataclass(frozen=True)
class Place:
    """Where a file keeps one layer."""

    key: str
    """The layer's name in the file."""
    part: int = 0
    """Which of `parts` layers of the model this one is, where the file's layer is several of them in one."""
    parts: int = 1


class Naming(Protocol):
    """Names of one model structure."""

    blocks: int
    """Length of sd-scripts' `block_dims`; 0: the structure has no ranks by block."""
    network_module: str
    """sd-scripts' `ss_network_module` of a plain LoRA."""

    def place(self, component: str, path: str, kind: Kind = "lora") -> Place:
        """Where sd-scripts or LyCORIS keep the layer."""
        ...

    def aliases(self, component: str, path: str) -> set[str]:
        """All names of the layer in files that keep it by itself."""
        ...

    def block(self, key: str) -> int | None:
        """Place in `block_dims` of a layer by its name in sd-scripts; None outside the UNet's blocks."""
        ...


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _text_path(path: str) -> str:
    """The text encoder's path with the level `text_model`, which transformers 5 left out of the module."""
    return path if path.startswith(("text_model.", "text_projection")) else f"text_model.{path}"


def _common(component: str, path: str) -> set[str]:
    """diffusers' and PEFT's names, and the flattened ones that several trainers write."""
    names = {f"{component}.{path}", f"lycoris_{_flat(path)}", f"lora_{component}_{_flat(path)}"}
    if component.startswith("text_encoder"):
        bare = path.removeprefix("text_model.")
        return {f"{component}.{bare}", f"{component}.text_model.{bare}"}
    return names | {f"base_model.model.{path}", path}


_SD_BLOCK = re.compile(r"lora_unet_(down|up)_blocks_(\d+)_(resnets|attentions|upsamplers|downsamplers)_(\d+)_")


class SdNaming:
    """Stable Diffusion 1.x and 2.x: diffusers' own paths."""

    blocks = 25
    network_module = "networks.lora"

    def place(self, component: str, path: str, kind: Kind = "lora") -> Place:
        if component == "unet":
            return Place("lora_unet_" + _flat(path))
        return Place("lora_te_" + _flat(_text_path(path)))

    def aliases(self, component: str, path: str) -> set[str]:
        names = _common(component, path) | {self.place(component, path).key}
        return names if component == "unet" else names | {"lora_te1_" + _flat(_text_path(path))}

    def block(self, key: str) -> int | None:
        if key.startswith("lora_unet_mid_block_"):
            return 12
        found = _SD_BLOCK.match(key)
        if found is None:
            return None
        side, block, kind, layer = found.groups()
        within = 2 if kind.endswith("samplers") else int(layer)
        return (1 if side == "down" else 13) + 3 * int(block) + within


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""diffusers' names inside a ResNet block, and those of the original code."""


class SdxlNaming:
    """Stable Diffusion XL: the original code's block names, two text encoders."""

    blocks = 23
    network_module = "networks.lora"

    def __init__(self, layers_per_block: int = 2) -> None:
        """`layers_per_block` as in the UNet's config; it decides how diffusers' blocks are counted through."""
        self._step = layers_per_block + 1

    def place(self, component: str, path: str, kind: Kind = "lora") -> Place:
        if component == "unet":
            return Place("lora_unet_" + _flat(self.original(path)))
        prefix = "lora_te2_" if component == "text_encoder_2" else "lora_te1_"
        return Place(prefix + _flat(_text_path(path)))

    def aliases(self, component: str, path: str) -> set[str]:
        names = _common(component, path) | {self.place(component, path).key}
        return names | {"lora_unet_" + _flat(path)} if component == "unet" else names

    def original(self, path: str) -> str:
        """A UNet path of diffusers in the original code's names, as sd-scripts' UNet for SDXL has them.

        Each block of diffusers is `layers_per_block` layers and one down- or upsampling: `input_blocks` counts them
        through from 1 and gives a downsampling a place of its own; `output_blocks` counts from 0 and keeps an
        upsampling behind the last layer.
        """
        parts = path.split(".")
        if parts[0] == "mid_block":
            place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
            head, rest = f"middle_block.{place}", parts[3:]
        elif parts[0] in ("down_blocks", "up_blocks"):
            head = self._block_place(parts[0] == "up_blocks", int(parts[1]), parts[2], int(parts[3]))
            rest = parts[4:]
            if parts[2] == "downsamplers":
                rest = ["op"]
        else:
            return path
        if "resnets" in parts[1:3]:
            rest = _RESNET[rest[0]].split(".") + rest[1:]
        return ".".join([head, *rest])

    def _block_place(self, up: bool, block: int, kind: str, layer: int) -> str:
        if not up:
            within = self._step - 1 if kind == "downsamplers" else layer
            return f"input_blocks.{1 + block * self._step + within}.{1 if kind == 'attentions' else 0}"
        within = self._step - 1 if kind == "upsamplers" else layer
        return f"output_blocks.{block * self._step + within}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 2}[kind] }"

    def block(self, key: str) -> int | None:
        found = re.match(r"lora_unet_(input_blocks|middle_block|output_blocks)_(\d+)_", key)
        if found is None:
            return None
        return {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}[found[1]] + int(found[2])


_FLUX_DOUBLE = {
    "norm1.linear": ("img_mod_lin", 0, 1),
    "norm1_context.linear": ("txt_mod_lin", 0, 1),
    "attn.to_q": ("img_attn_qkv", 0, 3),
    "attn.to_k": ("img_attn_qkv", 1, 3),
    "attn.to_v": ("img_attn_qkv", 2, 3),
    "attn.to_out.0": ("img_attn_proj", 0, 1),
    "attn.add_q_proj": ("txt_attn_qkv", 0, 3),
    "attn.add_k_proj": ("txt_attn_qkv", 1, 3),
    "attn.add_v_proj": ("txt_attn_qkv", 2, 3),
    "attn.to_add_out": ("txt_attn_proj", 0, 1),
    "ff.net.0.proj": ("img_mlp_0", 0, 1),
    "ff.net.2": ("img_mlp_2", 0, 1),
    "ff_context.net.0.proj": ("txt_mlp_0", 0, 1),
    "ff_context.net.2": ("txt_mlp_2", 0, 1),
}
_FLUX_SINGLE = {
    "norm.linear": ("modulation_lin", 0, 1),
    "attn.to_q": ("linear1", 0, 4),
    "attn.to_k": ("linear1", 1, 4),
    "attn.to_v": ("linear1", 2, 4),
    "proj_mlp": ("linear1", 3, 4),
    "proj_out": ("linear2", 0, 1),
}
"""diffusers' layers of a Flux block: name in the original code, and which of how many layers of one it is there."""


class FluxNaming:
    """Flux: the original code's names, in which queries, keys and values are one layer."""

    blocks = 0
    network_module = "networks.lora_flux"

    def place(self, component: str, path: str, kind: Kind = "lora") -> Place:
        if component != "transformer":
            return Place("lora_te1_" + _flat(_text_path(path)))
        if kind != "lora":
            # A Hadamard or Kronecker product over three layers at once is not three such products; LyCORIS'
            # files of diffusers' layers keep them apart.
            return Place("lycoris_" + _flat(path))
        head, _, inside = path.partition(".")
        if head not in ("transformer_blocks", "single_transformer_blocks"):
            return Place("lora_unet_" + _flat(path))
        number, _, rest = inside.partition(".")
        double = head == "transformer_blocks"
        name, part, parts = (_FLUX_DOUBLE if double else _FLUX_SINGLE)[rest]
        return Place(f"lora_unet_{'double' if double else 'single'}_blocks_{number}_{name}", part, parts)

    def aliases(self, component: str, path: str) -> set[str]:
        names = _common(component, path)
        if component != "transformer":
            return names | {self.place(component, path).key, "lora_te_" + _flat(_text_path(path))}
        return names

    def block(self, key: str) -> int | None:
        return None


def naming_of(pipeline: Any) -> Naming:
    """The names that files use for the layers of a diffusers pipeline."""
    if getattr(pipeline, "transformer", None) is not None:
        return FluxNaming()
    if getattr(pipeline, "text_encoder_2", None) is not None:
        return SdxlNaming(pipeline.unet.config.layers_per_block)
    return SdNaming()
