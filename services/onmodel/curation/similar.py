"""Which pictures are alike: near-duplicates in stacks, and the nearest of one picture. Pure functions over arrays."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onmodel.core.likeness import NEAR_DUPLICATE_BITS

Fingerprints = npt.NDArray[np.uint64]
"""uint64 (count,): perceptual hashes of `core.likeness`."""
Floats = npt.NDArray[np.float32]
_BITS = 64


def stack(fingerprints: Fingerprints, sharpness: Floats, groups: Sequence[str]) -> list[list[int]]:
    """Near-duplicates of one group put together, the sharpest first in each; only stacks of two and more.

    The sharpest picture gathers all within `NEAR_DUPLICATE_BITS` of itself, then the sharpest of the rest, and so on:
    every member is near the first, so a slow pan does not chain into one stack.

    Args:
        fingerprints: uint64 (count,).
        sharpness: float32 (count,).
        groups: names of the groups, one a picture.
    """
    _, numbered = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    # Stable, so that equal pictures stay in the order of the folder.
    order = np.argsort(-sharpness, kind="stable")
    free = np.ones(len(fingerprints), dtype=np.bool_)
    stacks: list[list[int]] = []
    for leader in order.tolist():
        if not free[leader]:
            continue
        near = np.bitwise_count(fingerprints ^ fingerprints[leader]) <= NEAR_DUPLICATE_BITS
        near &= free & (numbered == numbered[leader])
        free &= ~near
        free[leader] = False
        members = [at for at in np.flatnonzero(near).tolist() if at != leader]
        if members:
            stacks.append([leader, *sorted(members, key=lambda at: (-sharpness[at], at))])
    return stacks


def nearest_by_fingerprint(fingerprints: Fingerprints, query: int) -> Floats:
    """Likeness of each picture to the fingerprint `query`: 1 for equal, 0 for all bits different. float32 (count,)."""
    differing = np.bitwise_count(fingerprints ^ np.uint64(query))
    return (1.0 - differing / _BITS).astype(np.float32)


def nearest_by_vector(vectors: Floats, query: Floats) -> Floats:
    """Cosine of each row of `vectors` (float32 (count, width), unit length) with `query`. float32 (count,)."""
    return (vectors @ query).astype(np.float32)


def best(likeness: Floats, count: int) -> list[int]:
    """Indices of the `count` highest values, highest first; equal ones in order."""
    return np.argsort(-likeness, kind="stable")[:count].tolist()
