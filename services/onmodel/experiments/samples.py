"""How like renders the bundled pipeline's pictures are, and whether they show what their captions ask for.

    python -m onmodel.experiments.samples [PICTURES]

Prints one JSON object; the bundled models' card quotes it. Likeness is measured on the product's scorer, attributes by
the probe, which has nothing in common with the product.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from onmodel.core.images import RGB
from onmodel.core.vocabulary import ShotType
from onmodel.experiments.probe import Person, load_probe
from onmodel.experiments.truth import MARKS, Mark, compare
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.model import load_scorer
from onmodel.toybox.character import Character
from onmodel.toybox.measure import SEED
from onmodel.toybox.models import MODEL_SIDE, bundled
from onmodel.toybox.render import render
from onmodel.toybox.scene import FRAMED, Scene, random_scene
from onmodel.toybox.training_set import shrink
from onmodel.toybox.wording import describe, phrases

Rows = npt.NDArray[np.float64]
STEPS: Final[int] = 25
GUIDANCE: Final[float] = 4.0
AT_ONCE: Final[int] = 32
SIDE: Final[int] = 96
"""Renders are made as large as those of training, and made small as these were."""


def frechet(first: Rows, second: Rows) -> float:
    """Squared Fréchet distance of two Gaussians fitted to rows (n, d) and (m, d), 0 where they are the same.

    |m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^½), on any features; with those of Inception it is the FID (Heusel et al.,
    "GANs Trained by a Two Time-Scale Update Rule", 2017). It depends on the number of rows: compare equal numbers.
    """
    gap = first.mean(axis=0) - second.mean(axis=0)
    one, other = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    # The product of two covariances has real eigenvalues of at least 0; rounding makes some a little less.
    roots = np.sqrt(np.linalg.eigvals(one @ other).real.clip(min=0))
    return max(0.0, float(gap @ gap + np.trace(one) + np.trace(other) - 2 * roots.sum()))


def asked(caption: str, character: Character) -> set[Mark]:
    """Which of the character's seven features a caption names."""
    worn = (character.legwear, "pants") if character.legwear == "trousers" else (character.legwear,)
    said = phrases(character, character.legwear)
    wanted: dict[Mark, tuple[str, ...]] = {
        "age": (character.noun,),
        "skin": (said["skin"],),
        "hair_style": (said["hair"],),
        "hair_colour": () if character.hair_style == "bald" else (said["hair"],),
        "shirt": (said["shirt"],),
        "legs": tuple(phrases(character, word)["legs"] for word in worn),
        "hat": (said["hat"],) if "hat" in said else (),
    }
    parts = [part.strip() for part in caption.replace(" with ", ", ").replace(" of ", ", ").split(",")]
    return {mark for mark, words in wanted.items() if any(f"a {word}" in parts or word in parts for word in words)}


def right(people: Sequence[Person], character: Character, wanted: set[Mark]) -> dict[Mark, bool]:
    """For each wanted feature whether the largest person shows it; one that is not in view does not count."""
    if not people:
        return dict.fromkeys(wanted, False)
    seen = compare(max(people, key=lambda person: person.box.area), character)
    return {mark: seen[mark] for mark in sorted(wanted) if mark in seen}


def measure(pictures: int = 256) -> dict[str, Any]:
    """Both figures of `pictures` samples, a quarter of each shot type, beside those of renders."""
    scenes = [(shot, _scene(shot, 0, k)) for shot in FRAMED for k in range(pictures // len(FRAMED))]
    captions = [describe(scene, np.random.default_rng([SEED, 22, n]), keep=1.0) for n, (_, scene) in enumerate(scenes)]
    renders = _rendered([scene for _, scene in scenes])
    others = _rendered([_scene(shot, 1, k) for shot in FRAMED for k in range(pictures // len(FRAMED))])
    samples = _drawn(captions)
    scorer = load_scorer(ScorerConfig())
    features = [scorer.embed_images(list(images)).astype(np.float64) for images in (renders, others, samples)]
    probe = load_probe()
    report: dict[str, Any] = {
        "pictures": len(samples),
        # Against renders of other scenes both: what samples have in common with their own renders is their captions.
        "frechet_samples_to_other_renders": round(frechet(features[2], features[1]), 4),
        "frechet_renders_to_other_renders": round(frechet(features[0], features[1]), 4),
    }
    for name, images in (("samples", samples), ("renders", renders)):
        hits: dict[str, list[bool]] = {key: [] for key in (*MARKS, *FRAMED, "all")}
        for (shot, scene), caption, people in zip(scenes, captions, probe.read(images), strict=True):
            character = scene.people[0].character
            for mark, hit in right(people, character, asked(caption, character)).items():
                for key in (mark, shot, "all"):
                    hits[key].append(hit)
        report[f"attributes_right_in_{name}"] = {str(k): round(float(np.mean(v)), 3) for k, v in hits.items() if v}
    return report


def _scene(shot: ShotType, which: int, k: int) -> Scene:
    return random_scene(np.random.default_rng([SEED, 21, which, FRAMED.index(shot), k]), shot_type=shot)


def _rendered(scenes: Sequence[Scene]) -> npt.NDArray[np.uint8]:
    return shrink(np.stack([render(scene, SIDE).image for scene in scenes]), MODEL_SIDE)


def _drawn(captions: Sequence[str]) -> npt.NDArray[np.uint8]:
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(bundled("diffusion"))
    pipeline.set_progress_bar_config(disable=True)
    images: list[RGB] = []
    for start in range(0, len(captions), AT_ONCE):
        part = list(captions[start : start + AT_ONCE])
        generators = [torch.Generator().manual_seed(SEED + start + n) for n in range(len(part))]
        found = pipeline(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators).images
        images += [np.asarray(image.convert("RGB")) for image in found]
    return np.stack(images)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 256), indent=1))
