"""From renders to what a pipeline draws: the bundled autoencoder, exact and not; random geometry, tone and noise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from onmodel.experiments.probe_network import to_input
from onmodel.toybox.models import MODEL_SIDE, bundled
from onmodel.toybox.schedule import half_precision

VARIANTS: Final[tuple[str, ...]] = ("render", "jpeg", "round trip", "noisy latents", "smoothed latents")
"""What is kept of each picture."""
LATENT_NOISE: Final[float] = 0.22
"""Deviation of noise on latents of unit variance: a UNet's latents are never exact."""
ZOOM: Final[float] = 1.07
"""Most by which a picture is enlarged, which lets its window move."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures float (n, 3, side, side) in -1..1 and their targets, named and shaped as `probe_pictures.Targets`."""

    images: Tensor
    state: Tensor
    centre: Tensor
    box: Tensor
    head: Tensor
    body: Tensor
    framing: Tensor
    values: Tensor
    seen: Tensor

    def copy_(self, other: Batch) -> None:
        """Take over the values of another batch, in place."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))

    def at(self, centre: Tensor) -> Batch:
        """The same with other centres."""
        return dataclasses.replace(self, centre=centre)


def load_autoencoder(device: torch.device) -> Any:
    """The bundled pipeline's autoencoder in single precision."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    return kind.from_pretrained(bundled("diffusion") / "vae", torch_dtype=torch.float32).to(device).eval()


@torch.no_grad()
def variants(images: Tensor, jpegs: Tensor, autoencoder: Any, batch: int = 125) -> Tensor:
    """uint8 (variants, n, side, side, 3) of pictures uint8 (n, side, side, 3), all on one device."""
    parts: list[Tensor] = []
    for k in range(0, len(images), batch):
        shown = images[k : k + batch]
        with half_precision(images.device):
            exact = autoencoder.encode(to_input(shown)).latent_dist.mean.float()
            deviation = LATENT_NOISE / float(autoencoder.config.scaling_factor)
            strength = torch.rand(len(shown), 1, 1, 1, device=images.device) * 2
            noisy = exact + deviation * strength * torch.randn_like(exact)
            # Half a latent's neighbourhood at most: details melt, colours stay where they are.
            smooth = functional.avg_pool2d(functional.pad(exact, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            mixed = exact.lerp(smooth, 0.3 * strength) + 0.4 * deviation * torch.randn_like(exact)
            decoded = [to_bytes(autoencoder.decode(latent).sample) for latent in (exact, noisy, mixed)]
        parts.append(torch.stack([shown, jpegs[k : k + batch], *decoded]))
    return torch.cat(parts, dim=1)


def to_bytes(images: Tensor) -> Tensor:
    """float (n, 3, side, side) in about -1..1 to uint8 (n, side, side, 3)."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def augment(batch: Batch) -> Batch:
    """Mirror, enlarge and move half of the pictures, with their targets; then soften, tone and add noise to them."""
    n, device = len(batch.images), batch.images.device
    flip = torch.where(torch.rand(n, 1, device=device) < 0.5, -1.0, 1.0)
    zoom = 1 + (ZOOM - 1) * torch.rand(n, 1, device=device) * (torch.rand(n, 1, device=device) < 0.5)
    shift = (1 - 1 / zoom) * (2 * torch.rand(n, 2, device=device) - 1)
    moved = _moved(batch, flip, zoom, shift)
    x = moved.images
    soft = _soften(x)
    x = x.lerp(soft, torch.rand(n, 1, 1, 1, device=device) * (torch.rand(n, 1, 1, 1, device=device) < 0.5))
    gain = 1 + 0.10 * (2 * torch.rand(n, 1, 1, 1, device=device) - 1)
    tint = 1 + 0.05 * (2 * torch.rand(n, 3, 1, 1, device=device) - 1)
    # Black is -1, and gains leave it black.
    x = (x + 1) * gain * tint - 1 + 0.05 * (2 * torch.rand(n, 1, 1, 1, device=device) - 1)
    x = x + 0.06 * torch.rand(n, 1, 1, 1, device=device) * torch.randn_like(x)
    return dataclasses.replace(moved, images=x.clamp(-1, 1))


def _moved(batch: Batch, flip: Tensor, zoom: Tensor, shift: Tensor) -> Batch:
    """The picture in a window: at (u, v) of -1..1 it shows what was at (u * flip / zoom + shift x, v / zoom + shift y).

    flip and zoom are (n, 1), shift (n, 2)."""
    n = len(batch.images)
    zero = torch.zeros_like(zoom)
    theta = torch.cat([flip / zoom, zero, shift[:, :1], zero, 1 / zoom, shift[:, 1:]], dim=1).view(n, 2, 3)
    grid = functional.affine_grid(theta, list(batch.images.shape), align_corners=False)
    images = functional.grid_sample(batch.images, grid, padding_mode="border", align_corners=False)
    half, edge = MODEL_SIDE / 2, 0.5

    def x_of(x: Tensor) -> Tensor:
        return ((x / half - 1 - shift[:, :1]) * zoom * flip + 1) * half

    def y_of(y: Tensor) -> Tensor:
        return ((y / half - 1 - shift[:, 1:]) * zoom + 1) * half

    sides = torch.stack([x_of(batch.box[..., 0]), x_of(batch.box[..., 2])])
    rows = (y_of(batch.box[..., 1]), y_of(batch.box[..., 3]))
    box = torch.stack([sides.amin(dim=0), rows[0], sides.amax(dim=0), rows[1]], dim=-1)
    centre = torch.stack([x_of(batch.centre[..., 0]), y_of(batch.centre[..., 1])], dim=-1)
    return dataclasses.replace(
        batch, images=images, head=batch.head * zoom, body=batch.body * zoom, box=box.clamp(0, MODEL_SIDE),
        centre=centre.clamp(edge, MODEL_SIDE - edge),
    )  # fmt: skip


def _soften(x: Tensor) -> Tensor:
    line = torch.tensor([0.10, 0.23, 0.34, 0.23, 0.10], device=x.device)
    kernel = (line[:, None] * line).expand(3, 1, 5, 5)
    return functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
