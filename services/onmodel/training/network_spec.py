"""What kind of network is trained and how large each of its layers is, from sd-scripts' and LyCORIS' own arguments.

Imports nothing heavy: the config's table [network] is here, which checks `network_args` before anything is started.
"""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

from onmodel.training.section import Section

Kind = Literal["lora", "loha", "lokr"]

FULL_RANK = 100_000
"""LoKr's rank at which no factor is decomposed; what LyCORIS' users write for it too."""


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0 or math.isinf(value):
        raise ValueError
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError
    return value


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _ranks(text: str) -> tuple[int, ...]:
    values = tuple(int(item) for item in text.split(","))
    if min(values) < 0:
        raise ValueError
    return values


def _alphas(text: str) -> tuple[float, ...]:
    return tuple(_positive(item) for item in text.split(","))


def _patterns(text: str) -> tuple[tuple[str, int], ...]:
    pairs: list[tuple[str, int]] = []
    for item in text.split(","):
        pattern, _, dim = item.strip().rpartition("=")
        re.compile(pattern)
        pairs.append((pattern, int(dim)))
    return tuple(pairs)


def _choice(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError
        return text.lower()

    return parse


def _blocks(text: str) -> frozenset[int] | None:
    """`0-3,7` to block numbers; None for all."""
    if text in ("all", "none", ""):
        return None if text == "all" else frozenset()
    numbers: set[int] = set()
    for item in text.split(","):
        first, _, last = item.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


_FLUX_TYPES = {
    "img_attn_dim": ("double_blocks", "img_attn"),
    "txt_attn_dim": ("double_blocks", "txt_attn"),
    "img_mlp_dim": ("double_blocks", "img_mlp"),
    "txt_mlp_dim": ("double_blocks", "txt_mlp"),
    "img_mod_dim": ("double_blocks", "img_mod"),
    "txt_mod_dim": ("double_blocks", "txt_mod"),
    "single_dim": ("single_blocks", "linear"),
    "single_mod_dim": ("single_blocks", "modulation"),
}
"""sd-scripts' arguments for the rank of one type of a Flux block's layers, and what stands in such layers' names."""

# Every argument with what reads its text and what the text must be.
_ARGUMENTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "algo": (_choice("lora", "locon", "loha", "lokr"), "lora, locon, loha or lokr"),
    "preset": (_choice("full", "attn-mlp"), "full or attn-mlp"),
    "conv_dim": (_whole, "a whole number of at least 1"),
    "conv_alpha": (_positive, "a number above 0"),
    "block_dims": (_ranks, "ranks separated by commas"),
    "block_alphas": (_alphas, "numbers above 0 separated by commas"),
    "conv_block_dims": (_ranks, "ranks separated by commas"),
    "conv_block_alphas": (_alphas, "numbers above 0 separated by commas"),
    "network_reg_dims": (_patterns, "regex=rank pairs separated by commas"),
    "dropout": (_share, "a share from 0 to below 1"),
    "rank_dropout": (_share, "a share from 0 to below 1"),
    "module_dropout": (_share, "a share from 0 to below 1"),
    "dora_wd": (_flag, "True or False"),
    "rs_lora": (_flag, "True or False"),
    "use_tucker": (_flag, "True or False"),
    "use_cp": (_flag, "True or False"),
    "decompose_both": (_flag, "True or False"),
    "full_matrix": (_flag, "True or False"),
    "factor": (int, "a whole number, -1 for the most even factors"),
    **dict.fromkeys(
        ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"),
        (_positive, "a number above 0"),
    ),
    "init": (_choice("default", "gaussian", "orthogonal"), "default, gaussian or orthogonal"),
    "train_blocks": (_choice("all", "single", "double"), "all, single or double"),
    "train_double_block_indices": (_blocks, "all, none, or numbers and ranges such as 0-3,7"),
    "train_single_block_indices": (_blocks, "all, none, or numbers and ranges such as 0-3,7"),
    **dict.fromkeys(_FLUX_TYPES, (int, "a whole number; 0 leaves the layers alone")),
}

_REFUSED = {
    "wd_on_output": "DoRA's norms are taken per output, as its paper does; leave it out",
    "use_scalar": "peft's layers have no such scalar; leave it out",
    "bypass_mode": "peft's layers do not have it; leave it out",
    "rank_dropout_scale": "write rank_dropout alone",
    "unbalanced_factorization": "peft's LoKr does not have it; give factor",
    "split_qkv": "the queries, keys and values of Flux are always trained as layers of their own; leave it out",
    "train_t5xxl": "Flux's T5 encoder is not trained here; leave it out",
    "down_lr_weight": "rates by block are not supported; block_dims gives ranks by block",
    "mid_lr_weight": "rates by block are not supported; block_dims gives ranks by block",
    "up_lr_weight": "rates by block are not supported; block_dims gives ranks by block",
    "network_reg_lrs": "rates by layer are not supported; network_reg_dims gives ranks by layer",
}


@dataclass(frozen=True)
class FluxChoice:
    """Which blocks of a Flux transformer are trained; sd-scripts' `networks.lora_flux` arguments."""

    blocks: str = "all"
    double: frozenset[int] | None = None
    """Numbers of the double blocks; None: all."""
    single: frozenset[int] | None = None
    types: tuple[tuple[str, int], ...] = ()
    """Argument of `_FLUX_TYPES` and its rank."""

    def rank(self, name: str, dim: int) -> int:
        """Rank of the layer `name` (sd-scripts' name), `dim` where nothing says otherwise; 0: not trained."""
        found = re.search(r"(double|single)_blocks_(\d+)", name)
        if found is None:
            return dim
        kind, number = found[1], int(found[2])
        chosen = self.double if kind == "double" else self.single
        if self.blocks not in ("all", kind) or (chosen is not None and number not in chosen):
            return 0
        return next((rank for key, rank in self.types if all(part in name for part in _FLUX_TYPES[key])), dim)


@dataclass(frozen=True)
class NetworkSpec:
    """One network, of any kind."""

    kind: Kind = "lora"
    dim: int = 16
    alpha: float = 8.0
    conv_dim: int | None = None
    """Rank of 3x3 convolutions (and trains a ResNet block's other layers at `dim`); None: they are left alone."""
    conv_alpha: float = 1.0
    block_dims: tuple[int, ...] | None = None
    """Rank by block of the UNet, from the input on; 0 leaves a block alone."""
    block_alphas: tuple[float, ...] | None = None
    conv_block_dims: tuple[int, ...] | None = None
    conv_block_alphas: tuple[float, ...] | None = None
    reg_dims: tuple[tuple[str, int], ...] = ()
    """Patterns searched in sd-scripts' layer names, and the rank of what they find; the first that fits counts."""
    dora: bool = False
    """DoRA (Liu et al. 2024): a magnitude per output beside the LoRA."""
    rs: bool = False
    """rsLoRA (Kalajdzievski 2023): the scale is alpha / √rank."""
    tucker: bool = False
    """LoHa and LoKr of 3x3 convolutions through a core tensor."""
    decompose_both: bool = False
    factor: int = -1
    dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    init: str = "default"
    plus_unet: float = 1.0
    """LoRA+ (Hayou et al. 2024): how many times the denoiser's rate its up matrices learn with."""
    plus_text: float = 1.0
    """The same of the text encoders."""
    flux: FluxChoice = field(default_factory=FluxChoice)

    @property
    def convolutions(self) -> bool:
        """Whether ResNet blocks, down- and upsamplers are trained."""
        return self.conv_dim is not None or self.conv_block_dims is not None

    @property
    def by_block(self) -> bool:
        """Whether ranks go by the UNet's blocks."""
        return self.block_dims is not None or self.conv_block_dims is not None

    @property
    def drops(self) -> bool:
        """Whether training draws random numbers for dropout."""
        return bool(self.dropout or self.rank_dropout or self.module_dropout)

    def shape(self, name: str, *, spatial: bool, block: int | None) -> tuple[int, float] | None:
        """Rank and alpha of a layer, or None when it is not trained.

        Args:
            name: the layer's name in sd-scripts.
            spatial: a convolution larger than 1x1.
            block: the UNet block it is in; None outside.
        """
        found = next((dim for pattern, dim in self.reg_dims if re.search(pattern, name)), None)
        if found is not None:
            dim, alpha = found, self.alpha
        elif spatial:
            dim = _of(self.conv_block_dims, block, self.conv_dim or 0)
            alpha = _of(self.conv_block_alphas, block, self.conv_alpha)
        else:
            dim = self.flux.rank(name, _of(self.block_dims, block, self.dim))
            alpha = _of(self.block_alphas, block, self.alpha)
        if dim <= 0:
            return None
        # α/√r, told to everything that computes α/r.
        return dim, alpha * math.sqrt(dim) if self.rs else alpha


def _of(values: Sequence[Any] | None, block: int | None, otherwise: Any) -> Any:
    return otherwise if values is None or block is None else values[block]


def parse_args(items: Sequence[str]) -> dict[str, Any]:
    """`network_args` to values by name. Raises ValueError with a sentence."""
    values: dict[str, Any] = {}
    for item in items:
        name, equals, text = (part.strip() for part in item.partition("="))
        if name in _REFUSED:
            raise ValueError(f"`{name}` is not taken: {_REFUSED[name]}")
        if name not in _ARGUMENTS:
            near = difflib.get_close_matches(name, _ARGUMENTS, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(sorted(_ARGUMENTS))}"
            raise ValueError(f"unknown network argument `{name}`; {hint}")
        read, wanted = _ARGUMENTS[name]
        try:
            if not equals:
                raise ValueError
            values[name] = read(text)
        except (ValueError, KeyError, re.error):
            raise ValueError(f"`{item}`: {name} must be {wanted}, written {name}=VALUE") from None
    return values


def make_spec(module: str, dim: int, alpha: float, items: Sequence[str], dropout: float = 0.0) -> NetworkSpec:
    """The network that `network_module`, `network_dim`, `network_alpha` and `network_args` ask for.

    LyCORIS trains convolutions unless its preset says otherwise, sd-scripts' own modules only with `conv_dim`.

    Raises:
        ValueError: an unknown argument, a wrong value, or two that exclude each other; says which.
    """
    args = parse_args(items)
    lycoris = module == "lycoris.kohya"
    if not lycoris and ({"algo", "preset"} & args.keys()):
        raise ValueError('`algo` and `preset` belong to network_module = "lycoris.kohya"; set that')
    algo = args.get("algo", "lora")
    kind = cast(Kind, "lora" if algo == "locon" else algo)
    conv_dim, conv_alpha = args.get("conv_dim"), args.get("conv_alpha")
    if lycoris:
        if args.get("preset") == "attn-mlp":
            if conv_dim is not None:
                raise ValueError("preset=attn-mlp trains no convolutions; leave conv_dim out or take preset=full")
        else:
            conv_dim = conv_dim or dim
        conv_alpha = conv_alpha or alpha
    elif conv_alpha is not None and conv_dim is None and "conv_block_dims" not in args:
        raise ValueError("conv_alpha has no effect without conv_dim; give conv_dim too")
    if args.get("full_matrix"):
        dim, conv_dim = FULL_RANK, FULL_RANK if conv_dim else None
    plus = args.get("loraplus_lr_ratio", 1.0)
    spec = NetworkSpec(
        kind=kind,
        dim=dim,
        alpha=alpha,
        conv_dim=conv_dim,
        conv_alpha=conv_alpha or 1.0,
        block_dims=args.get("block_dims"),
        block_alphas=args.get("block_alphas"),
        conv_block_dims=args.get("conv_block_dims"),
        conv_block_alphas=args.get("conv_block_alphas"),
        reg_dims=args.get("network_reg_dims", ()),
        dora=args.get("dora_wd", False),
        rs=args.get("rs_lora", False),
        tucker=args.get("use_tucker", False) or args.get("use_cp", False),
        decompose_both=args.get("decompose_both", False),
        factor=args.get("factor", -1),
        dropout=args.get("dropout", dropout),
        rank_dropout=args.get("rank_dropout", 0.0),
        module_dropout=args.get("module_dropout", 0.0),
        init=args.get("init", "default"),
        plus_unet=args.get("loraplus_unet_lr_ratio", plus),
        plus_text=args.get("loraplus_text_encoder_lr_ratio", plus),
        flux=FluxChoice(
            args.get("train_blocks", "all"),
            args.get("train_double_block_indices"),
            args.get("train_single_block_indices"),
            tuple((name, args[name]) for name in _FLUX_TYPES if name in args),
        ),
    )
    _check(spec, args)
    return spec


_ONLY_FOR: dict[str, tuple[Kind, ...]] = {
    "rank_dropout": ("loha", "lokr"),
    "module_dropout": ("loha", "lokr"),
    "use_tucker": ("loha", "lokr"),
    "use_cp": ("loha", "lokr"),
    "decompose_both": ("lokr",),
    "factor": ("lokr",),
    "full_matrix": ("lokr",),
    "dora_wd": ("lora",),
    "dropout": ("lora",),
    "init": ("lora",),
    "loraplus_lr_ratio": ("lora",),
    "loraplus_unet_lr_ratio": ("lora",),
    "loraplus_text_encoder_lr_ratio": ("lora",),
}
"""The kinds of network for which peft has what an argument asks for."""


def _check(spec: NetworkSpec, args: dict[str, Any]) -> None:
    given = {name for name, value in args.items() if value not in (False, 0.0, "default")}
    if spec.dropout:
        given.add("dropout")
    for name, kinds in _ONLY_FOR.items():
        if name in given and spec.kind not in kinds:
            shown = "network_dropout" if name == "dropout" else name
            raise ValueError(
                f"`{shown}` is possible for {' and '.join(kinds)} alone, not for {spec.kind}; leave it out"
            )
    for alphas, dims in (("block_alphas", "block_dims"), ("conv_block_alphas", "conv_block_dims")):
        if alphas in args and dims not in args:
            raise ValueError(f"`{alphas}` has no effect without `{dims}`; give both")


class NetworkSection(Section):
    """What is trained."""

    network_module: Literal["networks.lora", "networks.lora_flux", "lycoris.kohya"] = "networks.lora"
    """sd-scripts' LoRA, or LyCORIS' networks by `algo` in `network_args`."""
    network_dim: int = Field(default=16, ge=1, le=100_000)
    """Rank of the LoRA."""
    network_alpha: float = Field(default=8.0, gt=0)
    """The LoRA's output is scaled by alpha / rank."""
    network_args: list[str] = Field(default_factory=list)
    """`key=value` strings, as `network_spec` knows them: `conv_dim=8`, `algo=loha`, `dora_wd=True`."""
    network_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of a LoRA's inputs that are left out at each step."""
    network_train_unet_only: bool = True
    """False: the text encoders' attention and MLP layers get a LoRA too."""
    network_train_text_encoder_only: bool = False
    """Train the text encoders and leave the UNet (or transformer) alone; goes before `network_train_unet_only`."""
    network_weights: str | None = None
    """A LoRA `.safetensors` file (sd-scripts, LyCORIS or PEFT naming) to start from."""

    @model_validator(mode="after")
    def _makes_a_network(self) -> Self:
        _ = self.spec
        return self

    @property
    def trains_text(self) -> bool:
        """Whether text encoders are trained, so that captions cannot be encoded beforehand."""
        return self.network_train_text_encoder_only or not self.network_train_unet_only

    @property
    def spec(self) -> NetworkSpec:
        """The network. Raises ValueError for arguments that make none."""
        return make_spec(
            self.network_module, self.network_dim, self.network_alpha, self.network_args, self.network_dropout
        )
