"""The probe: reads who is in a picture of the toybox, where no renderer's truth exists. No part of the product.

Trained by `onmodel.experiments.probe_training` on renders alone, never on samples, never with the product's scorer or
detector.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import write_aside
from onmodel.core.vocabulary import Box, ShotType
from onmodel.experiments.probe_network import STRIDE, NetworkConfig, ProbeNetwork, Readings, to_input
from onmodel.experiments.probe_pictures import FEATURES, Feature
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.scene import FRAMED
from onmodel.toybox.schedule import half_precision

PROBE: Final[Path] = Path(__file__).parent / "probe"
"""Where the trained probe lies."""
WEIGHTS: Final[str] = "probe.safetensors"
DESCRIPTION: Final[str] = "probe.json"
MOST: Final[int] = 6
"""Heads looked for in one picture."""
APART: Final[float] = 0.5
"""Two peaks nearer to each other than this share of the head's height are one head."""


@dataclass(frozen=True, slots=True)
class FeatureReading:
    """What was read of one feature."""

    value: str
    probability: float
    """0..1, given that the feature can be told."""
    seen: float
    """Chance, 0..1, that the picture shows enough to tell it: legs are not in a close-up."""


@dataclass(frozen=True, slots=True)
class Person:
    """A character as the probe reads it; lengths in pixels of the picture."""

    features: Mapping[Feature, FeatureReading]
    """All of `FEATURES`. Hair of a bald head has no colour: its `seen` is low then."""
    head_height: float
    """From chin to crown, without hair and hat."""
    body_height: float | None
    """From the ground to the crown, as if it stood straight whatever its pose; None unless the whole body is in view
    (full body or far)."""
    centre: tuple[float, float]
    """x, y of the middle of the seen part of the head."""
    box: Box
    """Around the seen part of the character."""
    framing: ShotType
    framing_probability: float
    score: float
    """Of the head's peak, 0..1."""

    @property
    def ratio(self) -> float | None:
        """Height of the head over that of the body, where the whole body is in view."""
        return None if self.body_height is None else self.head_height / self.body_height


class Probe:
    """Reads pictures of `MODEL_SIDE`. Deterministic on one machine."""

    def __init__(self, network: ProbeNetwork, threshold: float, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._device = device
        self.threshold = threshold
        """Least score of a head."""

    @torch.no_grad()
    def read(self, images: npt.NDArray[np.uint8], batch: int = 128) -> list[tuple[Person, ...]]:
        """Everybody in each picture, by falling score.

        Args:
            images: uint8 (n, 64, 64, 3) RGB.
            batch: pictures at once.

        Raises:
            UserError: pictures of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (MODEL_SIDE, MODEL_SIDE, 3):
            raise UserError(
                f"pictures of shape {images.shape} were given to the probe, which reads (n, {MODEL_SIDE}, {MODEL_SIDE},"
                " 3); scale them first"
            )
        found: list[tuple[Person, ...]] = []
        for k in range(0, len(images), batch):
            found += self._read(torch.from_numpy(np.ascontiguousarray(images[k : k + batch])).to(self._device))
        return found

    def _read(self, images: Tensor) -> list[tuple[Person, ...]]:
        with half_precision(self._device):
            x = to_input(images)
            heat, maps = self._network(x)
            scores, centres = peaks(heat.float())
            readings = self._network.read(x, maps, centres)
        values = _on_cpu(readings)
        return [
            _people(values, k, s, c, self.threshold)
            for k, (s, c) in enumerate(zip(scores.cpu().numpy(), centres.cpu().numpy(), strict=True))
        ]


def peaks(heat: Tensor) -> tuple[Tensor, Tensor]:
    """The `MOST` highest local maxima of heat logits (n, cells, cells): scores (n, m) and centres (n, m, 2) in pixels.

    A centre is the mean of the 3 x 3 cells around a maximum, weighted by their heat.
    """
    n, rows, columns = heat.shape
    chance = heat.sigmoid()
    highest = functional.max_pool2d(chance[:, None], 3, stride=1, padding=1)[:, 0]
    scores, index = torch.where(chance >= highest, chance, 0).flatten(1).topk(MOST)
    near = functional.unfold(functional.pad(chance[:, None], (1, 1, 1, 1)), 3).transpose(1, 2)
    weights = near[torch.arange(n, device=heat.device)[:, None], index]
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    step = torch.arange(9, device=heat.device)
    x = (index % columns) + (weights * (step % 3 - 1)).sum(dim=-1) + 0.5
    y = torch.div(index, columns, rounding_mode="floor") + (weights * (step // 3 - 1)).sum(dim=-1) + 0.5
    return scores, STRIDE * torch.stack([x.clamp(0, columns), y.clamp(0, rows)], dim=-1)


@dataclass(frozen=True, slots=True)
class _Values:
    features: list[npt.NDArray[np.float32]]
    seen: npt.NDArray[np.float32]
    framing: npt.NDArray[np.float32]
    reach: npt.NDArray[np.float32]
    head: npt.NDArray[np.float32]
    heads: npt.NDArray[np.float32]


def _on_cpu(readings: Readings) -> _Values:
    return _Values(
        [f.softmax(dim=-1).cpu().numpy() for f in readings.features], readings.seen.sigmoid().cpu().numpy(),
        readings.framing.softmax(dim=-1).cpu().numpy(), readings.reach.cpu().numpy(), readings.head.exp().cpu().numpy(),
        readings.body.exp().cpu().numpy(),
    )  # fmt: skip


def _people(
    values: _Values, k: int, scores: npt.NDArray[np.float32], centres: npt.NDArray[np.float32], threshold: float
) -> tuple[Person, ...]:
    people: list[Person] = []
    for m, score in enumerate(scores):
        if score < threshold:
            break
        person = _person(values, (k, m), float(score), (float(centres[m, 0]), float(centres[m, 1])))
        if all(distance(person.centre, other.centre) > APART * other.head_height for other in people):
            people.append(person)
    return tuple(people)


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Between two points."""
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def _person(values: _Values, at: tuple[int, int], score: float, centre: tuple[float, float]) -> Person:
    features: dict[Feature, FeatureReading] = {}
    for f, (name, options) in enumerate(FEATURES.items()):
        shares = values.features[f][at]
        best = int(shares.argmax())
        features[name] = FeatureReading(options[best], float(shares[best]), float(values.seen[at][f]))
    framing = FRAMED[int(values.framing[at].argmax())]
    left, top, right, bottom = (float(v) for v in values.reach[at])
    head = float(values.head[at])
    whole = framing in (ShotType.FULL_BODY, ShotType.FAR)
    box = Box(centre[0] - left, centre[1] - top, centre[0] + right, centre[1] + bottom).clip(MODEL_SIDE, MODEL_SIDE)
    return Person(
        features, head, head * float(values.heads[at]) if whole else None, centre, box, framing,
        float(values.framing[at].max()), score,
    )  # fmt: skip


def save_probe(folder: Path, network: ProbeNetwork, threshold: float, about: Mapping[str, Any]) -> None:
    """Write weights in half precision, and beside them the configuration, the threshold and `about`."""
    weights = {name: value.detach().half().cpu().contiguous() for name, value in network.state_dict().items()}
    description = {"network": dataclasses.asdict(network.config), "threshold": threshold, **about}
    for name, write in (
        (WEIGHTS, lambda path: save_file(weights, path)),
        (DESCRIPTION, lambda path: path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")),
    ):
        with write_aside(folder / name) as aside:
            write(aside)


def load_probe(path: Path = PROBE, device: torch.device | None = None) -> Probe:
    """The probe of a folder that `save_probe` wrote, on the processor unless told otherwise.

    Raises:
        NotFoundError: a file is missing.
    """
    for name in (WEIGHTS, DESCRIPTION):
        if not (path / name).is_file():
            raise NotFoundError(f"{path / name}: missing; train the probe by onmodel.experiments.probe_training")
    described = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    sizes: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in described["network"].items()}
    network = ProbeNetwork(NetworkConfig(**sizes))
    network.load_state_dict({name: value.float() for name, value in load_file(path / WEIGHTS).items()})
    return Probe(network, float(described["threshold"]), device or torch.device("cpu"))
