"""Evaluations made of chosen outcomes, with pictures to match: for comparisons and reports."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onmodel.core.files import write_bytes
from onmodel.core.images import encode_png
from onmodel.core.vocabulary import Attribute, Decision, ShotType
from onmodel.evaluation.metrics import Judged, figures, target_results
from onmodel.evaluation.observe import Part, Seen
from onmodel.evaluation.record import Evaluation, PictureRow, ScaleRecord

SHOTS = {s.value: s for s in ShotType}
SCENARIOS: tuple[str, ...] = ("close_up", "full_body", "multi_character", "complex_background", "occlusion")
PROMPTS, VARIATIONS = 4, 3


def judged(scenario: str, prompt: int, right: bool, rng: np.random.Generator) -> Judged:
    """A picture of a scenario, as asked, that shows our character or a stranger."""
    rows = rng.normal(size=(2, 16)).astype(np.float32) * 0.3 + 1.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    attributes = frozenset(a for a in Attribute if a.value == scenario)
    decision = Decision(SHOTS.get(scenario, ShotType.FULL_BODY), attributes, 0, "made up")
    several = scenario == "multi_character"
    count = 2 if several else 1
    seen = Seen(decision, count, rows[0], (rows[1],) * count, (Part(rows[1], rows[1], None, ()),) * count)
    own = 0.9 if right else 0.1
    return Judged(prompt, scenario, seen, (own, 0.0) if several else (own,), own, own, 0.3, math.nan)


def evaluation(
    trial: str,
    rates: Mapping[str, float],
    folder: Path | None = None,
    *,
    seed: int = 0,
    texts: Sequence[str] = (),
    side: int = 24,
    prompts_each: int = PROMPTS,
    variations: int = VARIATIONS,
) -> Evaluation:
    """An evaluation in which each scenario comes out right at its rate; with pictures where a folder is given."""
    rng = np.random.default_rng(seed)
    pictures: list[Judged] = []
    rows: list[PictureRow] = []
    for number in range(len(SCENARIOS) * prompts_each * variations):
        prompt, variation = divmod(number, variations)
        scenario = SCENARIOS[prompt // prompts_each]
        one = judged(scenario, prompt, bool(rng.random() < rates.get(scenario, 0.5)), rng)
        pictures.append(one)
        file = f"img_{number:03d}_p{prompt:03d}_v{variation:02d}.png"
        assert one.seen is not None
        rows.append(
            PictureRow(
                file=file,
                scenario=scenario,
                prompt=prompt,
                variation=variation,
                outcome=one.outcome.value,
                shot_type=one.seen.framing,
                attributes=tuple(a.value for a in one.seen.decision.attributes),
                characters=one.seen.characters,
                identity=one.main,
                head_to_body=None,
                fidelity=one.fidelity,
                memorisation=None,
            )
        )
        if folder is not None:
            noise = rng.integers(0, 255, size=(side, side, 3), dtype=np.uint8)
            write_bytes(folder / file, encode_png(noise))
    scenarios = {name: figures(pictures, name) for name in SCENARIOS}
    prompts = [f"{SCENARIOS[n // prompts_each]} prompt {n}" for n in range(len(SCENARIOS) * prompts_each)]
    prompts[: len(texts)] = texts
    return Evaluation(
        key=trial,
        trial=trial,
        trial_folder=f"trials/{trial}",
        dataset=None,
        checkpoint=f"{trial}-000004.safetensors",
        checkpoint_hash="ab" * 32,
        epoch=4,
        step=400,
        stage="train",
        scale=1.0,
        base="toybox",
        base_hash="cd" * 32,
        vae=None,
        suite="made",
        steps=4,
        guidance_scale=3.0,
        seeds=tuple(range(variations)),
        trigger="zibo",
        prompts=tuple(prompts),
        measured_with="made up",
        base_pictures=None,
        references_head_to_body={},
        calibration=ScaleRecord(
            impostor=0.6,
            genuine=0.8,
            separation=0.95,
            references=20,
            impostors=60,
            recognised=0.85,
            reference_source="held-back pictures",
            impostor_source="the base model",
        ),
        warnings=(),
        targets=tuple(target_results(scenarios)),
        scenarios=scenarios,
        overall=figures(pictures),
        pictures=tuple(rows),
    )
