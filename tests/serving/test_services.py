"""The running services, over gRPC, in one cluster."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from onmodel.common.channel import MAX_MESSAGE_BYTES
from onmodel.common.v1 import common_pb2
from onmodel.core.errors import ImageError, UserError
from onmodel.core.images import encode_png
from onmodel.detection.client import Detected
from onmodel.detection.v1 import detection_pb2
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.convert import Consistency
from onmodel.scoring.model import load_scorer
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceStub
from onmodel.serving.local import Services

from .made import malformed, noise, noise_png, pixel_bomb

# A busy machine takes minutes to start a cluster.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

CallFromNode = Callable[[str, Sequence[dict[str, Any]]], list[Any]]
PROTOS = Path(__file__).parents[2] / "protos"


def test_a_client_made_of_the_protos_alone(running_services: Services, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(noise_png(0))
    assert running_services.address is not None
    client = [sys.executable, "-I", str(Path(__file__).with_name("bare_client.py"))]
    ran = subprocess.run(
        [*client, str(PROTOS), running_services.address, str(picture), "1", "64", "500"],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout)
    for count in (1, 64, 500):
        answer = answers[str(count)]
        broken = {1} if count > 1 else set[int]()
        for kind, good in (("detect", "detections"), ("embed", "embedding")):
            assert answer[kind] == ["error" if n in broken else good for n in range(count)]
        assert answer["sizes"][0] == [56, 40]
        assert 32 in answer["widths"]
        assert answer["codes"] == [3] * len(broken)


def test_embeddings_are_those_of_the_model(running_services: Services, clip_folder: Path) -> None:
    expected = load_scorer(ScorerConfig(model=str(clip_folder))).embed_images([noise(n) for n in range(20)])
    found = running_services.scoring.embed_images([noise_png(n) for n in range(20)])
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)  # type: ignore[arg-type]


def test_many_callers_of_one_picture_each_get_their_own(running_services: Services) -> None:
    pictures = [noise_png(n) for n in range(40)]
    together = running_services.scoring.embed_images(pictures)
    with ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda picture: running_services.scoring.embed_images([picture])[0], pictures))
    np.testing.assert_allclose(np.stack(alone), np.stack(together), atol=1e-5)  # type: ignore[arg-type]


def test_texts_and_scores(running_services: Services) -> None:
    scoring = running_services.scoring
    assert scoring.embed_texts(["a boy", "a dog", "a boy"]).shape == (3, 32)
    group, nothing = scoring.score_consistency([[noise_png(0), noise_png(1)], [noise_png(2), b""]]).groups
    assert isinstance(group, Consistency) and isinstance(nothing, ImageError)
    assert len(scoring.score_identity([noise_png(0)], [noise_png(1)]).results) == 1
    assert len(scoring.score_prompt([noise_png(0)], ["a boy"]).results) == 1


def test_detections_and_errors_stand_side_by_side(running_services: Services) -> None:
    found, broken = running_services.detection.detect([noise_png(0), b"\x89PNG broken"])
    assert isinstance(found, Detected) and isinstance(broken, ImageError)
    assert (found.detections.width, found.detections.height) == (56, 40)
    assert found.decision.reason


def test_each_application_answers_for_itself(running_services: Services, clip_folder: Path) -> None:
    assert running_services.scoring.model_info().hash == ScorerConfig(model=str(clip_folder)).hash
    assert running_services.detection.model_info().hash != running_services.scoring.model_info().hash


@pytest.fixture
def stub(running_services: Services) -> Any:
    assert running_services.address is not None
    with grpc.insecure_channel(running_services.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield ScoringServiceStub(channel)


def code_of(stub: Any, application: str, images: list[common_pb2.Image]) -> tuple[grpc.StatusCode, str]:
    request = pb.EmbedImagesRequest(images=images)
    with pytest.raises(grpc.RpcError) as caught:
        stub.EmbedImages(request, timeout=60, metadata=[("application", application)])
    error: Any = caught.value
    return error.code(), error.details()


def test_an_unknown_application_is_not_found(stub: Any) -> None:
    code, _ = code_of(stub, "nothing", [])
    assert code is grpc.StatusCode.NOT_FOUND


def test_too_many_pictures_are_refused_in_one_sentence(stub: Any, running_services: Services) -> None:
    code, details = code_of(stub, "scoring", [common_pb2.Image(data=b"x")] * 1025)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the limit is 1024" in details and "Traceback" not in details
    with pytest.raises(UserError, match="the limit is 1024"):
        running_services.scoring.score_consistency([[noise_png(0)] * 1025])


def test_files_are_not_read_without_an_allowed_root(stub: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(noise_png(0))
    request = pb.EmbedImagesRequest(
        images=[common_pb2.Image(uri=str(tmp_path / "a.png")), common_pb2.Image(data=noise_png(1))]
    )
    refused, good = stub.EmbedImages(request, timeout=60, metadata=[("application", "scoring")]).results
    assert refused.error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    assert good.WhichOneof("outcome") == "embedding"


def test_the_port_is_reached_from_this_machine_alone(running_services: Services) -> None:
    assert running_services.address is not None
    port = int(running_services.address.rsplit(":", 1)[1])
    others = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET and not address.address.startswith("127.")
    ]
    if not others:
        pytest.skip("this machine has no interface but loopback")
    for other in others:
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=2).close()


def test_node_calls_every_method(running_services: Services, call_from_node: CallFromNode) -> None:
    assert running_services.address is not None
    first, second, broken = (
        {"data": base64.b64encode(data).decode()} for data in (noise_png(0), noise_png(1), b"no picture")
    )
    scoring, detection = "onmodel.scoring.v1.ScoringService", "onmodel.detection.v1.DetectionService"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        (detection, "Detect", {"images": [first, broken]}),
        (detection, "GetModelInfo", {}),
        (scoring, "EmbedImages", {"images": [first, broken]}),
        (scoring, "EmbedTexts", {"texts": ["a boy", "a dog"]}),
        (scoring, "ScoreConsistency", {"groups": [{"images": [first, second]}, {"images": [broken]}]}),
        (scoring, "ScoreIdentity", {"images": [first], "references": [first, second]}),
        (scoring, "ScorePrompt", {"pairs": [{"image": first, "text": "a boy"}]}),
        (scoring, "GetModelInfo", {}),
        (scoring, "EmbedImages", {"images": [first] * 1025}),
    ]
    answers = call_from_node(
        running_services.address,
        [
            {"service": service, "method": method, "application": service.split(".")[1], "request": request}
            for service, method, request in requests
        ],
    )
    found, detector, embedded, texts, groups, identity, prompt, scorer, refused = answers
    for service in (detection_pb2.DESCRIPTOR, pb.DESCRIPTOR):
        for name, described in service.services_by_name.items():
            called = {method for of, method, _ in requests if of.endswith(name)}
            assert called == {method.name for method in described.methods}, "a method that no test calls from outside"
    assert [result["outcome"] for result in found["results"]] == ["detections", "error"]
    assert found["results"][0]["detections"]["width_px"] == 56
    assert [result["outcome"] for result in embedded["results"]] == ["embedding", "error"]
    assert embedded["results"][1]["error"]["code"] == 3
    own = running_services.scoring.embed_images([noise_png(0)])[0]
    np.testing.assert_allclose(embedded["results"][0]["embedding"]["values"], own, atol=1e-5)  # type: ignore[arg-type]
    assert [len(row["values"]) for row in texts["embeddings"]] == [32, 32]
    assert [group["outcome"] for group in groups["groups"]] == ["consistency", "error"]
    assert identity["results"][0]["identity"]["nearest"] == pytest.approx(1.0, abs=1e-4)
    assert prompt["results"][0]["outcome"] in prompt["results"][0]
    assert detector["model"]["hash"] != scorer["model"]["hash"]
    assert refused["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "the limit is 1024" in refused["details"]


FUZZ = int(os.environ.get("ONMODEL_FUZZ_EXAMPLES", "60"))
"""Ten minutes are some 30,000."""
RAW = "/onmodel.scoring.v1.ScoringService/"


def raw(channel: grpc.Channel, method: str, data: bytes) -> grpc.StatusCode:
    """The status that a method answers to bytes that need not be a message."""
    call: Any = channel.unary_unary(RAW + method)
    try:
        call(data, timeout=60, metadata=[("application", "scoring")])
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code()
    return grpc.StatusCode.OK


@pytest.fixture
def bare(running_services: Services) -> Iterator[grpc.Channel]:
    assert running_services.address is not None
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(running_services.address, options=options) as channel:
        yield channel


def test_a_message_beyond_the_limit_is_refused_and_the_service_lives_on(
    bare: grpc.Channel, running_services: Services
) -> None:
    assert raw(bare, "EmbedImages", bytes(MAX_MESSAGE_BYTES + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(UserError, match="too large"):
        running_services.scoring.embed_images([bytes(MAX_MESSAGE_BYTES + 1)])
    assert len(running_services.scoring.embed_images([noise_png(0)])) == 1


def test_a_picture_that_would_fill_the_memory_is_an_error_of_its_own(running_services: Services) -> None:
    bomb, good = running_services.scoring.embed_images([pixel_bomb(), noise_png(0)])
    assert isinstance(bomb, ImageError)
    assert not isinstance(good, ImageError)


@settings(
    max_examples=FUZZ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.generate],
)
@given(data=malformed(noise_png(0)), method=st.sampled_from(["EmbedImages", "EmbedTexts", "ScoreIdentity"]))
def test_any_bytes_are_answered_and_no_fault_of_ours(bare: grpc.Channel, data: bytes, method: str) -> None:
    # What is no message Serve refuses itself, as UNKNOWN, before we see it.
    refused = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT)
    assert raw(bare, method, data) in (grpc.StatusCode.OK, *refused)


def test_the_service_lives_on_after_bytes_that_are_no_message(bare: grpc.Channel, running_services: Services) -> None:
    before = replica_pids()
    assert raw(bare, "EmbedImages", b"\x00" * 100) is grpc.StatusCode.UNKNOWN
    assert len(running_services.scoring.embed_images([noise_png(0)])) == 1
    assert replica_pids() == before, "none was replaced"


def replica_pids() -> set[int]:
    """The services' replicas below this process."""
    below = psutil.Process().children(recursive=True)
    found = {process.pid for process in below if "ServeReplica" in " ".join(process.cmdline())}
    assert found
    return found


def test_a_burst_is_answered_or_refused_at_once_and_nothing_is_lost(bare: grpc.Channel) -> None:
    """More than replica and queue hold; no retries, so that each answer is the service's own."""
    # Quick to send and slow to look at: also on a busy machine they come faster than they are answered.
    plain = [encode_png(np.full((400, 400, 3), shade, dtype=np.uint8)) for shade in range(16)]
    request = pb.EmbedImagesRequest(images=[common_pb2.Image(data=data) for data in plain])
    stub: Any = ScoringServiceStub(bare)
    calls = [stub.EmbedImages.future(request, timeout=300, metadata=[("application", "scoring")]) for _ in range(500)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all(len(call.result().results) == 16 for call in calls if call.code() is grpc.StatusCode.OK)
    assert codes.count(grpc.StatusCode.OK) >= 64, "what is under way and queued is answered"


def test_callers_that_give_up_harm_nobody(bare: grpc.Channel) -> None:
    stub: Any = ScoringServiceStub(bare)
    request = pb.EmbedImagesRequest(images=[common_pb2.Image(data=noise_png(n)) for n in range(16)])
    calls = [stub.EmbedImages.future(request, timeout=300, metadata=[("application", "scoring")]) for _ in range(60)]
    for call in calls[::2]:
        call.cancel()
    assert [len(call.result().results) for call in calls[1::2]] == [16] * 30
