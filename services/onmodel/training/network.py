"""LoRA layers on a pipeline's components, through peft, on the layers that sd-scripts trains.

A component is a part of a diffusers pipeline by its name there (`unet`, `text_encoder`). Layers go by their
module path inside the component.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from onmodel.core.errors import UserError

ADAPTER = "onmodel"
"""Name of our adapter inside peft's layers."""

# sd-scripts' target modules: every Linear and 1x1 convolution below a module of one of these classes.
TARGET_CLASSES: dict[str, frozenset[str]] = {
    "unet": frozenset({"Transformer2DModel"}),
    "text_encoder": frozenset({"CLIPAttention", "CLIPSdpaAttention", "CLIPFlashAttention2", "CLIPMLP"}),
}


@dataclass(frozen=True)
class LayerWeights:
    """The LoRA of one layer: its output is (alpha / rank) · up(down(x))."""

    down: Tensor
    """(rank, in) or (rank, in, 1, 1)."""
    up: Tensor
    """(out, rank) or (out, rank, 1, 1)."""
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


LoraWeights = dict[str, dict[str, LayerWeights]]
"""Component name -> module path -> weights."""


def lora_components(pipeline: Any) -> dict[str, nn.Module]:
    """The components of a diffusers pipeline that a LoRA may change.

    Raises:
        UserError: a pipeline without a UNet.
    """
    parts = {name: getattr(pipeline, name, None) for name in TARGET_CLASSES}
    if not isinstance(parts["unet"], nn.Module):
        raise UserError(f"{type(pipeline).__name__} has no UNet; only Stable Diffusion's structure can be trained")
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def target_modules(component: str, module: nn.Module) -> list[str]:
    """Paths of the layers of `module` that get a LoRA, in the module's own order."""
    found: dict[str, None] = {}
    for parent_path, parent in module.named_modules():
        if type(parent).__name__ not in TARGET_CLASSES[component]:
            continue
        for path, layer in parent.named_modules():
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
                found[f"{parent_path}.{path}"] = None
    return list(found)


def attach(components: Mapping[str, nn.Module], dim: int, alpha: float, seed: int) -> None:
    """Add a fresh LoRA to each component: down kaiming-uniform(√5), up zero, all else frozen.

    The LoRA's weights are float32 whatever the base's are; the same seed gives the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in components.items():
            module.requires_grad_(False)
            _inject(module, dict.fromkeys(target_modules(name, module), (dim, alpha)))
            for _, layer in lora_layers(module):
                for part in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
                    part.to(torch.float32).requires_grad_(True)


def _inject(module: nn.Module, shapes: Mapping[str, tuple[int, float]]) -> None:
    """Add peft layers at the paths of `shapes`, each with its rank and alpha."""
    config = LoraConfig(
        r=1,
        # Exact paths: peft matches a list by suffix, and a full path is a suffix of itself alone.
        target_modules=list(shapes),
        rank_pattern={f"^{path}": rank for path, (rank, _) in shapes.items()},
        alpha_pattern=cast("dict[str, int]", {f"^{path}": alpha for path, (_, alpha) in shapes.items()}),
        lora_dropout=0.0,
        bias="none",
    )
    inject_adapter_in_model(config, module, adapter_name=ADAPTER)


def lora_layers(module: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Path and peft layer of each layer of `module` that carries our LoRA."""
    for path, layer in module.named_modules():
        if isinstance(layer, LoraLayer) and ADAPTER in layer.lora_A:
            yield path, layer


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """The LoRA parameters of one component, down and up of each layer in turn."""
    return [
        cast(nn.Parameter, part.weight)
        for _, layer in lora_layers(module)
        for part in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER])
    ]


def read_weights(components: Mapping[str, nn.Module]) -> LoraWeights:
    """Copies of the LoRA weights on `components`, float32 on the CPU."""
    return {
        name: {
            path: LayerWeights(
                down=_copy(layer.lora_A[ADAPTER].weight),
                up=_copy(layer.lora_B[ADAPTER].weight),
                alpha=float(layer.lora_alpha[ADAPTER]),
            )
            for path, layer in lora_layers(module)
        }
        for name, module in components.items()
    }


def _copy(weight: Any) -> Tensor:
    return cast(Tensor, weight).detach().to("cpu", torch.float32, copy=True).contiguous()


def attach_weights(components: Mapping[str, nn.Module], weights: LoraWeights, source: str) -> None:
    """Add the LoRA `weights` to `components`, in the dtype and on the device of each base layer.

    Raises:
        UserError: weights for a layer that is not there or is of another shape; `source` stands in the error.
    """
    for name, layers in weights.items():
        for path, layer in layers.items():
            _check_fits(components[name].get_submodule(path), layer, f"{source}: {name}.{path}")
        _inject(components[name], {path: (layer.rank, layer.alpha) for path, layer in layers.items()})
    write_weights(components, weights, source)


def write_weights(components: Mapping[str, nn.Module], weights: LoraWeights, source: str) -> None:
    """Copy `weights` into LoRA layers that are there already. Raises UserError where layers or shapes differ."""
    for name, module in components.items():
        wanted = dict(weights.get(name, {}))
        for path, layer in lora_layers(module):
            given = wanted.pop(path, None)
            if given is None:
                raise UserError(f"{source}: has no weights for the layer {name}.{path}; it was trained on other layers")
            down, up = cast(Tensor, layer.lora_A[ADAPTER].weight), cast(Tensor, layer.lora_B[ADAPTER].weight)
            if down.shape != given.down.shape or up.shape != given.up.shape:
                raise UserError(
                    f"{source}: rank {given.rank} and shape {tuple(given.down.shape)} of {name}.{path} do not fit the "
                    f"network's rank {down.shape[0]} and shape {tuple(down.shape)}; set network_dim to the file's rank"
                )
            with torch.no_grad():
                down.copy_(given.down)
                up.copy_(given.up)
        if wanted:
            raise UserError(f"{source}: weights for layers that are not trained here: {', '.join(sorted(wanted)[:5])}")


def _check_fits(layer: nn.Module, given: LayerWeights, what: str) -> None:
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise UserError(f"{what}: a {type(layer).__name__} cannot carry a LoRA; the file is for another model")
    shape = layer.weight.shape
    if given.down.shape[1] != shape[1] or given.up.shape[0] != shape[0]:
        raise UserError(
            f"{what}: made for {given.down.shape[1]} -> {given.up.shape[0]} features, the base model has "
            f"{shape[1]} -> {shape[0]}; the LoRA is for another base model"
        )


def detach(module: nn.Module) -> None:
    """Put the base layers back in place of those that carry our LoRA."""
    for path, layer in list(lora_layers(module)):
        parent, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(parent), leaf, layer.get_base_layer())
    # peft notes its config on the module; left there, the next LoRA would be warned of as a second one.
    vars(module).pop("peft_config", None)


def scale_norms(module: nn.Module, limit: float) -> tuple[int, float]:
    """Scale each layer of `module` down whose change of the weight has a Frobenius norm above `limit`.

    As sd-scripts' `scale_weight_norms` (max-norm regularisation); the ratio is shared evenly by down and up.

    Returns:
        How many layers were scaled, and the mean norm afterwards; (0, 0.0) for a module without our LoRA.
    """
    scaled, norms = 0, list[float]()
    with torch.no_grad():
        for _, layer in lora_layers(module):
            down, up = (cast(Tensor, part[ADAPTER].weight) for part in (layer.lora_A, layer.lora_B))
            norm = float((up.flatten(1) @ down.flatten(1)).norm()) * float(layer.scaling[ADAPTER])
            if norm > limit:
                scaled += 1
                down.mul_((limit / norm) ** 0.5)
                up.mul_((limit / norm) ** 0.5)
            norms.append(min(norm, limit))
    return scaled, sum(norms) / len(norms) if norms else 0.0
