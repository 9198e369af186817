"""Which clusters show a character that is known by references, by the likeness that extraction goes by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onmodel.core.errors import OnModelError
from onmodel.core.files import content_hash, file_hash, user_cache, write_text
from onmodel.core.images import SUFFIXES, decode
from onmodel.core.vocabulary import Box, ShotType
from onmodel.dataset.folder import Picture
from onmodel.dataset.mix import spread
from onmodel.film.identity import IdentityConfig, crop_of, likeness, load_character, signature, threshold
from onmodel.film.look import Look

if TYPE_CHECKING:
    from onmodel.film.cluster import Looking

ASKED = 12
"""Members of a cluster, evenly over it, whose likeness to the references is asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One member of a cluster."""

    picture: Picture
    box: Box
    occluders: tuple[Box, ...]
    shot: ShotType
    """Of the picture, where the member is its main character."""


def alike(clusters: Mapping[int, Sequence[Asked]], folders: Sequence[Path], models: "Looking") -> dict[int, int]:
    """Clusters that extraction would take for a reference's character: cluster -> index of the folder.

    A scorer that does not know a film's world parts a character by place and pose, so that the references lie near one
    part alone. Likeness by colours and crop, with its threshold for each framing, holds across parts (see `identity`):
    a cluster is the character's where the median of its members passes. Answers are remembered in the user's cache.

    Raises:
        UserError: a folder has no readable picture, or shows two characters.
    """
    if not clusters or not folders:
        return {}
    picked = {c: [members[place] for place in spread(ASKED, len(members))] for c, members in clusters.items()}
    remembered = user_cache() / "naming" / f"{_key(picked, folders, models)}.json"
    try:
        known = json.loads(remembered.read_text(encoding="utf-8"))
        return {int(cluster): int(owner) for cluster, owner in known.items()}
    except (OSError, ValueError, AttributeError):
        found = _ask(picked, folders, models.look)
    try:
        write_text(remembered, json.dumps(found))
    except (OSError, OnModelError):
        return found  # only the next run is slower for it
    return found


def _key(picked: Mapping[int, Sequence[Asked]], folders: Sequence[Path], models: "Looking") -> str:
    parts = [*models.detector, models.scorer, IdentityConfig().model_dump_json()]
    for folder in folders:
        parts += ["folder", *(file_hash(f) for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES)]
    for cluster, members in picked.items():
        parts += [str(cluster), *(f"{m.picture.hash} {m.box} {m.occluders} {m.shot}" for m in members)]
    return content_hash("\0".join(parts).encode())


def _ask(picked: Mapping[int, Sequence[Asked]], folders: Sequence[Path], look: Look) -> dict[int, int]:
    config = IdentityConfig()
    characters = [load_character(folder, look, config) for folder in folders]
    found: dict[int, int] = {}
    for number, members in picked.items():
        parts = [(decode(m.picture.bytes(), str(m.picture.path)), m.box, m.occluders) for m in members]
        embedded = look.embed([crop_of(*each) for each in parts])
        colours = np.stack([signature(*each) for each in parts])
        above = [
            float(np.median(likeness(embedded, colours, c, config) - [threshold(c, m.shot, config) for m in members]))
            for c in characters
        ]
        if max(above) >= 0:
            found[number] = int(np.argmax(above))
    return found
