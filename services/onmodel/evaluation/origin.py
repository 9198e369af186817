"""What a test picture depends on, as its PNG text keeps it, and fingerprints of base models."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

TEXT_KEY = "onmodel"
"""Key of the PNG text chunk that holds a picture's origin as JSON."""
_NAMES = ("base", "vae", "lora", "onmodel", "key")
"""What stands beside the origin in the text: names for a person, on which the picture does not depend."""


def key_of(origin: Mapping[str, Any]) -> str:
    """SHA-256 of an origin, as planned or as read back: equal keys mean the same picture."""
    rest = {name: value for name, value in origin.items() if name not in _NAMES}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def fingerprint(base: str, vae: str | None = None) -> str:
    """64 hex digits for a base model: of its files' names, sizes, beginnings and ends, or of a hub id's name.

    With an autoencoder in place of its own, of both. A whole hash of several gigabytes would take longer than many a
    run; beginnings hold the tensors' names, ends hold weights.
    """
    if vae is not None:
        return hashlib.sha256(f"{fingerprint(base)} {fingerprint(vae)}".encode()).hexdigest()
    path = _bundled() if base == "toybox" else Path(base)
    digest = hashlib.sha256()
    if not path.exists():
        digest.update(base.encode())
        return digest.hexdigest()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_file() else file.relative_to(path)}\0{size}\0".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            stream.seek(max(0, size - (1 << 20)))
            digest.update(stream.read(1 << 20))
    return digest.hexdigest()


def _bundled() -> Path:
    from onmodel.toybox.models import bundled

    return bundled("diffusion")


def read_origin(path: Path) -> dict[str, Any] | None:
    """What a picture's PNG text says of it, or None where it is no picture of ours or is damaged."""
    try:
        with Image.open(path) as image:
            image.load()
            text = image.info.get(TEXT_KEY)
        value = json.loads(text) if isinstance(text, str) else None
    except (OSError, SyntaxError, UnidentifiedImageError, ValueError):
        return None
    return value if isinstance(value, dict) else None
