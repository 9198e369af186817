"""How large the head is for the body: measured where a character is seen from head to feet, and how far it strays.

Draughtsmen give a figure's build in head heights; children are drawn with fewer heads than adults, so one number holds
both the build and the apparent age. Here it is turned round, head over body, since a body's height is never zero.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

from onmodel.core.config import Config
from onmodel.core.vocabulary import Attribute, Decision, Detections, ShotType
from onmodel.detection.rules import behind

EDGE = 0.01
"""A box nearer to the upper or lower edge than this share of the picture's height may go on beyond it."""
ENOUGH = 3
"""References of one framing from which their median is the measure for it; with fewer, those of every framing are."""
EVERY_FRAMING = "all"


class Proportions(Config):
    """Head over body of several pictures."""

    median: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""
    count: int
    """Pictures in which it could be measured."""


def head_to_body(detections: Detections, decision: Decision) -> float | None:
    """Height of the main character's head over the height from the top of its head to its feet, 0 to 1.

    The head is the detector's face box: the whole head from hair to chin for the bundled detector, brow to chin for
    YuNet (about 1/1.6 of a head). So numbers of one detector compare with each other, not with another's. The body
    reaches from that box's upper edge down to the character's lower edge: arms held above the head do not count.

    None where that is not to be seen: no face found, the character is no full-body or far shot, the frame cuts it above
    or below, or something in front hides part of it.
    """
    if decision.main is None or decision.shot_type not in (ShotType.FULL_BODY, ShotType.FAR):
        return None
    main = detections.instances[decision.main]
    margin = EDGE * detections.height
    cut = main.box.y0 <= margin or main.box.y1 >= detections.height - margin
    hidden = Attribute.OCCLUSION in decision.attributes or behind(main.box, detections.occluders) != main.box
    if main.face is None or cut or hidden:
        return None
    body = main.box.y1 - main.face.y0
    return min(1.0, main.face.height / body) if body > 0 and main.face.height > 0 else None


def proportions_of(pictures: Sequence[tuple[str, float | None]]) -> dict[str, Proportions]:
    """Proportions by framing, and of every framing together as `all`, from (framing, head over body) of pictures."""
    known = [(framing, value) for framing, value in pictures if value is not None]
    groups = {framing: [v for f, v in known if f == framing] for framing in dict.fromkeys(f for f, _ in known)}
    groups[EVERY_FRAMING] = [v for _, v in known]
    return {name: _summary(values) for name, values in groups.items() if values}


def _summary(values: Sequence[float]) -> Proportions:
    low, middle, high = (round(float(v), 4) for v in np.quantile(values, (0.1, 0.5, 0.9)))
    return Proportions(median=middle, low=low, high=high, count=len(values))


def usual(references: dict[str, Proportions], framing: str) -> float:
    """What the references say for a framing: their median there, or over every framing; NaN where none was measured."""
    own = references.get(framing)
    found = own if own is not None and own.count >= ENOUGH else references.get(EVERY_FRAMING)
    return math.nan if found is None else found.median


def stability(measured: Sequence[tuple[float, float]]) -> float:
    """How true to the references the variations of one prompt are: 1 when each has their proportions.

    The mean over pictures of the smaller over the larger of a picture's head-to-body and the references': 0.8 is a head
    a fifth too small, or as much too large (exp of minus the absolute log ratio, so that both count alike). As each
    picture is held against one value, variations that differ from each other cannot score 1, whatever their mean.

    Args:
        measured: (head over body, the references' or NaN) of each picture. Where references say nothing, the prompt's
            own median stands for them, which measures steadiness alone.

    Returns:
        0 to 1; NaN without a picture, or with a single one and nothing to hold it against.
    """
    middle = statistics.median(value for value, _ in measured) if len(measured) > 1 else math.nan
    against = [(value, middle if math.isnan(wanted) else wanted) for value, wanted in measured]
    scores = [min(value, wanted) / max(value, wanted) for value, wanted in against if not math.isnan(wanted)]
    return statistics.fmean(scores) if scores else math.nan
