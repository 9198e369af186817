"""How good the bundled pose model is, on pictures and characters that it was not trained on.

    python -m onmodel.experiments.pose [PICTURES]

Prints one JSON object; the model card quotes it.
"""

import json
import sys
from typing import Final

import numpy as np

from onmodel.core.vocabulary import Instance, Keypoint
from onmodel.film.poses import PoseModel, name_pose
from onmodel.toybox.measure import SEED
from onmodel.toybox.render import body_points, render
from onmodel.toybox.scene import FRAMED, random_scene

NEAR: Final[float] = 0.1
"""A point is right within this share of the larger side of its character's box (PCK, Yang and Ramanan 2013)."""


def pose(count: int) -> dict[str, float]:
    """Body points of characters whose box is known: how many are found, and where their points and poses are right.

    Points outside the picture are left out of all figures. A pose is judged by the name that the true points give it.
    """
    model = PoseModel("toybox-pose")
    right: dict[int, list[bool]] = {1: [], 2: []}
    distance: list[float] = []
    people = found = named = agreed = 0
    for k in range(count):
        scene = random_scene(np.random.default_rng([SEED, k]), shot_type=FRAMED[k % len(FRAMED)])
        drawn = render(scene)
        pairs = zip(drawn.truth.characters, body_points(scene, drawn.truth.size), strict=True)
        seen = [(who.visible_box, points) for who, points in pairs if who.visible_box and who.visible_pixels >= 8]
        told = model.points(drawn.image, [Instance(box, 1.0, "character") for box, _ in seen])
        for (box, true), answer in zip(seen, told, strict=True):
            people += 1
            found += bool(answer)
            if not answer:
                continue
            off = np.hypot(*(np.array([(p.x, p.y) for p in answer]) - true[:, :2]).T) / max(box.width, box.height)
            for level, values in right.items():
                values += [bool(near) for near in off[true[:, 2] == level] <= NEAR]
            distance += off[true[:, 2] == 2].tolist()
            name = name_pose([Keypoint(x, y, float(level > 0)) for x, y, level in true.tolist()])
            if name is not None:
                named += 1
                agreed += name_pose(answer) == name
    return {
        "pictures": count,
        "characters": people,
        "found": round(found / people, 4),
        "seen_points_right": round(float(np.mean(right[2])), 4),
        "hidden_points_right": round(float(np.mean(right[1])), 4),
        "median_distance_of_seen_points": round(float(np.median(distance)), 4),
        "named_poses": named,
        "pose_right": round(agreed / max(1, named), 4),
    }


if __name__ == "__main__":
    print(json.dumps(pose(int(sys.argv[1]) if len(sys.argv) > 1 else 100), indent=2))
