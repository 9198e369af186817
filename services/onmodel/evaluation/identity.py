"""Is it our character? Similarity to reference pictures, put on a scale where strangers are 0 and genuine pairs are 1.

Raw CLIP cosines of any two pictures of a kind are high and depend on framing, so a bare number says nothing. Here
"0" is what other pictures of the same framing score (by default what the base model draws for the same prompts) and
"1" what a reference picture scores against the other references of its framing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onmodel.core.cutouts import grey_boxes
from onmodel.core.errors import ImageError, UserError
from onmodel.core.images import RGB, encode_png
from onmodel.core.vocabulary import Box
from onmodel.evaluation.observe import Embedding, Looking, Seen
from onmodel.scoring.metrics import calibrate, cosines

STRANGER = 0.5
"""Calibrated identity below which a character is nearer to strangers than to the references."""
RECOGNISED = 0.85
"""Calibrated identity from which a character surely counts as ours. Half-like ones lie between the two: of 0.5 to 0.95
the bound that agrees with the truth of pictures and says their true share (docs/experiment.md)."""
UNUSUAL = 0.05
"""Share of the references that may lie below the bound, which gives way where genuine pictures are less alike."""
ENOUGH = 4
"""References and strangers of one framing from which it gets a scale of its own."""
NEAREST_SHARE = 4
"""A picture is compared with its nearest quarter of the references: a profile is not blamed for not being frontal."""
SMALLEST_GAP = 1e-3
"""Cosines of strangers and genuine pairs nearer than this cannot be told apart."""
MOST_MASKED = 12
"""References and strangers that are masked and embedded again for each partly hidden picture."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scale:
    """Where strangers and genuine pictures lie, as raw cosines, and how well they can be told apart."""

    impostor: float
    genuine: float
    separation: float
    """Chance that a genuine picture scores above a stranger's (area under the ROC curve), 0.5 is a coin."""
    references: int
    impostors: int


def near(embedding: Rows, references: Rows) -> float:
    """Mean cosine (D,) to the nearest quarter of `references` (n, D)."""
    similar = np.sort(cosines(embedding[None], references)[0])
    return float(similar[-max(1, math.ceil(similar.size / NEAREST_SHARE)) :].mean())


def _among(references: Rows) -> npt.NDArray[np.float64]:
    """How near each of `references` (n, D) is to the others, (n,)."""
    return np.array([near(r, np.delete(references, n, axis=0)) for n, r in enumerate(references)])


def scale_of(references: Rows, strangers: Rows) -> Scale | None:
    """The scale of references (n, D) and strangers (m, D); None with fewer than two references or no stranger."""
    if len(references) < 2 or len(strangers) < 1:
        return None
    genuine = _among(references)
    impostor = np.array([near(s, references) for s in strangers])
    wins = (genuine[:, None] > impostor[None]).mean() + 0.5 * (genuine[:, None] == impostor[None]).mean()
    return Scale(float(impostor.mean()), float(genuine.mean()), float(wins), len(references), len(strangers))


def place(raw: float, scale: Scale | None) -> float:
    """`raw` on the scale; NaN where there is no scale or it is too short to mean anything.

    Not cut off at 0 and 1, which would bias means; cut off at -1 and 2, so that one odd picture does not rule them.
    """
    if scale is None or scale.genuine - scale.impostor < SMALLEST_GAP:
        return math.nan
    placed = calibrate(np.array([raw]), impostor=scale.impostor, genuine=scale.genuine)[0]
    return float(np.clip(placed, -1.0, 2.0))


@dataclass(frozen=True)
class Gallery:
    """Reference pictures of the character and pictures of strangers, as seen."""

    references: tuple[Seen, ...]
    strangers: tuple[Seen, ...]

    def framing(self, framing: str) -> tuple[list[Seen], list[Seen]]:
        """References and strangers of that framing; of every framing where there are not enough of one."""
        own = [s for s in self.references if s.framing == framing]
        other = [s for s in self.strangers if s.framing == framing]
        return (
            own if len(own) >= ENOUGH else list(self.references),
            other if len(other) >= ENOUGH and len(own) >= ENOUGH else list(self.strangers),
        )


def gallery(references: Sequence[Seen | ImageError], strangers: Sequence[Seen | ImageError]) -> Gallery:
    """Keep what can be compared: pictures with a character, references preferably with it alone.

    Raises:
        UserError: fewer than two references or no stranger with a character in it.
    """
    own = [s for s in references if isinstance(s, Seen) and s.crops]
    alone = [s for s in own if s.characters == 1]
    own = alone if len(alone) >= ENOUGH else own
    other = [s for s in strangers if isinstance(s, Seen) and s.crops]
    if len(own) < 2:
        raise UserError(
            f"{len(own)} reference pictures with a character found; give --references a folder with more of them"
        )
    if not other:
        raise UserError("no picture of another character to compare with; give --impostors a folder of some")
    return Gallery(tuple(own), tuple(other))


class Identity:
    """Calibrated identity of characters against one gallery."""

    def __init__(self, known: Gallery) -> None:
        self.gallery = known
        self._scales: dict[tuple[str, str], tuple[Rows, Scale | None]] = {}

    def _scale(self, framing: str, kind: str, pick: Callable[[Seen], Embedding | None]) -> tuple[Rows, Scale | None]:
        if (framing, kind) not in self._scales:
            own, other = self.gallery.framing(framing)
            rows = _stack([pick(s) for s in own])
            self._scales[framing, kind] = (rows, scale_of(rows, _stack([pick(s) for s in other])))
        return self._scales[framing, kind]

    @property
    def scale(self) -> Scale | None:
        """The scale over every framing together, for the record."""
        return scale_of(
            _stack([s.crops[0] for s in self.gallery.references]), _stack([s.crops[0] for s in self.gallery.strangers])
        )

    @cached_property
    def recognised(self) -> float:
        """Identity from which a character counts as ours: `RECOGNISED`, or what all but `UNUSUAL` of the references
        reach among themselves where that is less, but never below `STRANGER`.
        """
        reached: list[float] = []
        for framing in sorted({s.framing for s in self.gallery.references}):
            rows, scale = self._scale(framing, "crop", lambda s: s.crops[0])
            own, _ = self.gallery.framing(framing)
            reached += [place(v, scale) for s, v in zip(own, _among(rows), strict=True) if s.framing == framing]
        known = [value for value in reached if not math.isnan(value)]
        usual = float(np.quantile(known, UNUSUAL)) if known else RECOGNISED
        return float(np.clip(usual, STRANGER, RECOGNISED))

    def characters(self, seen: Seen) -> list[float]:
        """Identity of each character in a picture, the main one first; empty where none was found."""
        rows, scale = self._scale(seen.framing, "crop", lambda s: s.crops[0])
        return [place(near(crop, rows), scale) for crop in seen.crops]

    def centre(self, seen: Seen, which: int = 0) -> float:
        """Identity of a character with its surroundings greyed out, against references treated alike."""
        rows, scale = self._scale(seen.framing, "centre", lambda s: s.parts[0].centre)
        centre = seen.parts[which].centre if seen.parts else None
        return math.nan if centre is None else place(near(centre, rows), scale)

    def visible(self, seen: Sequence[tuple[Seen, int]], services: Looking) -> list[float]:
        """Identity of what nothing hides of a character in each picture, against references hidden alike.

        Args:
            seen: pictures with a character, each with that character's position in it.
        """
        batch: list[bytes] = []
        spans: list[tuple[int, int]] = []
        for picture, which in seen:
            hidden = picture.parts[which].hidden
            own, other = self.gallery.framing(picture.framing) if hidden else ([], [])
            own, other = own[:MOST_MASKED], other[:MOST_MASKED]
            crops = [s.parts[0].crop for s in (*own, *other)]
            batch += [_hide(crop, hidden) for crop in crops if crop is not None]
            spans.append((len(own), len(other)))
        embedded = services.scoring.embed_images(batch) if batch else []
        values: list[float] = []
        start = 0
        for (picture, which), (own, other) in zip(seen, spans, strict=True):
            part = embedded[start : start + own + other]
            start += own + other
            if not picture.parts[which].hidden:
                values.append(self.characters(picture)[which])
                continue
            rows, strangers = _good(part[:own]), _good(part[own:])
            shown = picture.parts[which].visible
            values.append(math.nan if shown is None else place(near(shown, rows), scale_of(rows, strangers)))
        return values


def _hide(crop: RGB, hidden: Sequence[Box]) -> bytes:
    return encode_png(grey_boxes(crop, hidden))


def _good(items: Sequence[Embedding | ImageError]) -> Rows:
    return _stack([i for i in items if not isinstance(i, ImageError)])


def _stack(rows: Sequence[Embedding | None]) -> Rows:
    good = [r for r in rows if r is not None]
    return np.stack(good) if good else np.zeros((0, 1), dtype=np.float32)
