"""LoRA, DoRA, LoHa and LoKr layers on a pipeline's components, through peft, on the layers that sd-scripts trains.

A component is a part of a diffusers pipeline by its name there (`unet`, `transformer`, `text_encoder`). Layers go by
their module path inside the component.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from onmodel.core.errors import UserError
from onmodel.training.naming import Naming
from onmodel.training.network_spec import Kind, NetworkSpec
from onmodel.training.weights import DOWN, MAGNITUDE, UP, LayerWeights, LoraWeights, delta_norm, multiplied

ADAPTER = "onmodel"
"""Name of our adapter inside peft's layers."""

DENOISERS = ("unet", "transformer")
"""Components that predict noise; a pipeline has one of them."""

_TEXT = frozenset({"CLIPAttention", "CLIPSdpaAttention", "CLIPFlashAttention2", "CLIPMLP"})
# sd-scripts' target modules: every Linear and 1x1 convolution below a module of one of these classes.
TARGET_CLASSES: dict[str, frozenset[str]] = {
    "unet": frozenset({"Transformer2DModel"}),
    "transformer": frozenset({"FluxTransformerBlock", "FluxSingleTransformerBlock"}),
    "text_encoder": _TEXT,
    "text_encoder_2": _TEXT,
}
# With convolutions: these too, and their 3x3 convolutions.
CONVOLUTION_CLASSES: dict[str, frozenset[str]] = {"unet": frozenset({"ResnetBlock2D", "Downsample2D", "Upsample2D"})}

AdapterLayer = LoraLayer | LycorisLayer


def lora_components(pipeline: Any) -> dict[str, nn.Module]:
    """The components of a diffusers pipeline that a LoRA may change, the denoiser first.

    Raises:
        UserError: a pipeline without a denoiser that is known here.
    """
    parts = {name: getattr(pipeline, name, None) for name in TARGET_CLASSES}
    if not any(isinstance(parts[name], nn.Module) for name in DENOISERS):
        raise UserError(f"{type(pipeline).__name__} has neither a UNet nor a transformer, so no LoRA can be put on it")
    # Of the text encoders CLIP's alone: a T5 has none of the target classes.
    return {
        name: part
        for name, part in parts.items()
        if isinstance(part, nn.Module) and (name in DENOISERS or target_modules(name, part))
    }


def target_modules(component: str, module: nn.Module, *, convolutions: bool = False) -> list[str]:
    """Paths of the layers of `module` that get a LoRA, in the module's own order."""
    classes = TARGET_CLASSES[component]
    if convolutions:
        classes |= CONVOLUTION_CLASSES.get(component, frozenset())
    found: dict[str, None] = {}
    for parent_path, parent in module.named_modules():
        if type(parent).__name__ not in classes:
            continue
        for path, layer in parent.named_modules():
            if isinstance(layer, nn.Linear) or (
                isinstance(layer, nn.Conv2d) and (convolutions or layer.kernel_size == (1, 1))
            ):
                found[f"{parent_path}.{path}"] = None
    return list(found)


def layer_shapes(component: str, module: nn.Module, spec: NetworkSpec, naming: Naming) -> dict[str, tuple[int, float]]:
    """Rank and alpha of each layer of `module` that `spec` trains. Raises UserError for a wrong number of blocks."""
    for key in ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"):
        given = getattr(spec, key)
        if given is not None and len(given) != naming.blocks:
            wanted = f"{naming.blocks} values" if naming.blocks else "none: give network_reg_dims instead"
            raise UserError(f"network_args: {key} has {len(given)} values; the base model's structure takes {wanted}")
    shapes: dict[str, tuple[int, float]] = {}
    for path in target_modules(component, module, convolutions=spec.convolutions):
        layer = module.get_submodule(path)
        key = naming.place(component, path).key
        spatial = isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
        shape = spec.shape(key, spatial=spatial, block=naming.block(key))
        if shape is not None:
            shapes[path] = shape
    return shapes


def attach(components: Mapping[str, nn.Module], spec: NetworkSpec, naming: Naming, seed: int) -> None:
    """Add a fresh network to each component, which changes nothing yet, and freeze all else.

    A LoRA starts with down kaiming-uniform(√5) and up zero, LoHa and LoKr as LyCORIS starts them. The new weights
    are float32 whatever the base's are; the same seed gives the same weights.

    Raises:
        UserError: ranks that fit no block, or leave nothing to train.
    """
    shapes = {name: layer_shapes(name, module, spec, naming) for name, module in components.items()}
    if not any(shapes.values()):
        raise UserError("network_args: every layer has rank 0, so there is nothing to train; give some a rank")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in components.items():
            module.requires_grad_(False)
            _inject(module, spec, shapes[name])
            for parameter in parameters(module):
                parameter.data = parameter.data.to(torch.float32)
                parameter.requires_grad_(True)


def _inject(module: nn.Module, spec: NetworkSpec, shapes: Mapping[str, tuple[int, float]]) -> None:
    """Add peft layers at the paths of `shapes`, each with its rank and alpha."""
    groups: dict[tuple[int, float], list[str]] = {}
    for path, shape in shapes.items():
        groups.setdefault(shape, []).append(path)
    # A group at a time: peft's rank patterns cost one regular expression for each pair of layers.
    for (rank, alpha), paths in groups.items():
        inject_adapter_in_model(_peft_config(spec, rank, alpha, paths), module, adapter_name=ADAPTER)
        # peft notes its config on the module; left there, the next one would be warned of as a second adapter.
        vars(module).pop("peft_config", None)
    for _, layer in lora_layers(module):
        if isinstance(layer, LycorisLayer) and layer_weights(layer).full:
            _set_alpha(layer, float(layer.r[ADAPTER]))


def _peft_config(spec: NetworkSpec, rank: int, alpha: float, paths: list[str]) -> PeftConfig:
    """Exact paths: peft matches a list by suffix, and a full path is a suffix of itself alone."""
    scale = cast(int, alpha)  # peft's annotation; a fraction is as good
    if spec.kind == "lora":
        init = cast(Any, True if spec.init == "default" else spec.init)
        return LoraConfig(
            r=rank,
            lora_alpha=scale,
            target_modules=paths,
            lora_dropout=spec.dropout,
            use_dora=spec.dora,
            init_lora_weights=init,
        )
    dropouts: dict[str, Any] = {"rank_dropout": spec.rank_dropout, "module_dropout": spec.module_dropout}
    if spec.kind == "loha":
        return LoHaConfig(r=rank, alpha=scale, target_modules=paths, use_effective_conv2d=spec.tucker, **dropouts)
    return LoKrConfig(
        r=rank,
        alpha=scale,
        target_modules=paths,
        use_effective_conv2d=spec.tucker,
        decompose_both=spec.decompose_both,
        decompose_factor=spec.factor,
        init_weights=cast(Any, "lycoris"),
        **dropouts,
    )


def _set_alpha(layer: AdapterLayer, alpha: float) -> None:
    stored: Any = layer.lora_alpha if isinstance(layer, LoraLayer) else layer.alpha
    stored[ADAPTER] = alpha
    layer.scaling[ADAPTER] = alpha / layer.r[ADAPTER]


def lora_layers(module: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """Path and peft layer of each layer of `module` that carries our network."""
    for path, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            if ADAPTER in layer.lora_A:
                yield path, layer
        elif isinstance(layer, LycorisLayer) and ADAPTER in layer.r:
            yield path, layer


def base_layers(module: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Path and base layer of everything in `module` that can carry a network, whether it carries one or not."""
    for path, layer in module.named_modules():
        if isinstance(layer, BaseTunerLayer):
            base = layer.get_base_layer()
            if isinstance(base, (nn.Linear, nn.Conv2d)):
                yield path, base
        elif isinstance(layer, (nn.Linear, nn.Conv2d)) and ".base_layer" not in path and ".lora_" not in path:
            yield path, layer


def layer_parts(layer: AdapterLayer) -> dict[str, nn.Parameter]:
    """The live parameters of one layer by their names in files; DoRA's magnitudes in peft's shape."""
    if isinstance(layer, LoraLayer):
        parts = {DOWN: layer.lora_A[ADAPTER].weight, UP: layer.lora_B[ADAPTER].weight}
        if ADAPTER in layer.lora_magnitude_vector:
            parts[MAGNITUDE] = layer.lora_magnitude_vector[ADAPTER].weight
        return cast("dict[str, nn.Parameter]", parts)
    kept = {name: getattr(layer, name) for name in layer.adapter_layer_names}
    return {name: parameters[ADAPTER] for name, parameters in kept.items() if ADAPTER in parameters}


def layer_weights(layer: AdapterLayer) -> LayerWeights:
    """One layer's live parameters with its alpha."""
    alpha: Any = layer.lora_alpha[ADAPTER] if isinstance(layer, LoraLayer) else layer.alpha[ADAPTER]
    return LayerWeights(dict(layer_parts(layer)), float(alpha))


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """The network's parameters on one component, layer by layer."""
    return [part for _, layer in lora_layers(module) for part in layer_parts(layer).values()]


@dataclass(frozen=True)
class RateGroup:
    """Parameters that learn at one rate."""

    name: str
    """Of the component; `_plus` behind it for the up matrices of LoRA+."""
    component: str
    ratio: float
    """To the component's rate."""
    parameters: list[nn.Parameter]


def rate_groups(components: Mapping[str, nn.Module], spec: NetworkSpec) -> list[RateGroup]:
    """The network's parameters by their learning rate: one group a component, with LoRA+ two."""
    groups: list[RateGroup] = []
    for name, module in components.items():
        ratio = spec.plus_unet if name in DENOISERS else spec.plus_text
        if ratio == 1:
            groups.append(RateGroup(name, name, 1.0, parameters(module)))
            continue
        layers = [layer_parts(layer) for _, layer in lora_layers(module)]
        for plus, suffix in ((False, ""), (True, "_plus")):
            found = [part for parts in layers for key, part in parts.items() if (key == UP) == plus]
            groups.append(RateGroup(name + suffix, name, ratio if plus else 1.0, found))
    return groups


def read_weights(components: Mapping[str, nn.Module]) -> LoraWeights:
    """Copies of the network's weights on `components`, float32 on the CPU."""
    return {
        name: {path: _copied(layer_weights(layer)) for path, layer in lora_layers(module)}
        for name, module in components.items()
    }


def _copied(layer: LayerWeights) -> LayerWeights:
    parts = {name: part.detach().to("cpu", torch.float32, copy=True).contiguous() for name, part in layer.parts.items()}
    if MAGNITUDE in parts:
        # LyCORIS' shape: one a row of the weight; peft keeps (out,) or (1, out, 1, 1).
        parts[MAGNITUDE] = parts[MAGNITUDE].reshape(-1, *[1] * (parts[DOWN].ndim - 1))
    return LayerWeights(parts, layer.alpha)


def attach_weights(components: Mapping[str, nn.Module], weights: LoraWeights, source: str) -> None:
    """Add the network `weights` to `components`, in the dtype and on the device of each base layer.

    Raises:
        UserError: weights for a layer that is not there or is of another shape; `source` stands in the error.
    """
    for name, layers in weights.items():
        module = components[name]
        groups: dict[tuple[Kind, bool], dict[str, tuple[int, float]]] = {}
        for path, layer in layers.items():
            _check_fits(module.get_submodule(path), layer, f"{source}: {name}.{path}")
            groups.setdefault((layer.kind, MAGNITUDE in layer.parts), {})[path] = (layer.rank, layer.alpha)
        for (kind, dora), shapes in groups.items():
            _inject(module, NetworkSpec(kind=kind, dora=dora), shapes)
        for path, layer in lora_layers(module):
            if isinstance(layer, LycorisLayer):
                _take_parts(layer, layers[path])
    write_weights(components, weights, source)


def _take_parts(layer: LycorisLayer, given: LayerWeights) -> None:
    """Make the parts of `given` those of `layer`: which factors are decomposed, and how, is the file's choice."""
    like = next(iter(layer_parts(layer).values()))
    for name in layer.adapter_layer_names:
        kept = getattr(layer, name)
        if ADAPTER in kept:
            del kept[ADAPTER]
        if name in given.parts:
            kept[ADAPTER] = nn.Parameter(torch.empty_like(given.parts[name], dtype=like.dtype, device=like.device))
    _set_alpha(layer, float(layer.r[ADAPTER]) * given.scale)


def write_weights(components: Mapping[str, nn.Module], weights: LoraWeights, source: str) -> None:
    """Copy `weights` into network layers that are there already. Raises UserError where layers or shapes differ."""
    for name, module in components.items():
        wanted = dict(weights.get(name, {}))
        for path, layer in lora_layers(module):
            given = wanted.pop(path, None)
            if given is None:
                raise UserError(f"{source}: has no weights for the layer {name}.{path}; it was trained on other layers")
            parts = layer_parts(layer)
            if parts.keys() != given.parts.keys():
                raise UserError(
                    f"{source}: {name}.{path} is a {given.kind} of {', '.join(sorted(given.parts))}; the network that "
                    f"is trained has {', '.join(sorted(parts))}. Set network_module and network_args to the file's"
                )
            for part, parameter in parts.items():
                _write_part(parameter, given.parts[part], f"{name}.{path}", given, source)
            _take_scale(layer, given)
        if wanted:
            raise UserError(f"{source}: weights for layers that are not trained here: {', '.join(sorted(wanted)[:5])}")


def _write_part(parameter: nn.Parameter, value: Tensor, layer: str, given: LayerWeights, source: str) -> None:
    flat = value.reshape(parameter.shape) if value.numel() == parameter.numel() and value.ndim != 1 else value
    if parameter.shape != flat.shape:
        raise UserError(
            f"{source}: rank {given.rank} and shape {tuple(value.shape)} of {layer} do not fit the "
            f"network's shape {tuple(parameter.shape)}; set network_dim (and conv_dim) to the file's rank"
        )
    with torch.no_grad():
        parameter.copy_(flat)


def _take_scale(layer: AdapterLayer, given: LayerWeights) -> None:
    """Fold a difference of scales into the weights: what was trained goes on from the output it had."""
    ratio = given.scale / layer.scaling[ADAPTER]
    if abs(ratio - 1) > 1e-6:
        first = next(iter(layer_parts(layer).values()))
        with torch.no_grad():
            first.mul_(ratio)


def _check_fits(layer: nn.Module, given: LayerWeights, what: str) -> None:
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise UserError(f"{what}: a {type(layer).__name__} cannot carry a LoRA; the file is for another model")
    outputs, inputs = layer.weight.shape[0], layer.weight[0].numel()
    try:
        found = given.fits
    except ValueError as error:
        raise UserError(f"{what}: {error}; the file is damaged") from None
    if found != (outputs, inputs):
        raise UserError(
            f"{what}: made for {found[1]} -> {found[0]} features, the base model has {inputs} -> {outputs}; "
            "the LoRA is for another base model"
        )
    magnitude = given.parts.get(MAGNITUDE)
    if magnitude is not None and (magnitude.shape[0] != outputs or magnitude.numel() != outputs):
        raise UserError(
            f"{what}: DoRA magnitudes of shape {tuple(magnitude.shape)}, one an input; only those with one an output "
            "can be read, so train the file anew or merge it with the tool that made it"
        )


def scale_norms(module: nn.Module, limit: float) -> Tensor:
    """Scale each layer of `module` down whose change of the weight has a Frobenius norm above `limit`.

    As sd-scripts' `scale_weight_norms` (Max-norm regularisation, Srebro & Shraibman 2005); the ratio is shared out
    evenly over the layer's matrices. DoRA's magnitudes are left alone. Nothing waits for the device.

    Returns:
        The norms before, float (layers,); empty for a module without our network.
    """
    layers = [layer_weights(layer) for _, layer in lora_layers(module)]
    if not layers:
        return torch.empty(0)
    with torch.no_grad():
        norms = torch.stack([delta_norm(layer) * layer.scale for layer in layers])
        for layer, ratio in zip(layers, (limit / norms).clamp(max=1).unbind(), strict=True):
            names = multiplied(layer)
            factor = ratio ** (1 / len(names))
            for name in names:
                layer.parts[name].mul_(factor)
    return norms


def set_dropout(components: Mapping[str, nn.Module], spec: NetworkSpec) -> None:
    """Give layers that are there the dropouts of `spec`, whose kind must be theirs."""
    for module in components.values():
        for _, layer in lora_layers(module):
            if isinstance(layer, LoraLayer):
                layer.lora_dropout[ADAPTER] = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
            else:
                layer.rank_dropout[ADAPTER] = spec.rank_dropout
                layer.module_dropout[ADAPTER] = spec.module_dropout


def cast_inputs(components: Mapping[str, nn.Module], on: bool) -> None:
    """Whether our layers cast their inputs to the type of their weights, as they must outside autocast."""
    for module in components.values():
        for _, layer in lora_layers(module):
            layer.cast_input_dtype_enabled = on


def merge(components: Mapping[str, nn.Module]) -> None:
    """Add our network to the base weights and take its layers away."""
    for module in components.values():
        for _, layer in list(lora_layers(module)):
            layer.merge(adapter_names=[ADAPTER])
        detach(module)


def detach(module: nn.Module) -> None:
    """Put the base layers back in place of those that carry our network."""
    for path, layer in list(lora_layers(module)):
        parent, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(parent), leaf, layer.get_base_layer())
