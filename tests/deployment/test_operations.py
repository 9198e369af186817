"""Services that `onmodel serve up` left running, in one cluster: their production config, other models while they
answer, request ids from the client to the log, metrics, what the doctor says, and their end.

The tests go on from each other, in this order.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil
import pytest
import yaml

from onmodel.common.v1 import common_pb2
from onmodel.core.errors import OnModelError
from onmodel.core.images import encode_png
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceStub
from onmodel.serving.private_ray import free_port
from onmodel.serving.state import recall

from .kubernetes import CLUSTER
from .metrics import named_metrics

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]


PICTURE = encode_png(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


class Up(NamedTuple):
    address: str
    config: Path
    models: Path
    metrics_port: int
    http_port: int


def onmodel(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onmodel", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.fixture(scope="module")
def up(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The production config with models and resources of a test."""
    folder = tmp_path_factory.mktemp("operations")
    config = yaml.safe_load((CLUSTER / "serve.production.yaml").read_text())
    http_port, port, metrics_port = free_port(), free_port(), free_port()
    config["http_options"]["port"] = http_port
    for app in config["applications"]:
        app["args"]["intake"]["model_threads"] = 1
        (deployment,) = app["deployments"]
        deployment["ray_actor_options"] = {"num_cpus": 0.1}
        deployment["autoscaling_config"]["max_replicas"] = 1
        deployment["user_config"] = (
            {"detector": "toybox"} if app["name"] == "detection" else {"scorer": {"model": str(folder / "first")}}
        )
    shutil.copytree(clip_folder, folder / "first")
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        started = onmodel(
            "serve", "up", "--config", str(file), "--port", str(port), "--metrics-port", str(metrics_port)
        )
        try:
            assert started.returncode == 0, started.stderr
            yield Up(f"127.0.0.1:{port}", file, folder, metrics_port, http_port)
        finally:
            onmodel("serve", "down")


@contextmanager
def traffic(up: Up) -> Generator[list[int]]:
    """Requests of one picture each, one after the other in three threads; gives the widths that came back.

    Raises what a request failed of, though the client tries again what it may.
    """
    widths: list[int] = []
    failures: list[OnModelError] = []
    over = threading.Event()

    def ask() -> None:
        with ScoringClient(up.address, timeout_s=120) as client:
            while not over.is_set():
                try:
                    (vector,) = client.embed_images([PICTURE])
                    assert not isinstance(vector, Exception)
                    widths.append(len(vector))
                except OnModelError as error:
                    failures.append(error)
                # Requests go on all the time, and leave the machine time for what is done meanwhile.
                over.wait(0.05)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield widths
    finally:
        over.set()
        for thread in threads:
            thread.join(150)
    assert failures == []


def get(port: int, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        return reply.read().decode()


def test_it_runs_and_says_so(up: Up) -> None:
    status = onmodel("serve", "status")
    assert status.returncode == 0 and str(up.models / "first") in status.stdout
    assert get(up.http_port, "/-/healthz") == "success"
    assert onmodel("serve", "status", "--services", f"127.0.0.1:{free_port()}").returncode == 4


def test_a_request_is_found_again_in_the_log(up: Up) -> None:
    channel = grpc.insecure_channel(up.address, options=[("grpc.enable_http_proxy", 0)])
    stub: Any = ScoringServiceStub(channel)
    trace_id, request_id = "ab" * 16, "found-again-1"
    metadata = [
        ("application", "scoring"),
        ("x-request-id", request_id),
        ("request_id", request_id),
        ("traceparent", f"00-{trace_id}-{'cd' * 8}-01"),
        ("x-submission-id", "job-7"),
    ]
    images = [common_pb2.Image(data=PICTURE), common_pb2.Image(data=b"x")]
    _, call = stub.EmbedImages.with_call(pb.EmbedImagesRequest(images=images), metadata=metadata, timeout=60)
    told = dict(call.trailing_metadata())
    assert told["x-request-id"] == told["request_id"] == request_id
    assert abs(int(told["x-server-time-ms"]) / 1000 - time.time()) < 60
    many = pb.EmbedImagesRequest(images=[common_pb2.Image(data=b"x")] * 300)
    with pytest.raises(grpc.RpcError):
        stub.EmbedImages(many, metadata=[("application", "scoring")], timeout=60)
    channel.close()
    running = recall()
    assert running is not None
    deadline = time.monotonic() + 60
    lines: list[dict[str, Any]] = []
    while not lines and time.monotonic() < deadline:
        for log in Path(running.folder).glob("*/session_2*/logs/serve/replica_scoring*.log"):
            lines = [line for text in log.read_text().splitlines() if (line := json.loads(text))["message"] != ""]
        lines = [line for line in lines if line.get("request_id") == request_id]
        time.sleep(0.2)
    (line,) = lines
    assert line["trace_id"] == trace_id and line["submission_id"] == "job-7"
    assert line["method"] == "EmbedImages" and line["code"] == "OK" and line["duration_ms"] > 0
    assert line["application"] == "scoring" and line["levelname"] == "INFO"


def wider(clip_folder: Path, folder: Path) -> Path:
    """Another model: vectors of another width, from pictures of another size."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = json.loads((clip_folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 48
    config["model_cfg"]["vision_cfg"]["image_size"] = 64
    torch.manual_seed(1)
    model = open_clip.CLIP(**config["model_cfg"])
    folder.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_another_model_takes_over_and_no_request_fails(up: Up, clip_folder: Path) -> None:
    second = wider(clip_folder, up.models / "second")
    with traffic(up) as widths:
        done = onmodel("serve", "up", "--config", str(up.config), "--scorer", str(second))
        assert done.returncode == 0, done.stderr
        with ScoringClient(up.address) as client:
            assert client.model_info().hash == ScorerConfig(model=str(second)).hash
        before = len(widths)
        while len(widths) < before + 6:
            time.sleep(0.05)
    assert widths[0] == 32 and widths[-1] == 48
    # In place, in one moment: the former model answered until the other was ready.
    assert sorted(widths) == widths or widths.index(48) >= len([w for w in widths if w == 32]) - 3


def test_a_model_that_cannot_be_loaded_leaves_the_former_one_answering(up: Up) -> None:
    broken = up.models / "broken"
    shutil.copytree(up.models / "second", broken)
    (broken / "open_clip_model.safetensors").write_bytes(b"not weights")
    with traffic(up) as widths:
        done = onmodel("serve", "up", "--config", str(up.config), "--scorer", str(broken))
        assert done.returncode == 2 and "goes on with its former model" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert set(widths) == {48}
    status = onmodel("serve", "status")
    assert status.returncode == 0 and "the model asked for last is not it" in status.stdout
    named = onmodel("serve", "up", "--config", str(up.config), "--scorer", str(up.models / "nowhere"))
    assert named.returncode == 2 and "nowhere" in named.stderr


def test_the_doctor_sees_it(up: Up) -> None:
    done = onmodel("doctor", "--json", "--out", str(up.models))
    found = {finding["checked"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["scoring"]["level"] == "warning" and "not the model asked for last" in found["scoring"]["found"]
    assert found["detection"]["level"] == "ok" and "toybox" in found["detection"]["found"]
    assert found["5 MB payload"]["level"] == "ok" and "5.0 MB" in found["5 MB payload"]["found"]


def test_replicas_that_are_replaced_drain_and_no_request_fails(up: Up) -> None:
    config = yaml.safe_load(up.config.read_text())
    # Not a model: Serve ends the replica, which answers what it has, and starts another.
    config["applications"][1]["args"]["intake"]["max_images_per_request"] = 2
    up.config.write_text(yaml.safe_dump(config))
    with traffic(up) as widths:
        done = onmodel("serve", "up", "--config", str(up.config))
        assert done.returncode == 0, done.stderr
    assert set(widths) <= {32, 48} and widths[-1] == 32
    with ScoringClient(up.address) as client, pytest.raises(OnModelError, match="the limit is 2"):
        client.embed_images([PICTURE] * 3)


def test_every_metric_that_rules_and_dashboard_name_is_exported(up: Up) -> None:
    # A counter appears with its first count, and nothing here is more than can be done.
    uncounted = {"ray_onmodel_requests_refused_total"}
    wanted = {name for name in named_metrics() if name.startswith("ray_")} - uncounted
    deadline = time.monotonic() + 90
    missing, text = wanted, ""
    while missing and time.monotonic() < deadline:
        text = get(up.metrics_port, "/metrics")
        missing = {name for name in wanted if f"\n{name}{{" not in text}
        time.sleep(1)
    assert missing == set()
    for part in ('code="INVALID_ARGUMENT"', 'outcome="refused"', 'outcome="failed"', 'application="detection"'):
        assert part in text


def test_down_ends_all_of_it(up: Up) -> None:
    running = recall()
    assert running is not None and running.address == up.address
    below = psutil.Process(running.pid).children(recursive=True)
    down = onmodel("serve", "down", "--json")
    assert down.returncode == 0 and '"stopped": true' in down.stdout
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
    assert not Path(running.folder).exists()
    assert '"stopped": false' in onmodel("serve", "down", "--json").stdout
