"""Where the bundled models lie, and whether they are the ones that were committed.

`python -m onmodel.toybox.models` writes the list of their hashes anew; to be run when a model is replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from onmodel.core.errors import NotFoundError
from onmodel.core.files import file_hash, write_text

ModelName = Literal["diffusion", "clip", "detector", "pose"]
MODELS: Final[Path] = Path(__file__).parent / "models"
SUMS: Final[Path] = MODELS / "SHA256SUMS"
"""A line a file, `hash  path`, as sha256sum writes and checks it."""
_WEIGHTS: Final[dict[str, str]] = {"detector": "detector/toybox.pt", "pose": "detector/toybox-pose.pt"}
"""Models that are one file."""
MODEL_SIDE: Final[int] = 64
"""Side in pixels of what the bundled pipeline draws: 16 x 16 latents, 4 x smaller."""


def bundled(name: ModelName) -> Path:
    """The path of a bundled model, ready for its own loader.

    "diffusion" is a diffusers folder (`StableDiffusionPipeline`), "clip" an open_clip folder (`local-dir:` schema),
    "detector" and "pose" are ultralytics weights files.

    Raises:
        NotFoundError: the model is not there, e.g. in an installation stripped of its data files.
    """
    path = MODELS / _WEIGHTS.get(name, name)
    if not path.exists():
        raise NotFoundError(
            f"{path}: the bundled model is missing; reinstall onmodel or run the toybox training scripts"
        )
    return path


def files() -> list[Path]:
    """All files of the bundled models, sorted."""
    others = (SUMS, MODELS / "README.md")
    return sorted(path for path in MODELS.rglob("*") if path.is_file() and path not in others)


def sums() -> str:
    """What SUMS should hold."""
    return "".join(f"{file_hash(path)}  {path.relative_to(MODELS).as_posix()}\n" for path in files())


def differing() -> list[str]:
    """Files that SUMS names and that are missing or other than they were, by their path below MODELS.

    Raises:
        NotFoundError: SUMS itself is missing.
    """
    if not SUMS.is_file():
        raise NotFoundError(f"{SUMS}: the list of the bundled models' hashes is missing; reinstall onmodel")
    listed = [line.split("  ", 1) for line in SUMS.read_text(encoding="utf-8").splitlines()]
    return [name for known, name in listed if not (MODELS / name).is_file() or file_hash(MODELS / name) != known]


if __name__ == "__main__":
    write_text(SUMS, sums())
