"""What is missing is drawn, each base model loaded once and each prompt encoded once, here or on a cluster."""

import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from onmodel.core.images import load
from onmodel.evaluation.planned import drawing_model
from onmodel.evaluation.tasks import Options, Pipelines, Task, draw, make_tasks, missing_work, spread_pays
from onmodel.evaluation.trial import Trial
from onmodel.training import network, pipeline
from onmodel.training.export import write_lora
from onmodel.training.naming import naming_of
from onmodel.training.network_spec import NetworkSpec

from .conftest import small_suite

SUITE = small_suite()
COUNT = len(SUITE.prompts()) * len(SUITE.seeds)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline: Any) -> Path:
    """The tiny pipeline as a folder, with three LoRA files beside it, the third with a text encoder's."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    for number in range(4):
        loaded = pipeline.load_pipeline(str(folder))
        components = network.lora_components(loaded)
        if number != 2:
            components.pop("text_encoder")
        naming = naming_of(loaded)
        network.attach(components, NetworkSpec(dim=2, alpha=2.0), naming, seed=number)
        weights = network.read_weights(components)
        for layers in weights.values():
            for layer in layers.values():
                for part in layer.parts.values():
                    part.add_(0.05 * (number + 1))  # an untrained LoRA changes nothing
        write_lora(folder.parent / f"trial-{number + 1:06d}.safetensors", weights, naming, {})
    return folder


def planned(base: Path, out: Path, *numbers: int, scales: tuple[float, ...] = (1.0,)) -> list[Task]:
    files = [base.parent / f"trial-{n:06d}.safetensors" for n in numbers]
    trials = [Trial(file.stem, file, str(base), "zibo", (), None) for file in files]
    return make_tasks(trials, SUITE, Options(), scales=scales, output_dir=out)


def test_a_fourth_model_draws_only_its_own(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load_pipeline = pipeline.load_pipeline

    def counted(name: str, **settings: Any) -> Any:
        loaded.append(name)
        return load_pipeline(name, **settings)

    monkeypatch.setattr(pipeline, "load_pipeline", counted)
    assert draw(planned(base, tmp_path, 1, 2, 3), SUITE, Options()) == 4 * COUNT, "three models and the base itself"
    assert loaded == [str(base)], "one base model is loaded once for all of them"
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.png")}
    four = planned(base, tmp_path, 1, 2, 3, 4)
    assert [(model.label, len(pictures)) for model, pictures in missing_work(four)] == [("trial-000004", COUNT)]
    assert draw(four, SUITE, Options()) == COUNT
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert draw(four, SUITE, Options()) == 0


def test_prompts_are_encoded_once_for_models_that_share_a_text_encoder(base: Path) -> None:
    kept = Pipelines("cpu")
    first = drawing_model(str(base), base.parent / "trial-000001.safetensors")
    kept.get(first)
    shared = kept.encoded(SUITE)
    kept.get(drawing_model(str(base)))
    assert kept.encoded(SUITE) is shared, "a LoRA on the UNet alone leaves the prompts' meaning"
    other = drawing_model(str(base), base.parent / "trial-000003.safetensors")
    kept.get(other)
    own = kept.encoded(SUITE)
    assert own is not shared, "one on the text encoder does not"
    kept.get(drawing_model(str(base), other.lora, 0.5))
    assert kept.encoded(SUITE) is not own
    kept.get(first)
    assert kept.encoded(SUITE) is shared
    assert kept.encoded(small_suite(negative_prompt="blurry")) is not shared


def test_models_of_one_base_follow_each_other(tmp_path: Path, base: Path) -> None:
    other = base.with_name("copy")
    if not other.exists():
        other.symlink_to(base, target_is_directory=True)
    first, second = planned(base, tmp_path / "a", 1), planned(other, tmp_path / "b", 2)
    third = planned(base, tmp_path / "a", 4)
    work = missing_work([*first, *second, *third])
    assert [model.base for model, _ in work] == [str(base)] * 3 + [str(other)] * 2


@pytest.fixture
def cluster() -> Generator[Any]:
    """A Ray of four cores in this process: two workers."""
    import ray

    from onmodel.serving.private_ray import private_folder, start_private_ray

    start_private_ray(private_folder(), num_cpus=4, object_store_bytes=100 * 2**20)
    yield ray
    ray.shutdown()


def end_a_worker(ended: list[int]) -> None:
    """Kill the first worker that draws."""
    for _ in range(1200):
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name().startswith("ray::_draw") or "ray::_draw" in " ".join(child.cmdline()):
                    child.kill()
                    ended.append(child.pid)
                    return
            except psutil.Error:
                continue
        time.sleep(0.05)


@pytest.mark.ray
def test_a_cluster_draws_the_same_and_survives_a_killed_worker(cluster: Any, base: Path, tmp_path: Path) -> None:
    assert spread_pays("cpu")
    within = cluster.remote(spread_pays).remote("cpu")
    assert not cluster.get(within), "a task does not wait for what its own driver may hold"
    ended: list[int] = []
    killer = threading.Thread(target=end_a_worker, args=(ended,))
    killer.start()
    assert draw(planned(base, tmp_path / "cluster", 1, 3, scales=(0.8,)), SUITE, Options()) == 3 * COUNT
    killer.join()
    assert ended, "no worker was caught drawing"
    cluster.shutdown()
    assert not spread_pays("cpu")
    alone = planned(base, tmp_path / "alone", 1, 3, scales=(0.8,))
    draw(alone, SUITE, Options())
    for file in (tmp_path / "alone").rglob("*.png"):
        there = tmp_path / "cluster" / file.relative_to(tmp_path / "alone")
        assert np.abs(load(file).astype(int) - load(there).astype(int)).max() <= 1
    assert not missing_work(planned(base, tmp_path / "cluster", 1, 3, scales=(0.8,)))
