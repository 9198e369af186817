"""A contact sheet: renders that training never saw beside what the bundled pipeline draws for the same captions.

    python -m onmodel.toybox.sheet FILE.png

One row a shot type; left the renders, right the samples, in the same order.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from onmodel.core.images import RGB
from onmodel.toybox import training_set
from onmodel.toybox.measure import SEED
from onmodel.toybox.models import MODEL_SIDE, bundled
from onmodel.toybox.render import render
from onmodel.toybox.scene import FRAMED, random_scene
from onmodel.toybox.wording import describe

COLUMNS: Final[int] = 6
SHOWN_SIDE: Final[int] = 96
GAP: Final[int] = 24


def enlarge(image: RGB) -> RGB:
    """A picture at the side that the sheet shows it at."""
    return np.asarray(Image.fromarray(image).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC))


def sheet(columns: int = COLUMNS, steps: int = 25) -> RGB:
    """The whole sheet as uint8 RGB (height, width, 3)."""
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(bundled("diffusion"))
    pipeline.set_progress_bar_config(disable=True)
    rows: list[RGB] = []
    for number, shot in enumerate(FRAMED):
        captions: list[str] = []
        renders: list[RGB] = []
        for column in range(columns):
            rng = np.random.default_rng([SEED, 7, number, column])
            # The last columns show company, something in front and a busy place.
            scene = random_scene(
                rng,
                shot_type=shot,
                multi_character=column == columns - 3,
                occlusion=column == columns - 2,
                complex_background=column == columns - 1,
            )
            renders.append(render(scene, SHOWN_SIDE).image)
            captions.append(describe(scene, rng, keep=1.0))
        generators = [torch.Generator().manual_seed(SEED + column) for column in range(columns)]
        drawn = pipeline(captions, num_inference_steps=steps, guidance_scale=4.0, generator=generators).images
        samples = [np.asarray(image.resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC)) for image in drawn]
        small = training_set.shrink(np.stack(renders), MODEL_SIDE)
        shown = [
            np.asarray(Image.fromarray(i).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC)) for i in small
        ]
        space = np.full((SHOWN_SIDE, GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([*shown, space, *samples], axis=1))
    return np.concatenate(rows)


if __name__ == "__main__":
    Image.fromarray(sheet()).save(Path(sys.argv[1]), optimize=True)
