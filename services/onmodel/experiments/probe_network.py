"""The probe's network: a heatmap of heads, and at each head what can be read of its owner.

Heads are found as peaks of a heatmap, as in CenterNet (Zhou et al., "Objects as Points", 2019). What is read of one is
computed for its centre alone: from the maps of three levels sampled there, from what attention gathers from the whole
picture, since legs lie far from the head, and from two glimpses of the pixels, of the head and of the body, scaled by
the head's height as it is first guessed, so that small figures are read as large ones are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from onmodel.experiments.probe_pictures import FEATURES
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.scene import FRAMED

STRIDE: Final[int] = 2
"""Pixels a cell of the heatmap."""
CELLS: Final[int] = MODEL_SIDE // STRIDE
SIZES: Final[tuple[int, ...]] = tuple(len(values) for values in FEATURES.values())
OUTPUTS: Final[int] = sum(SIZES) + len(SIZES) + len(FRAMED) + 6


GLIMPSE: Final[int] = 32
"""Cells a side of a glimpse."""
Window = tuple[float, float, float]
"""How far a glimpse reaches from the centre to both sides, up and down, in heads."""
HEAD_WINDOW: Final[Window] = (1.1, 1.2, 1.0)
BODY_WINDOW: Final[Window] = (2.0, 1.2, 4.8)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Widths of the levels, at 32, 16, 8 and 4 cells a side."""

    channels: tuple[int, int, int, int] = (48, 80, 112, 128)
    glimpse: tuple[int, int, int, int] | None = (32, 64, 96, 128)
    """Widths of the levels of a glimpse, at 32, 16, 8 and 4 cells a side; None reads without glimpses."""
    reader: int = 256
    """Width of what is computed for one head."""
    heads: int = 4
    """Of attention."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What the network says of m heads in each of n pictures."""

    features: tuple[Tensor, ...]
    """(n, m, values) logits, one of each of `FEATURES`."""
    seen: Tensor
    """(n, m, features) logits: whether the feature can be told."""
    framing: Tensor
    """(n, m, 4) logits in the order of `FRAMED`."""
    reach: Tensor
    """(n, m, 4): from the centre to the box's left, top, right and bottom side, in pixels."""
    head: Tensor
    """(n, m) logarithm of the head's height in pixels."""
    guess: Tensor
    """(n, m) the same as guessed before the glimpses."""
    body: Tensor
    """(n, m) logarithm of the body's height in heads."""


class _Block(nn.Module):
    """Two convolutions with a way around them."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, width_in), nn.GroupNorm(8, width)])
        self.around = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(functional.silu(self.norms[0](x)))
        y = self.second(functional.silu(self.norms[1](y)))
        return self.around(x) + y


class _Glimpse(nn.Module):
    """A window of the picture around each head, as a vector."""

    def __init__(self, widths: tuple[int, int, int, int], out: int, window: Window) -> None:
        super().__init__()
        a, b, c, d = widths
        self._window = window
        self.stem = nn.Conv2d(7, a, 3, padding=1)
        self.blocks = nn.ModuleList([_Block(a, a), _Block(a, b), _Block(b, c), _Block(c, d)])
        self.narrow = nn.Conv2d(d, 64, 1)
        self.out = nn.Linear(64 * (GLIMPSE // 8) ** 2, out)

    def forward(self, images: Tensor, centres: Tensor, heads: Tensor) -> Tensor:
        """(n, m, out) of pictures (n, 3, side, side), centres (n, m, 2) and heights of heads (n, m), both in pixels."""
        n, m = heads.shape
        line = (torch.arange(GLIMPSE, device=images.device) + 0.5) * (2 / GLIMPSE) - 1
        across, up, down = self._window
        x = centres[..., :1] + heads[..., None] * across * line
        y = centres[..., 1:] + heads[..., None] * (0.5 * (down - up) + 0.5 * (down + up) * line)
        shape = (n, m, GLIMPSE, GLIMPSE)
        grid = torch.stack([x[:, :, None].expand(shape), y[..., None].expand(shape)], dim=-1)
        grid = (grid / (MODEL_SIDE / 2) - 1).view(n, m * GLIMPSE, GLIMPSE, 2)
        # Coarse pixels beside fine ones: a large head has more pixels than the window has cells.
        both = torch.cat([images, _twice(functional.avg_pool2d(images, 2)), torch.ones_like(images[:, :1])], dim=1)
        seen = functional.grid_sample(both.float(), grid.float(), padding_mode="zeros", align_corners=False)
        z = self.stem(seen.view(n, 7, *shape[1:]).transpose(1, 2).reshape(n * m, 7, GLIMPSE, GLIMPSE))
        for k, block in enumerate(self.blocks):
            z = block(z if k == 0 else functional.avg_pool2d(z, 2))
        return self.out(functional.silu(self.narrow(z)).flatten(1)).view(n, m, -1)


class ProbeNetwork(nn.Module):
    """Pictures float (n, 3, side, side) in -1..1 to maps; maps and centres to `Readings`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        a, b, c, d = config.channels
        self.config = config
        self.stem = nn.Conv2d(3, a, 5, stride=2, padding=2)
        self.down = nn.ModuleList([_Block(a, a), _Block(a, b), _Block(b, c), _Block(c, d), _Block(d, d)])
        self.up = nn.ModuleList([_Block(d + c, c), _Block(c + b, b), _Block(b + a, a)])
        self.heat = nn.Sequential(nn.Conv2d(a, a, 3, padding=1), nn.SiLU(), nn.Conv2d(a, 1, 1))
        width = config.reader
        self.query = nn.Linear(a + b + c + 4, width)
        self.keys = nn.Conv2d(b, 2 * width, 1)
        self.place = nn.Parameter(torch.zeros(1, 2 * width, MODEL_SIDE // 4, MODEL_SIDE // 4))
        self.gathered = nn.Linear(width, width)
        self.read_out = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU(),
            nn.Linear(width, OUTPUTS),
        )  # fmt: skip
        if config.glimpse is not None:
            self.guess = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
            self.glimpses = nn.ModuleList(_Glimpse(config.glimpse, width, w) for w in (HEAD_WINDOW, BODY_WINDOW))
        nn.init.normal_(self.place, std=0.02)
        last: Any = self.heat[2]
        # Heads are rare: start from a low chance everywhere (focal loss, Lin et al. 2017).
        nn.init.constant_(last.bias, -math.log((1 - 0.02) / 0.02))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Heat logits (n, cells, cells), and the maps of 32, 16 and 8 cells."""
        x = self.stem(x)
        at32 = self.down[0](x)
        at16 = self.down[1](functional.avg_pool2d(at32, 2))
        at8 = self.down[2](functional.avg_pool2d(at16, 2))
        x = self.down[4](self.down[3](functional.avg_pool2d(at8, 2)))
        at8 = self.up[0](torch.cat([_twice(x), at8], dim=1))
        at16 = self.up[1](torch.cat([_twice(at8), at16], dim=1))
        at32 = self.up[2](torch.cat([_twice(at16), at32], dim=1))
        return self.heat(at32)[:, 0], (at32, at16, at8)

    def read(
        self, images: Tensor, maps: tuple[Tensor, Tensor, Tensor], centres: Tensor, heads: Tensor | None = None
    ) -> Readings:
        """What is read of pictures at centres (n, m, 2), x and y in pixels; heights of heads (n, m) in pixels scale the
        glimpses, else the network's own guess does."""
        n, m = centres.shape[:2]
        at = centres / (MODEL_SIDE / 2) - 1
        # In single precision: half a pixel is what half precision would round coordinates to.
        found = [
            functional.grid_sample(level.float(), at[:, :, None].float(), padding_mode="border", align_corners=False)
            for level in maps
        ]
        wave = torch.cat([torch.sin(math.pi * at), torch.cos(math.pi * at)], dim=-1)
        local = torch.cat([f[..., 0].transpose(1, 2) for f in found] + [wave], dim=-1)
        query = self.query(local)
        keys, values = (self.keys(maps[1]) + self.place).flatten(2).transpose(1, 2).chunk(2, dim=-1)

        def split(t: Tensor) -> Tensor:
            return t.to(query.dtype).reshape(n, -1, self.config.heads, t.shape[-1] // self.config.heads).transpose(1, 2)

        gathered = functional.scaled_dot_product_attention(split(query), split(keys), split(values))
        gathered = self.gathered(gathered.transpose(1, 2).reshape(n, m, -1))
        known, guess = query + gathered, torch.full((n, m), 2.0, device=images.device)
        base = guess
        if self.config.glimpse is not None:
            guess = guess + self.guess(known)[..., 0].float()
            # A head between one pixel and more than the whole picture.
            shown = guess.detach().clamp(0, 4.5).exp() if heads is None else heads
            for glimpse in self.glimpses:
                known = known + glimpse(images, centres, shown)
            # The final height is told against the glimpse, which shows the head as large as it was taken to be.
            base = shown.log()
        out: Tensor = self.read_out(known).float()
        parts = out.split([*SIZES, len(SIZES), len(FRAMED), 4, 1, 1], dim=-1)
        features, (seen, framing, reach, head, body) = parts[: len(SIZES)], parts[len(SIZES) :]
        height = base + head[..., 0]
        return Readings(features, seen, framing, 16 * functional.softplus(reach), height, guess, body[..., 0] + 1.3)


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def build(config: NetworkConfig, seed: int = 0) -> ProbeNetwork:
    """An untrained network, deterministic in the seed."""
    torch.manual_seed(seed)
    return ProbeNetwork(config)


def to_input(images: Tensor) -> Tensor:
    """uint8 (n, side, side, 3) RGB to float (n, 3, side, side) in -1..1, on the same device."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()
