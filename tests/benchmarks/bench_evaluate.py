"""Test pictures a second at the bundled size, against a diffusers pipeline called one prompt at a time.

Both draw the same prompts from the same noise with the same LoRA, sampler and steps, and take turns in one process, so
that what else the machine does falls on each alike; both have their model loaded. The pictures are compared before the
figure is printed. Beside the ratio by the clock stands the one by processor time, which other work does not disturb.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from onmodel.core.config import validate
from onmodel.core.images import load
from onmodel.evaluation.generate import generate
from onmodel.evaluation.planned import Planned, drawing_model, plan
from onmodel.evaluation.suite import TestSuite, load_suite
from onmodel.evaluation.tasks import Pipelines
from onmodel.training import network
from onmodel.training.export import write_lora
from onmodel.training.naming import naming_of
from onmodel.training.network_spec import NetworkSpec
from onmodel.training.pipeline import load_lora, load_pipeline

ROUNDS, PROMPTS, STEPS = 3, 8, 6
TARGET = 3.0


def _suite() -> TestSuite:
    """A few prompts of the bundled suite, four variations each."""
    suite = load_suite("toybox").model_dump(by_alias=True)
    prompts = suite["scenarios"]["full_body"] + suite["scenarios"]["close_up"]
    changes = {"scenarios": {"full_body": prompts[:PROMPTS]}, "steps": STEPS, "sampler": "ddim", "seeds": [1, 2, 3, 4]}
    return validate(TestSuite, {**suite, **changes}, "bench suite")


def _lora(pipeline: Any, path: Path) -> Path:
    """A LoRA that changes a little, as after training."""
    components = {"unet": network.lora_components(pipeline)["unet"]}
    naming = naming_of(pipeline)
    network.attach(components, NetworkSpec(dim=16, alpha=16.0), naming, seed=1)
    weights = network.read_weights(components)
    for layer in weights["unet"].values():
        for part in layer.parts.values():
            part.add_(0.001)
    write_lora(path, weights, naming, {})
    network.detach(components["unet"])
    return path


def _one_by_one(pipeline: Any, pictures: list[Planned], suite: TestSuite) -> list[Any]:
    return [
        pipeline(
            prompt=picture.text,
            negative_prompt=suite.negative_prompt,
            num_inference_steps=suite.steps,
            guidance_scale=suite.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(picture.noise_seed),
        ).images[0]
        for picture in pictures
    ]


def _timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Seconds by the clock and of the processor, and what `work` returned."""
    start = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - start[0], time.process_time() - start[1]), result


def main() -> None:
    suite = _suite()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline: Any = load_pipeline("toybox")
        file = _lora(pipeline, folder / "trial-000001.safetensors")
        load_lora(pipeline, file)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        model = drawing_model("toybox", file)
        kept = Pipelines("cpu")
        kept.get(model)
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        count = len(suite.prompts("zibo")) * len(suite.seeds)
        for turn in range(ROUNDS):
            pictures = plan(suite, suite.prompts("zibo"), model, folder / str(turn))
            took, images = _timed(lambda rows=pictures: _one_by_one(pipeline, rows, suite))
            theirs.append(took)
            took, _ = _timed(lambda rows=pictures: generate(rows, suite, model, kept.get(model)))
            ours.append(took)
            for picture, image in zip(pictures, images, strict=True):
                assert np.abs(load(picture.path).astype(int) - np.asarray(image).astype(int)).max() <= 3
            print(f"# turn {turn}: seconds (clock, processor) {ours[-1]} against {theirs[-1]}", file=sys.stderr)
    ratio, processor = (statistics.median(b[k] / a[k] for a, b in zip(ours, theirs, strict=True)) for k in range(2))
    print("name | value | target | met")
    print(f"test pictures, one prompt at a time | {count / statistics.median(t for t, _ in theirs):.2f} /s | |")
    print(f"test pictures, onmodel evaluate | {count / statistics.median(t for t, _ in ours):.2f} /s | |")
    print(f"ratio | {ratio:.1f} | >= {TARGET:g} | {'yes' if ratio >= TARGET else 'no'}")
    print(f"ratio by processor time | {processor:.1f} | |")


if __name__ == "__main__":
    main()
