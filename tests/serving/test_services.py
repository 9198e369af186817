"""The running services, over gRPC, in one cluster."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from onmodel.common.v1 import common_pb2
from onmodel.core.errors import ImageError, UserError
from onmodel.detection.client import Detected
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.convert import Consistency
from onmodel.scoring.model import load_scorer
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceStub
from onmodel.serving.local import Services

from .made import noise, noise_png

# A busy machine takes minutes to start a cluster.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

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
