"""The weights of one network layer as tensors: what a file holds, its size and what it adds to the base layer.

Plain arithmetic; neither peft nor a base model is needed.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from onmodel.training.network_spec import Kind

DOWN, UP, MAGNITUDE = "lora_down.weight", "lora_up.weight", "dora_scale"
"""Names of a LoRA's parts in a file; a LoHa's and LoKr's are LyCORIS': `hada_w1_a`, `lokr_w1` and so on."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer: it adds (alpha / rank) times `delta` of its parts to the base layer's weight."""

    parts: dict[str, Tensor]
    """By their names in sd-scripts' and LyCORIS' files."""
    alpha: float

    @cached_property
    def kind(self) -> Kind:
        """What the parts are."""
        if DOWN in self.parts:
            return "lora"
        return "loha" if "hada_w1_b" in self.parts else "lokr"

    @cached_property
    def rank(self) -> int:
        """The inner width; for a LoKr without decomposed factors, 1."""
        for name in (DOWN, "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
            if name in self.parts:
                return int(self.parts[name].shape[0])
        return 1

    @property
    def full(self) -> bool:
        """A LoKr whose two factors are whole: by LyCORIS' rule it has no scale."""
        return "lokr_w1" in self.parts and "lokr_w2" in self.parts

    @property
    def scale(self) -> float:
        """What `delta` is multiplied with."""
        return 1.0 if self.full else self.alpha / self.rank

    def complete(self) -> bool:
        """Whether no part is missing."""
        names = self.parts.keys()
        lokr = ("lokr_w1" in names or {"lokr_w1_a", "lokr_w1_b"} <= names) and (
            "lokr_w2" in names or {"lokr_w2_a", "lokr_w2_b"} <= names
        )
        loha = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= names and len(
            {"hada_t1", "hada_t2"} & names
        ) != 1
        return {DOWN, UP} <= names or loha or lokr

    @property
    def fits(self) -> tuple[int, int]:
        """Outputs, and inputs times kernel cells, of the base layer that it is for. Raises ValueError for none."""
        try:
            shape = self.delta(meta=True).shape
        except RuntimeError:
            raise ValueError("its parts do not fit each other") from None
        return int(shape[0]), int(shape[1])

    def delta(self, *, meta: bool = False) -> Tensor:
        """The unscaled change of the weight, float32 (out, in · kernel cells); with `meta` its shape alone.

        LoRA: up·down (Hu et al. 2021). LoHa: (w1_a·w1_b) ⊙ (w2_a·w2_b) (Hyeon-Woo et al. 2021). LoKr: w1 ⊗ w2
        (Yeh et al. 2023). With a core t: Σ t[i,j] a[i] b[j] in place of a·b. DoRA's magnitudes are left out.
        """
        p = {name: part.to("meta") if meta else part.float() for name, part in self.parts.items()}
        if self.kind == "lora":
            return p[UP].flatten(1) @ p[DOWN].flatten(1)
        if self.kind == "loha":
            first = _product(p["hada_w1_a"], p["hada_w1_b"], p.get("hada_t1"))
            return first * _product(p["hada_w2_a"], p["hada_w2_b"], p.get("hada_t2"))
        left = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
        right = p["lokr_w2"] if "lokr_w2" in p else _product(p["lokr_w2_a"], p["lokr_w2_b"], p.get("lokr_t2"))
        return torch.kron(left, right.flatten(1))

    @property
    def norm(self) -> float:
        """Frobenius norm of the scaled change of the weight."""
        return self.scale * float(delta_norm(self))


def _product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    if core is None:
        return a @ b.flatten(1)
    return torch.einsum("ijkl,ip,jr->prkl", core, a, b).flatten(1)


def delta_norm(layer: LayerWeights) -> Tensor:
    """Frobenius norm of `layer.delta()`, scalar; for a LoRA and a LoKr without making the delta."""
    p = layer.parts
    if layer.kind == "lora":
        # ‖UD‖² = ⟨UᵀU, DDᵀ⟩: rank by rank instead of out by in.
        up, down = p[UP].float().flatten(1), p[DOWN].float().flatten(1)
        return ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()
    if layer.kind == "lokr" and "lokr_t2" not in p:
        left = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
        right = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"].flatten(1)
        return left.float().norm() * right.float().norm()
    return layer.delta().norm()


def multiplied(layer: LayerWeights) -> list[str]:
    """The parts whose product the delta is, a core among them; not DoRA's magnitudes."""
    return [name for name in layer.parts if name != MAGNITUDE]


LoraWeights = dict[str, dict[str, LayerWeights]]
"""Component name -> module path -> weights."""
