"""Where the bundled models lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from onmodel.core.errors import NotFoundError

ModelName = Literal["diffusion", "clip", "detector"]
MODELS: Final[Path] = Path(__file__).parent / "models"
MODEL_SIDE: Final[int] = 64
"""Side in pixels of what the bundled pipeline draws: 16 x 16 latents, 4 x smaller."""


def bundled(name: ModelName) -> Path:
    """The path of a bundled model, ready for its own loader.

    "diffusion" is a diffusers folder (`StableDiffusionPipeline`), "clip" an open_clip folder (`local-dir:` schema),
    "detector" an ultralytics weights file.

    Raises:
        NotFoundError: the model is not there, e.g. in an installation stripped of its data files.
    """
    path = MODELS / name / "toybox.pt" if name == "detector" else MODELS / name
    if not path.exists():
        raise NotFoundError(
            f"{path}: the bundled model is missing; reinstall onmodel or run the toybox training scripts"
        )
    return path
