"""Verbs on a local cluster, and a node of it that is killed or cut off in the middle of them."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import safetensors.torch
import torch

from onmodel.core.files import tree_hash
from onmodel.core.images import encode_png, load
from onmodel.film.chunk import ROWS
from onmodel.serving.local_cluster import LocalCluster
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import reference_pictures
from onmodel.toybox.film import make_film

sys.path.insert(0, str(Path(__file__).parents[1]))
from training.tiny import save_dataset, save_pipeline

CONFIG = """
[model]
pretrained_model_name_or_path = "{base}"
[network]
network_dim = 4
network_alpha = 2
[optimizer]
learning_rate = 1e-3
[training]
output_dir = "{out}"
output_name = "zork"
max_train_epochs = {epochs}
save_every_n_epochs = {half}
save_every_n_steps = {half}
train_batch_size = {batch}
log_with = "none"
[data]
train_data_dir = "{pictures}"
resolution = 64
min_bucket_reso = 32
max_bucket_reso = 128
bucket_reso_steps = 16
"""
ABLATION = """
base = "base.toml"
[ablation]
name = "rates"
threads = 1
[[variant]]
name = "low"
optimizer = {learning_rate = 1e-4}
[[variant]]
name = "high"
optimizer = {learning_rate = 2e-3}
"""
SUITE = {
    "name": "small",
    "trigger": "zork",
    "class": "boy",
    "seeds": [1, 2],
    "steps": 4,
    "guidance_scale": 3.0,
    "scenarios": {
        "close_up": [f"close up of {{trigger}}, {place}" for place in ("a forest", "a street", "the forest")],
        "full_body": [f"{{trigger}} standing in {place}" for place in ("a forest", "a street", "the street")],
        "far": [f"{{trigger}} in {place}" for place in ("a forest", "a street", "the street")],
    },
}
PROFILE = {"priority_scenes": {name: {"target": 6} for name in ("close_up", "medium_shot", "full_body", "far")}}
SETTINGS = "part_s = 2.0\n[sampling.quality]\nnear_duplicate_bits = 1\n[select]\nnear_duplicate_bits = 1\n"
PATIENCE_S = 900.0
CHECKPOINTS = f"*-{'[0-9]' * 6}.safetensors"
"""Of whole epochs."""
ONMODEL = ("-m", "onmodel")
DRAWING = Path(__file__).with_name("drawing.py")


@dataclass(frozen=True)
class Work:
    """One verb."""

    name: str
    arguments: Callable[[Path], list[str]]
    """From the output folder, what Python gets; writes files that it needs there."""
    title: str
    """Stands in the titles of the processes that do the work."""
    done: Callable[[Path], int]
    """How much of it is in the output folder."""
    half: int
    same: Callable[[Path, Path], bool]
    """Whether two output folders hold the same result."""


@dataclass(frozen=True)
class Ended:
    """How a verb ended."""

    code: int
    seconds: float
    seconds_after: float
    """From the fault to the end."""
    victim: str | None
    """The node; None where the verb ended before it was half done."""
    output: str


def run(cluster: LocalCluster, work: Work, out: Path, fault: str | None = None) -> Ended:
    """Run a verb on the head and do `fault` ("kill" or "cut") to a node that works for it when it is half done."""
    out.mkdir(parents=True)
    log = out.with_suffix(".log")
    start = broken = time.monotonic()
    victim: str | None = None
    with log.open("wb") as stream:
        argv = cluster.command([sys.executable, *work.arguments(out)])
        environment = {**cluster.environment(), "ONMODEL_CACHE": str(out.parent / "cache")}
        process = subprocess.Popen(argv, env=environment, stdout=stream, stderr=stream)
    try:
        while process.poll() is None and time.monotonic() - start < PATIENCE_S:
            if fault is not None and victim is None and work.done(out) >= work.half:
                victim = next(iter(working(cluster, work.title)), None)
                if victim is not None:
                    broken = time.monotonic()
                    cluster.kill(victim) if fault == "kill" else cluster.cut(victim)
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    end = time.monotonic()
    text = log.read_text(encoding="utf-8", errors="replace")
    return Ended(process.returncode, end - start, end - broken, victim, text)


def mend(cluster: LocalCluster, victim: str | None) -> None:
    """Bring a broken node back as a new one."""
    if victim is None:
        return
    if cluster.isolated:
        cluster.heal(victim)
    cluster.kill(victim)
    cluster.start(victim)


def working(cluster: LocalCluster, title: str) -> list[str]:
    """Nodes, but for the head, with a process of that title."""
    found: list[str] = []
    for node in cluster.config.nodes[1:]:
        for process in cluster.processes(node):
            with contextlib.suppress(psutil.Error):
                if title in " ".join(process.cmdline()) and node not in found:
                    found.append(node)
    return found


def same_weights(mine: Path, theirs: Path, *, exactly: bool = True) -> bool:
    """Whether all LoRA files below two folders, and the losses of every step, are the same.

    Not exactly: as far as sums in another order allow (as tests/training/test_workers.py compares).
    """
    files = {file.relative_to(mine) for file in mine.rglob(CHECKPOINTS)}
    if not files or files != {file.relative_to(theirs) for file in theirs.rglob(CHECKPOINTS)}:
        return False
    for file in files:
        ours, other = safetensors.torch.load_file(mine / file), safetensors.torch.load_file(theirs / file)
        if ours.keys() != other.keys():
            return False
        for key in ours:
            if exactly and not torch.equal(ours[key], other[key]):
                return False
            if not exactly and not torch.allclose(ours[key], other[key], atol=2e-3, rtol=2e-2):
                return False
    for file in mine.rglob("metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
        if steps != list(range(1, len(steps) + 1)):
            return False
    return True


def lines(folder: Path, name: str) -> int:
    """Lines of the first file of that name below a folder."""
    return max((file.read_text().count("\n") for file in folder.rglob(name)), default=0)


def same_pictures(mine: Path, theirs: Path) -> bool:
    """Whether two evaluations hold the same pictures and figures."""
    files = {file.relative_to(mine) for file in mine.rglob("img_*.png")}
    if not files or files != {file.relative_to(theirs) for file in theirs.rglob("img_*.png")}:
        return False
    figures = [json.loads(next(out.rglob("evaluation.json")).read_text())["scenarios"] for out in (mine, theirs)]
    return figures[0] == figures[1] and all((mine / f).read_bytes() == (theirs / f).read_bytes() for f in files)


def shades(mine: Path, theirs: Path) -> list[int]:
    """The greatest difference of a pixel, of each picture below `theirs`; empty where others are below `mine`."""
    files = sorted(file.relative_to(theirs) for file in theirs.rglob("*.png"))
    if files != sorted(file.relative_to(mine) for file in mine.rglob("*.png")):
        return []
    pairs = ((load(mine / file).astype(int), load(theirs / file).astype(int)) for file in files)
    return [int(abs(ours - other).max()) for ours, other in pairs]


class World:
    """Small things to work on, made once in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = save_pipeline(folder / "base")
        self.pictures = save_dataset(folder / "set")

    def config(self, out: Path, *, batch: int, epochs: int, half: int) -> Path:
        file = out / "base.toml"
        values = {"base": self.base, "pictures": self.pictures, "out": out / "runs"}
        file.write_text(CONFIG.format(**values, batch=batch, epochs=epochs, half=half))
        return file

    def training(self, workers: int, *, epochs: int = 60, every: int = 30) -> Work:
        """Four pictures a step, three steps an epoch."""

        def arguments(out: Path) -> list[str]:
            file = self.config(out, batch=4 // workers, epochs=epochs, half=every)
            return [*ONMODEL, "train", str(file), "--num-workers", str(workers)]

        return Work(
            f"training, {workers} worker{'s' if workers > 1 else ''}",
            arguments,
            "RayTrainWorker",
            lambda out: lines(out, "metrics.jsonl"),
            every + every // 2,
            lambda mine, theirs: same_weights(mine, theirs, exactly=workers == 1),
        )

    def ablation(self, *, epochs: int = 120, every: int = 60) -> Work:
        """Two variants at once, each in a process of its own."""

        def arguments(out: Path) -> list[str]:
            self.config(out, batch=4, epochs=epochs, half=every)
            (out / "ablation.toml").write_text(ABLATION)
            return [*ONMODEL, "ablate", str(out / "ablation.toml")]

        return Work(
            "ablation, 2 variants at once",
            arguments,
            "ImplicitFunc",
            lambda out: lines(out, "metrics.jsonl"),
            every + every // 2,
            same_weights,
        )

    def extraction(self, *, seconds: float = 14.0) -> Work:
        """A rendered film in parts of two seconds."""
        film = self.folder / "toys.mp4"
        if not film.exists():
            make_film(film, [HELD_OUT["zibo"], HELD_OUT["mirel"]], seconds=seconds, seed=4)
            (self.folder / "zibo").mkdir()
            for number, drawn in enumerate(reference_pictures(HELD_OUT["zibo"], 4, 5, size=128)):
                (self.folder / "zibo" / f"{number}.png").write_bytes(encode_png(drawn.image))
            (self.folder / "profile.json").write_text(json.dumps(PROFILE))
            (self.folder / "settings.toml").write_text(SETTINGS)

        def arguments(out: Path) -> list[str]:
            given = {"--profile": "profile.json", "--reference": "zibo", "--config": "settings.toml"}
            options = [part for option, file in given.items() for part in (option, str(self.folder / file))]
            return [*ONMODEL, "extract", str(film), *options, "--output-dir", str(out / "found")]

        return Work(
            "extraction",
            arguments,
            "MapWorker",
            lambda out: sum(1 for _ in (out / "found" / ".extract").rglob(ROWS)),
            2,
            lambda mine, theirs: tree_hash(mine / "found") == tree_hash(theirs / "found"),
        )

    def suite(self, seeds: int) -> Path:
        """File of a suite of nine prompts."""
        file = self.folder / "suite.json"
        file.write_text(json.dumps({**SUITE, "seeds": list(range(1, seeds + 1))}))
        return file

    def drawing(self, lora: Path, seeds: int = 2) -> Work:
        """The pictures of an evaluation alone."""
        suite = self.suite(seeds)
        return Work(
            "drawing",
            lambda out: [str(DRAWING), str(lora), str(self.base), str(suite), str(out / "e")],
            "ray::_draw",
            lambda out: sum(1 for _ in (out / "e").rglob("*.png")),
            8,
            lambda mine, theirs: bool(found := shades(mine, theirs)) and max(found) <= 1,
        )

    def evaluation(self, lora: Path, seeds: int = 4) -> Work:
        """Pictures of a LoRA and of its base model, drawn by tasks, measured by services on the head."""
        suite = self.suite(seeds)

        def arguments(out: Path) -> list[str]:
            given = ["--references", str(self.pictures), "--base", str(self.base), "--device", "cpu"]
            places = ["--test-suite", str(suite), "--output-dir", str(out / "e")]
            return [*ONMODEL, "evaluate", str(lora), *places, *given]

        return Work(
            "evaluation",
            arguments,
            "ray::_draw",
            lambda out: sum(1 for _ in (out / "e").rglob("*.png")),
            8,
            same_pictures,
        )
