"""Shot types and attributes of 500 new renders by the bundled detector, against the renderer's truth.

The seeds are used nowhere else: neither to train the detector nor to choose thresholds.
"""

import numpy as np
from confusion import Answer, print_confusion, report

from onmodel.detection.config import DetectorConfig
from onmodel.detection.model import load_detector
from onmodel.detection.rules import decide
from onmodel.toybox.dataset import Shares, plan, scene_for
from onmodel.toybox.render import render

SEED = 20_260_131
PICTURES = 500
MIX = Shares(0.25, 0.25, 0.25, 0.15, 0.25, 0.25, 0.5)


def main() -> None:
    """Render, detect, decide, count."""
    config = DetectorConfig.preset("toybox")
    detector = load_detector(config)
    answers: list[Answer] = []
    for k, item in enumerate(plan(PICTURES, MIX, np.random.default_rng([SEED, 0]))):
        made = render(scene_for(item, np.random.default_rng([SEED, 1, k])), 96)
        (found,) = detector.detect([made.image])
        said = decide(made.image, found, config.shots)
        truth = made.truth
        answers.append(
            Answer(
                truth.shot_type,
                said.shot_type,
                frozenset(a.value for a in truth.attributes),
                frozenset(a.value for a in said.attributes),
            )
        )
    print_confusion(answers)
    report("toybox", answers, 95, 90)


if __name__ == "__main__":
    main()
