"""LoRA files written: in sd-scripts' format and as diffusers' or PEFT's copy.

sd-scripts: `<layer>.lora_down.weight`, `.lora_up.weight`, `.alpha`, layers as `naming` calls them; LyCORIS' names for
LoHa, LoKr and DoRA. Metadata are strings; `sshs_model_hash` is the SHA-256 of the bytes after the header of the file
with its `ss_*` metadata alone, as sd-scripts computes it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from onmodel.core.files import folder_aside, write_bytes
from onmodel.training.naming import Naming
from onmodel.training.network_spec import NetworkSpec
from onmodel.training.weights import DOWN, MAGNITUDE, UP, LayerWeights, LoraWeights

PEFT_FILE = "pytorch_lora_weights.safetensors"
"""diffusers' name."""
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""PEFT's names."""


def to_tensors(weights: LoraWeights, naming: Naming) -> dict[str, Tensor]:
    """The tensors of an sd-scripts file, float32, sorted by name."""
    layers: dict[str, dict[int, LayerWeights]] = {}
    parts_of: dict[str, int] = {}
    for component, by_path in weights.items():
        for path, layer in by_path.items():
            place = naming.place(component, path, layer.kind)
            layers.setdefault(place.key, {})[place.part] = layer
            parts_of[place.key] = place.parts
    tensors: dict[str, Tensor] = {}
    for key, group in layers.items():
        layer = group[0] if parts_of[key] == 1 else _joined([group[index] for index in range(parts_of[key])])
        tensors |= {f"{key}.{name}": part.contiguous() for name, part in layer.parts.items()}
        tensors[f"{key}.alpha"] = torch.tensor(layer.alpha)
    return dict(sorted(tensors.items()))


def _joined(layers: list[LayerWeights]) -> LayerWeights:
    """LoRAs on several layers with one input as one LoRA on all outputs: downs stacked, ups on the diagonal.

    Readers divide alpha by the whole rank, so it grows with it; layers of another scale than the first are brought
    to its own through their ups.
    """
    scale = layers[0].scale
    ups = [layer.parts[UP] * (layer.scale / scale) for layer in layers]
    parts = {DOWN: torch.cat([layer.parts[DOWN] for layer in layers]), UP: torch.block_diag(*ups)}
    if MAGNITUDE in layers[0].parts:
        parts[MAGNITUDE] = torch.cat([layer.parts[MAGNITUDE] for layer in layers])
    return LayerWeights(parts, scale * sum(layer.rank for layer in layers))


def model_hashes(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """sd-scripts' `sshs_model_hash` and `sshs_legacy_hash` of a file with these tensors and metadata."""
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    data = safetensors.torch.save(tensors, training)
    body = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(data[body:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }


def write_lora(path: Path, weights: LoraWeights, naming: Naming, metadata: Mapping[str, str]) -> None:
    """Write `weights` to `path` in sd-scripts' format, whole or not at all. Raises as `files.write_aside`."""
    tensors = to_tensors(weights, naming)
    write_bytes(path, safetensors.torch.save(tensors, {**metadata, **model_hashes(tensors, metadata)}))


def write_peft(folder: Path, weights: LoraWeights, spec: NetworkSpec) -> None:
    """Write `weights` as a folder that the libraries read, whole or not at all.

    LoRA and DoRA: what diffusers' `load_lora_weights` reads. LoHa and LoKr, which it does not: a folder for each
    component as PEFT's `PeftModel.from_pretrained` reads it. `spec` is the network that they were trained as.
    """
    filled = {component: layers for component, layers in weights.items() if layers}
    plain = all(layer.kind == "lora" for layers in filled.values() for layer in layers.values())
    with folder_aside(folder) as aside:
        if plain:
            (aside / PEFT_FILE).write_bytes(_diffusers_file(filled, spec))
            return
        for component, layers in filled.items():
            (aside / component).mkdir()
            tensors = {
                f"base_model.model.{path}.{name}": part
                for path, layer in layers.items()
                for name, part in layer.parts.items()
            }
            (aside / component / ADAPTER_FILE).write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
            config = _adapter_config(layers, spec)
            (aside / component / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))


def _diffusers_file(weights: LoraWeights, spec: NetworkSpec) -> bytes:
    tensors: dict[str, Tensor] = {}
    adapter: dict[str, Any] = {}
    for component, layers in weights.items():
        for path, layer in layers.items():
            key = f"{component}.{path}"
            tensors[f"{key}.lora_A.weight"] = layer.parts[DOWN]
            tensors[f"{key}.lora_B.weight"] = layer.parts[UP]
            if MAGNITUDE in layer.parts:
                magnitude = layer.parts[MAGNITUDE]
                # peft's shapes: (out,) for a linear layer, (1, out, 1, 1) for a convolution.
                magnitude = magnitude.flatten() if magnitude.ndim == 2 else magnitude.transpose(0, 1).contiguous()
                tensors[f"{key}.lora_magnitude_vector.weight"] = magnitude
        # diffusers keeps peft's LoraConfig in the metadata; without it, alpha would be taken to equal the rank.
        adapter |= {f"{component}.{key}": value for key, value in _adapter_config(layers, spec).items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(adapter, sort_keys=True)}
    return safetensors.torch.save(tensors, metadata)


def _adapter_config(layers: Mapping[str, LayerWeights], spec: NetworkSpec) -> dict[str, Any]:
    """peft's config for `layers`: the commonest rank and alpha, and a pattern for each layer with others."""
    shapes = {path: _peft_shape(layer) for path, layer in layers.items()}
    rank, alpha = Counter(shapes.values()).most_common(1)[0][0]
    first = next(iter(layers.values()))
    config: dict[str, Any] = {
        "r": rank,
        "target_modules": sorted(layers),
        "rank_pattern": {f"^{path}": shape[0] for path, shape in shapes.items() if shape[0] != rank},
        "alpha_pattern": {f"^{path}": shape[1] for path, shape in shapes.items() if shape[1] != alpha},
    }
    if first.kind == "lora":
        return {**config, "lora_alpha": alpha, "use_dora": MAGNITUDE in first.parts}
    config |= {"peft_type": first.kind.upper(), "alpha": alpha, "use_effective_conv2d": spec.tucker}
    if first.kind == "lokr":
        config |= {"decompose_both": spec.decompose_both, "decompose_factor": spec.factor}
    return config


def _peft_shape(layer: LayerWeights) -> tuple[int, float]:
    """Rank and alpha with which peft makes such a layer; a LoKr of whole factors is given alpha for its rank."""
    return (round(layer.alpha) if layer.full else layer.rank), layer.alpha
