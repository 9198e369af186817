"""What is wrong in what the probe says of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onmodel.experiments.probe_augment import Batch
from onmodel.experiments.probe_network import CELLS, STRIDE, ProbeNetwork, Readings
from onmodel.experiments.probe_pictures import COUNTED, UNSURE
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.schedule import half_precision


def heat_targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """The heatmap (n, cells, cells) of counted heads, 1 at each centre's cell, and the weight of each cell: none around
    heads of which little is seen."""
    line = torch.arange(CELLS, device=batch.centre.device)
    at = (batch.centre / STRIDE).floor().clamp(0, CELLS - 1)
    spread = (batch.head / STRIDE / 6).clamp(0.6, 2.0)[..., None]
    across = torch.exp(-((line - at[..., :1]) ** 2) / (2 * spread**2))
    down = torch.exp(-((line - at[..., 1:]) ** 2) / (2 * spread**2))
    each = down[..., :, None] * across[..., None, :]
    counted, unsure = (((batch.state == s)[..., None, None] * each).amax(dim=1) for s in (COUNTED, UNSURE))
    return counted, ((unsure < 0.3) | (counted >= 0.99)).float()


def heat_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """CenterNet's focal loss (Zhou et al. 2019, alpha 2, beta 4) a head."""
    chance = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    peak = target >= 0.99
    right = (1 - chance) ** 2 * chance.log()
    wrong = (1 - target) ** 4 * chance**2 * (1 - chance).log()
    return -(torch.where(peak, right, wrong) * weight).sum() / peak.sum().clamp(min=1)


def reading_losses(readings: Readings, batch: Batch) -> list[Tensor]:
    """What is wrong in readings at the batch's centres, a mean over counted characters for each kind of reading;
    features count where they are seen, heights of bodies where they are whole."""
    counted = batch.state == COUNTED
    whole = counted & (batch.framing >= 2)
    seen = functional.binary_cross_entropy_with_logits(readings.seen, batch.seen.float(), reduction="none")
    reach = torch.cat([batch.centre - batch.box[..., :2], batch.box[..., 2:] - batch.centre], dim=-1).clamp(min=0)
    features = [
        _mean(_classified(logits, batch.values[..., k]), counted & batch.seen[..., k])
        for k, logits in enumerate(readings.features)
    ]
    return [
        *features,
        _mean(seen.mean(dim=-1), counted),
        _mean(_classified(readings.framing, batch.framing.clamp(min=0)), counted),
        _mean((readings.reach - reach).abs().mean(dim=-1) / 8, counted),
        4 * _mean((readings.head - batch.head.log()).abs(), counted),
        2 * _mean((readings.guess - batch.head.log()).abs(), counted),
        4 * _mean((readings.body - (batch.body / batch.head).log()).abs(), whole),
    ]


def _classified(logits: Tensor, values: Tensor) -> Tensor:
    flat = functional.cross_entropy(logits.flatten(0, 1), values.flatten(), reduction="none", label_smoothing=0.02)
    return flat.view(values.shape)


def _mean(each: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, each, 0).sum() / where.sum().clamp(min=1)


def batch_loss(network: ProbeNetwork, batch: Batch, jitter: float) -> Tensor:
    """Heat and readings together. Readings are taken beside the true centres, `jitter` heads and a third of a pixel (a
    deviation) away, at heights of heads a factor exp(2 `jitter`) wrong, since found ones are not exact."""
    away = (jitter * batch.head[..., None] + 0.3) * torch.randn_like(batch.centre)
    centre = (batch.centre + away).clamp(0, MODEL_SIDE)
    heads = batch.head * torch.exp(2 * jitter * torch.randn_like(batch.head))
    with half_precision(batch.images.device):
        heat, maps = network(batch.images)
        readings = network.read(batch.images, maps, centre, heads)
    wrong = reading_losses(readings, batch.at(centre))
    return heat_loss(heat.float(), *heat_targets(batch)) + torch.stack(wrong).sum()
