"""One picture of each: exact copies over several sets first, then those that look nearly the same."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onmodel.dataset.pool import Entry, Look

SAME = "the same file"
"""Why an exact copy is left out."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A picture that is left out because another stands for it."""

    entry: Entry
    kept: Entry
    bits: int | None
    """In how many of 64 bits their fingerprints differ; None for an exact copy."""

    @property
    def why(self) -> str:
        """One clause for a person."""
        return SAME if self.bits is None else f"looks the same ({self.bits} of 64 bits differ)"


def exact(entries: Sequence[Entry]) -> tuple[list[Entry], list[Duplicate]]:
    """One entry for each content: that of the first set that has it, with all that is known of any of its copies."""
    copies: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        copies[entry.hash].append(entry)
    kept: list[Entry] = []
    dropped: list[Duplicate] = []
    for first, *others in copies.values():
        kept.append(_informed(first, others))
        dropped += [Duplicate(entry, kept[-1], None) for entry in others]
    return kept, dropped


def _informed(entry: Entry, others: Sequence[Entry]) -> Entry:
    """`entry` with what is known of its copies: each thing from the first that has it, its own before others."""
    copies = (entry, *others)
    said = next((one for one in copies if one.label is not None), entry)
    told = next((one for one in copies if one.shot is not None), entry)
    written = next((one for one in copies if one.picture.caption), entry)
    like = next((one for one in copies if one.identity is not None), entry)
    decided = {key: getattr(said.row, key) for key in ("shot_type", "attributes", "reason")}
    return replace(
        entry,
        picture=replace(entry.picture, caption=written.picture.caption, variants=written.picture.variants),
        row=entry.row.model_copy(update=decided),
        label=said.label,
        before={**told.before, **entry.before},
        identity=like.identity,
        scale=like.scale,
    )


def near(
    entries: Sequence[Entry], looks: Mapping[str, Look], qualities: Sequence[float], bits: int
) -> tuple[list[int], list[Duplicate]]:
    """Positions of the pictures kept, ascending, and the near-duplicates left out.

    The best picture comes first and takes the place of all within `bits` of it, so what is left out is always near to
    what is kept, never only to something else that was left out.

    Args:
        entries: pictures of different content.
        looks: by content hash.
        qualities: of each entry; of equal ones the first in order counts as better.
        bits: greatest difference of fingerprints; negative keeps everything.
    """
    order = sorted(range(len(entries)), key=lambda index: (-qualities[index], index))
    heads = np.zeros(len(entries), dtype=np.uint64)
    kept: list[int] = []
    dropped: list[Duplicate] = []
    for index in order:
        own = np.uint64(looks[entries[index].hash].fingerprint)
        apart = np.bitwise_count(heads[: len(kept)] ^ own)
        nearest = int(np.argmin(apart)) if kept else -1
        if nearest >= 0 and int(apart[nearest]) <= bits:
            dropped.append(Duplicate(entries[index], entries[kept[nearest]], int(apart[nearest])))
            continue
        heads[len(kept)] = own
        kept.append(index)
    return sorted(kept), dropped
