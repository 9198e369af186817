"""Train the probe from nothing, by the clock: made for a machine with a GPU and many cores.

    python -m onmodel.experiments.probe_training WORK_FOLDER SECONDS [PICTURES]

Renders on all cores but one; training starts on the first shards and takes in the others as they come. Renders are
bridged to what a pipeline draws by the bundled autoencoder, exact and with noisy or smoothed latents, by JPEG, blur,
noise and small changes of tone. Writes probe.safetensors and probe.json, with its accuracy on held-out renders, to
WORK_FOLDER/probe; nothing that lies there is read.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onmodel.experiments import probe_pictures
from onmodel.experiments.probe import Probe, load_probe, save_probe
from onmodel.experiments.probe_loss import batch_loss
from onmodel.experiments.probe_measure import HELD_FIRST, accuracy, calibrated
from onmodel.experiments.probe_network import NetworkConfig, ProbeNetwork, build
from onmodel.experiments.probe_store import Store
from onmodel.toybox.schedule import Average, Clock, Gradients, best_device


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train, and how the time is shared."""

    batch: int = 256
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup: int = 200
    average: float = 0.998
    shares: tuple[float, ...] = (0.28, 0.12, 0.20, 0.22, 0.18)
    """How often each of `probe_augment.VARIANTS` is shown."""
    jitter: float = 0.05
    """How inexact centres and heights of heads are while training, in heads."""
    held_out: int = 2_500
    calibration: int = 500
    """So many of those held out choose the threshold; the others measure."""
    first_pictures: int = 2_000
    """Training starts when so many are rendered."""
    ending: float = 25.0
    """Seconds kept for measuring, at most a fourth of all."""
    poll: int = 50
    """Steps between looks for new shards."""
    seed: int = 29


def train(store: Store, folder: Path, network: ProbeNetwork, seconds: float, config: TrainingConfig) -> int:
    """Train for that long on what the store holds and what comes into the folder; leaves the averaged weights in the
    network and returns the number of steps."""
    torch.manual_seed(config.seed)
    device = store.images.device
    torch.backends.cudnn.benchmark = True
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    average, total = Average(network, config.average), torch.zeros((), device=device)
    clock = Clock(optimizer, seconds, warmup=config.warmup, floor=0.01)
    batch = store.draw(config.batch, config.shares)

    def backward() -> Tensor:
        loss = batch_loss(network, batch, config.jitter)
        loss.backward()
        return loss.detach()

    gradients = Gradients(network, backward, cuda=device.type == "cuda")
    for step in clock:
        batch.copy_(store.draw(config.batch, config.shares))
        total += gradients()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network)
        if step % config.poll == config.poll - 1:
            store.take(folder)
        if step % 200 == 199 or step == 9:
            print(
                f"probe: step {step + 1}, loss {float(total) / (step % 200 + 1):.3f}, {store.filled} pictures",
                flush=True,
            )
            total.zero_()
    average.copy_to(network)
    return clock.step


def main(
    work: Path, seconds: float, pictures: int, config: TrainingConfig, sizes: NetworkConfig
) -> dict[str, Any]:  # fmt: skip
    """Render, train and measure for about `seconds` in all; returns what is written to probe.json."""
    began, device = time.monotonic(), best_device()
    folder, held = work / "set", work / "held"

    def passed() -> float:
        return time.monotonic() - began

    # What is held out comes first: it is little, and must be there in the end.
    spans = probe_pictures.spans(held, HELD_FIRST, config.held_out) + probe_pictures.spans(folder, 0, pictures)
    with multiprocessing.get_context("spawn").Pool(max(1, (os.cpu_count() or 2) - 1)) as pool:
        rendering = pool.map_async(probe_pictures.write_one, spans, chunksize=1)
        network, store = build(sizes, config.seed).to(device), Store(pictures, device)
        while store.filled < min(config.first_pictures, pictures):
            if rendering.ready():
                rendering.get()
            store.take(folder)
            time.sleep(0.2)
        print(f"{passed():.0f} s: training starts on {store.filled} pictures", flush=True)
        ending = min(config.ending, seconds / 4)
        left = seconds - passed() - ending
        if left <= 0:
            raise SystemExit(f"no time is left for training: the first pictures took {passed():.0f} of {seconds:.0f} s")
        steps = train(store, folder, network, left, config)
    print(f"{passed():.0f} s: {steps} steps of {config.batch} over {store.filled} pictures", flush=True)
    trained = store.filled
    del store
    network.eval()
    unseen = Store(config.held_out, device)
    unseen.take(held)
    split = config.calibration
    threshold = calibrated(
        Probe(network, 0.0, device), unseen.images[:, :split].cpu().numpy(), unseen.on_cpu().between(0, split)
    )
    about: dict[str, Any] = {
        "training": {**dataclasses.asdict(config), "pictures": trained, "steps": steps, "seconds": round(seconds)},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "processor",
        "torch": torch.__version__,
    }
    save_probe(work / "probe", network, threshold, about)
    # Of the weights as they are kept, in half precision.
    about["accuracy"] = accuracy(load_probe(work / "probe", device), unseen, split)
    save_probe(work / "probe", network, threshold, about)
    print(f"{passed():.0f} s: written to {work / 'probe'}", flush=True)
    return about


if __name__ == "__main__":
    made = main(
        Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 40_000,
        TrainingConfig(), NetworkConfig(),
    )  # fmt: skip
    print(json.dumps(made["accuracy"], indent=2))
