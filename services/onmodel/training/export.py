"""LoRA files: written in sd-scripts' format and as diffusers' PEFT copy, read back from either.

sd-scripts: `lora_unet_<path with _ for .>.lora_down.weight`, `.lora_up.weight`, `.alpha`; the text encoder's prefix
is `lora_te_text_model_`. Metadata are strings; `sshs_model_hash` is the SHA-256 of the bytes after the header
of the file with its `ss_*` metadata alone, as sd-scripts computes it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import folder_aside, write_bytes
from onmodel.training.network import LayerWeights, LoraWeights

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
PEFT_FILE = "pytorch_lora_weights.safetensors"


def file_key(component: str, path: str) -> str:
    """sd-scripts' name of a layer: prefix and module path with underscores.

    The text encoder's path starts with `text_model.` there; transformers 5 left that level out of the module.
    """
    if component == "text_encoder" and not path.startswith("text_model."):
        path = f"text_model.{path}"
    return PREFIXES[component] + path.replace(".", "_")


def to_tensors(weights: LoraWeights) -> dict[str, Tensor]:
    """The tensors of an sd-scripts file, float32, sorted by name."""
    tensors: dict[str, Tensor] = {}
    for component, layers in weights.items():
        for path, layer in layers.items():
            key = file_key(component, path)
            tensors[f"{key}.lora_down.weight"] = layer.down.contiguous()
            tensors[f"{key}.lora_up.weight"] = layer.up.contiguous()
            tensors[f"{key}.alpha"] = torch.tensor(layer.alpha)
    return dict(sorted(tensors.items()))


def model_hashes(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """sd-scripts' `sshs_model_hash` and `sshs_legacy_hash` of a file with these tensors and metadata."""
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    data = safetensors.torch.save(tensors, training)
    body = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(data[body:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }


def write_lora(path: Path, weights: LoraWeights, metadata: Mapping[str, str]) -> None:
    """Write `weights` to `path` in sd-scripts' format, whole or not at all. Raises as `files.write_aside`."""
    tensors = to_tensors(weights)
    write_bytes(path, safetensors.torch.save(tensors, {**metadata, **model_hashes(tensors, metadata)}))


def write_peft(folder: Path, weights: LoraWeights) -> None:
    """Write `weights` as the folder that diffusers' `load_lora_weights` reads, whole or not at all."""
    tensors = {
        f"{component}.{path}.lora_{side}.weight": tensor
        for component, layers in weights.items()
        for path, layer in layers.items()
        for side, tensor in (("A", layer.down), ("B", layer.up))
    }
    # diffusers keeps peft's LoraConfig in the metadata; without it, alpha would be taken to equal the rank.
    adapter: dict[str, Any] = {}
    for component, layers in weights.items():
        if layers:
            first = next(iter(layers.values()))
            adapter[f"{component}.r"] = first.rank
            adapter[f"{component}.lora_alpha"] = first.alpha
            adapter[f"{component}.target_modules"] = sorted(layers)
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(adapter, sort_keys=True)}
    with folder_aside(folder) as aside:
        (aside / PEFT_FILE).write_bytes(safetensors.torch.save(tensors, metadata))


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a `.safetensors` file. Raises as `read_lora`."""
    return _read(file)[1]


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.is_dir():
        file = file / PEFT_FILE
    if not file.is_file():
        raise NotFoundError(f"{file}: no such LoRA file; check the path")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
            return tensors, dict(opened.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}); the file is damaged or no LoRA") from None


def read_lora(file: Path, components: Mapping[str, nn.Module]) -> LoraWeights:
    """The weights of a LoRA file, or of a PEFT folder, matched to the layers of `components`.

    Raises:
        NotFoundError: no such file.
        UserError: not safetensors, or keys that match no layer; the first few are named.
    """
    tensors, metadata = _read(file)
    names = {
        alias: (component, path)
        for component, module in components.items()
        for path, _ in module.named_modules()
        for alias in _aliases(component, path)
    }
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    unmatched: list[str] = []
    for key, tensor in tensors.items():
        name, part = _split(key)
        if name in names and part is not None:
            found.setdefault(names[name], {})[part] = tensor
        else:
            unmatched.append(key)
    whole = {layer: parts for layer, parts in found.items() if {"down", "up"} <= parts.keys()}
    unmatched += [f"{'.'.join(layer)} (only half of it)" for layer in found.keys() - whole.keys()]
    if unmatched or not whole:
        shown = ", ".join(unmatched[:5]) or "it holds none"
        raise UserError(
            f"{file}: {len(unmatched)} of {len(tensors)} keys match no layer of the base model ({shown}); "
            "the file is for another base model or not a LoRA"
        )
    adapter = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    weights: LoraWeights = {}
    for (component, path), parts in whole.items():
        rank = parts["down"].shape[0]
        alpha = float(parts["alpha"]) if "alpha" in parts else float(adapter.get(f"{component}.lora_alpha", rank))
        weights.setdefault(component, {})[path] = LayerWeights(parts["down"], parts["up"], alpha)
    return weights


def _aliases(component: str, path: str) -> set[str]:
    """All names that files give to one layer."""
    bare = path.removeprefix("text_model.")
    names = {file_key(component, path), f"{component}.{path}"}
    if component == "text_encoder":
        names |= {
            f"text_encoder.text_model.{bare}",
            f"text_encoder.{bare}",
            "lora_te1_text_model_" + bare.replace(".", "_"),
        }
    return names


_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
}


def _split(key: str) -> tuple[str, str | None]:
    for suffix, part in _PARTS.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix), part
    return key, None
