"""LoRA files read back, whoever wrote them: sd-scripts, LyCORIS, diffusers or PEFT."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from onmodel.core.errors import NotFoundError, UserError
from onmodel.training.export import ADAPTER_CONFIG, ADAPTER_FILE, PEFT_FILE
from onmodel.training.naming import Naming
from onmodel.training.network import base_layers
from onmodel.training.weights import DOWN, MAGNITUDE, UP, LayerWeights, LoraWeights

_MID = "lora_mid.weight"
"""The core of a convolution's LoRA in LyCORIS' Tucker form."""
_LYCORIS = tuple(
    f"{name}{suffix}"
    for name, suffixes in (
        ("hada_w1", ("_a", "_b")),
        ("hada_w2", ("_a", "_b")),
        ("hada_t", ("1", "2")),
        ("lokr_w1", ("", "_a", "_b")),
        ("lokr_w2", ("", "_a", "_b")),
        ("lokr_t2", ("",)),
    )
    for suffix in suffixes
)
_PARTS = {
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    ".lora_magnitude_vector.weight": MAGNITUDE,
    ".lora_magnitude_vector": MAGNITUDE,
    ".alpha": "alpha",
    **{f".{name}": name for name in (DOWN, UP, _MID, MAGNITUDE, *_LYCORIS)},
}
"""How a key ends, and which part it is."""


def read_file(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a `.safetensors` file, or of the folder that diffusers or PEFT keep one in.

    Raises:
        NotFoundError: no such file.
        UserError: not safetensors.
    """
    if file.is_dir():
        return _read_folder(file)
    if not file.is_file():
        raise NotFoundError(f"{file}: no such LoRA file; check the path")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
            return tensors, dict(opened.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}); the file is damaged or no LoRA") from None


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """diffusers' folder, PEFT's, or one that holds a PEFT folder for each component."""
    if (folder / ADAPTER_FILE).is_file():
        tensors, _ = read_file(folder / ADAPTER_FILE)
        try:
            config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / ADAPTER_CONFIG}: cannot be read ({error}); the copy is damaged") from None
        return tensors, {"lora_adapter_metadata": json.dumps(config)}
    inner = sorted(path.parent for path in folder.glob(f"*/{ADAPTER_FILE}"))
    if not inner:
        return read_file(folder / PEFT_FILE)
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for component in inner:
        found, metadata = _read_folder(component)
        tensors |= {f"{component.name}.{key.removeprefix('base_model.model.')}": value for key, value in found.items()}
        given = json.loads(metadata["lora_adapter_metadata"])
        config |= {f"{component.name}.{key}": value for key, value in given.items()}
    return tensors, {"lora_adapter_metadata": json.dumps(config)}


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a LoRA file. Raises as `read_file`."""
    return read_file(file)[1]


def read_layers(file: Path) -> tuple[dict[str, LayerWeights], dict[str, str]]:
    """The layers of a LoRA file by the names that they have there, and the file's metadata; needs no base model.

    Raises:
        NotFoundError, UserError: as `read_file`; or the file has tensors that are no part of a LoRA.
    """
    tensors, metadata = read_file(file)
    adapter = _adapter(file, metadata)
    found: dict[str, dict[str, Tensor]] = {}
    odd: list[str] = []
    for key, tensor in tensors.items():
        ending = next((ending for ending in _PARTS if key.endswith(ending)), None)
        if ending is None:
            odd.append(key)
        else:
            found.setdefault(key.removesuffix(ending), {})[_PARTS[ending]] = tensor
    layers = {name: _layer(name, parts, adapter) for name, parts in found.items()}
    odd += [f"{name} (parts are missing)" for name, layer in layers.items() if not layer.complete()]
    if odd or not layers:
        shown = ", ".join(odd[:5]) or "it holds none"
        raise UserError(f"{file}: {len(odd)} of {len(tensors)} keys are no part of a LoRA ({shown}); give a LoRA file")
    return layers, metadata


def _adapter(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's config in the metadata; keys with the component before them, or without."""
    try:
        value = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{file}: its `lora_adapter_metadata` is no JSON table; the file is damaged")
    return value


def _layer(name: str, parts: dict[str, Tensor], adapter: Mapping[str, Any]) -> LayerWeights:
    alpha = parts.pop("alpha", None)
    mid = parts.pop(_MID, None)
    if mid is not None and DOWN in parts:
        # up · core · down of 1x1 convolutions around a core is one 3x3 down: the same map, of the same rank.
        parts[DOWN] = torch.einsum("ijkl,jc->ickl", mid.float(), parts[DOWN].float().flatten(1))
    magnitude = parts.get(MAGNITUDE)
    if magnitude is not None and (magnitude.ndim == 1 or (magnitude.ndim == 4 and magnitude.shape[0] == 1)):
        # peft's shapes to LyCORIS': one a row.
        parts[MAGNITUDE] = magnitude.reshape(-1, *[1] * (parts[DOWN].ndim - 1 if DOWN in parts else 1))
    layer = LayerWeights(parts, 1.0)
    if not layer.complete():
        return layer
    return LayerWeights(parts, float(alpha) if alpha is not None else _adapter_alpha(name, layer, adapter))


def _adapter_alpha(name: str, layer: LayerWeights, adapter: Mapping[str, Any]) -> float:
    """Alpha from peft's config, where the file says it nowhere else; without one, the rank."""
    component, _, path = name.partition(".")
    if f"{component}.r" not in adapter:
        component, path = "", name.removeprefix("base_model.model.")
    prefix = f"{component}." if component else ""
    patterns = adapter.get(f"{prefix}alpha_pattern") or {}
    alpha = next((value for pattern, value in patterns.items() if pattern.lstrip("^") == path), None)
    if alpha is None:
        alpha = adapter.get(f"{prefix}lora_alpha", adapter.get(f"{prefix}alpha", layer.rank))
    if adapter.get(f"{prefix}use_rslora"):
        return float(alpha) * layer.rank**0.5
    return float(alpha)


def read_lora(file: Path, components: Mapping[str, nn.Module], naming: Naming) -> LoraWeights:
    """The weights of a LoRA file or folder, matched to the layers of `components`.

    Raises:
        NotFoundError: no such file.
        UserError: not a LoRA, or keys that match no layer; the first few are named.
    """
    layers, _ = read_layers(file)
    outputs = {
        (component, path): int(layer.weight.shape[0])
        for component, module in components.items()
        for path, layer in base_layers(module)
    }
    single, joined = _known_names(outputs, naming)
    weights: LoraWeights = {}
    unmatched: list[str] = []
    for name, layer in layers.items():
        # The original code's dotted names, as ComfyUI writes them.
        known = "lora_unet_" + name[16:].replace(".", "_") if name.startswith("diffusion_model.") else name
        if known in single:
            component, path = single[known]
            weights.setdefault(component, {})[path] = layer
        elif known in joined:
            places = joined[known]
            sizes = [outputs[place] for place in places]
            for (component, path), part in zip(places, split(layer, sizes, f"{file}: {name}"), strict=True):
                weights.setdefault(component, {})[path] = part
        else:
            unmatched.append(name)
    if unmatched:
        raise UserError(
            f"{file}: {len(unmatched)} of {len(layers)} layers match no layer of the base model "
            f"({', '.join(unmatched[:5])}); the file is for another base model, or for a part that is not trained here"
        )
    return weights


def _known_names(
    layers: Iterable[tuple[str, str]], naming: Naming
) -> tuple[dict[str, tuple[str, str]], dict[str, list[tuple[str, str]]]]:
    """What names mean: one layer of the model, or several in the order in which the file joins them."""
    single: dict[str, tuple[str, str]] = {}
    joined: dict[str, dict[int, tuple[str, str]]] = {}
    for component, path in layers:
        single |= dict.fromkeys(naming.aliases(component, path), (component, path))
        place = naming.place(component, path)
        if place.parts > 1:
            joined.setdefault(place.key, {})[place.part] = (component, path)
        else:
            single[place.key] = (component, path)
    return single, {key: [places[index] for index in sorted(places)] for key, places in joined.items()}


def split(layer: LayerWeights, sizes: list[int], what: str) -> list[LayerWeights]:
    """A LoRA on several layers in one, as one LoRA a layer of `sizes` outputs.

    Each gets its rows of the up matrix; where the ups lie on the diagonal (the layers were trained apart), each gets
    back its own, smaller rank.

    Raises:
        UserError: a LoKr, whose product over all layers is no product over one; or sizes that do not add up.
    """
    tall = {"lora": (UP, MAGNITUDE), "loha": ("hada_w1_a", "hada_w2_a"), "lokr": ()}[layer.kind]
    if not tall or {"hada_t1", "hada_t2"} & layer.parts.keys():
        raise UserError(f"{what}: a {layer.kind} over several layers in one cannot be taken apart; give another file")
    if layer.fits[0] != sum(sizes):
        raise UserError(
            f"{what}: has {layer.fits[0]} outputs, the base model {sum(sizes)}; it is for another base model"
        )
    rows = {name: layer.parts[name].split(sizes) for name in tall if name in layer.parts}
    shared = {name: part for name, part in layer.parts.items() if name not in rows}
    pieces = [
        LayerWeights({**shared, **{name: values[index] for name, values in rows.items()}}, layer.alpha)
        for index in range(len(sizes))
    ]
    return _own_ranks(pieces) if layer.kind == "lora" else pieces


def _own_ranks(pieces: list[LayerWeights]) -> list[LayerWeights]:
    """The pieces of a LoRA at the rank of their own where the ups lie on the diagonal, else as they are."""
    whole, count = pieces[0].rank, len(pieces)
    if whole % count:
        return pieces
    rank = whole // count
    narrowed: list[LayerWeights] = []
    for index, piece in enumerate(pieces):
        own = slice(index * rank, (index + 1) * rank)
        outside = piece.parts[UP].clone()
        outside[:, own] = 0
        if outside.any():
            return pieces
        parts = {**piece.parts, UP: piece.parts[UP][:, own].contiguous(), DOWN: piece.parts[DOWN][own].contiguous()}
        narrowed.append(LayerWeights(parts, piece.alpha / count))
    return narrowed
