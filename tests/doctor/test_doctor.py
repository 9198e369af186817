"""The doctor finds what is wrong, says what to do, and ends with the right exit code."""

import os
import shutil
import socket
from collections.abc import Iterator
from concurrent import futures
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from onmodel.cli.main import load_verb
from onmodel.common.trace import SERVER_TIME_MS
from onmodel.common.v1 import common_pb2
from onmodel.core.errors import NotFoundError, UserError
from onmodel.detection.v1 import detection_pb2
from onmodel.detection.v1.detection_pb2_grpc import DetectionServiceServicer, add_DetectionServiceServicer_to_server
from onmodel.doctor import installation, machine, services
from onmodel.doctor.finding import Finding
from onmodel.doctor.run import examine
from onmodel.jobs.v1 import jobs_pb2
from onmodel.jobs.v1.jobs_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from onmodel.scoring.v1 import scoring_pb2
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceServicer, add_ScoringServiceServicer_to_server
from onmodel.serving.private_ray import free_port
from onmodel.toybox import models


def levels(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.checked: finding.level for finding in findings}


def test_this_installation_is_well(tmp_path: Path) -> None:
    findings = list(examine(services=None, out=tmp_path / "out"))
    wrong = [finding for finding in findings if finding.level == "wrong"]
    assert wrong == []
    assert {"python", "ray", "torch", "packages", "bundled models", "gpu", "memory", "clock"} <= {
        finding.checked for finding in findings
    }
    assert all(finding.advice for finding in findings if finding.level != "ok")
    assert not (tmp_path / "out").exists()


def test_packages_that_are_too_old_or_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "diffusers":
            return "0.1.0"
        if name == "imagehash":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(installation, "version", version)
    monkeypatch.setattr(installation.platform, "python_version", lambda: "3.9.1")
    found = {finding.checked: finding for finding in installation.check_versions()}
    assert found["python"].level == found["diffusers"].level == found["imagehash"].level == "wrong"
    assert "0.1.0" in found["diffusers"].found and "pip install" in found["diffusers"].advice
    assert "packages" not in found and found["ray"].level == "ok"


def test_pins_are_compared(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text(f"# a comment\nnumpy=={metadata.version('numpy')}\nray==0.0.1\nnothing-of-this-name==1\n")
    found = {finding.checked: finding for finding in installation.check_versions(pins)}["constraints"]
    assert found.level == "warning" and "ray" in found.found and "numpy" not in found.found
    pins.write_text(f"ray=={metadata.version('ray')}\nnumpy==0 ; python_version < '3'\n")
    assert levels(installation.check_versions(pins))["constraints"] == "ok"
    pins.write_text("ray is nice\n")
    with pytest.raises(UserError, match="line 1"):
        list(installation.check_versions(pins))
    with pytest.raises(NotFoundError):
        list(installation.check_versions(tmp_path / "none"))


def test_the_list_of_the_bundled_models_is_up_to_date() -> None:
    assert models.SUMS.read_text() == models.sums(), "run `python -m onmodel.toybox.models`"


def test_changed_models_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "models"
    shutil.copytree(models.MODELS, copied)
    monkeypatch.setattr(models, "MODELS", copied)
    monkeypatch.setattr(models, "SUMS", copied / "SHA256SUMS")
    assert installation.check_models().level == "ok"
    (copied / "clip" / "merges.txt").write_text("other")
    (copied / "detector" / "toybox.pt").unlink()
    found = installation.check_models()
    assert found.level == "wrong"
    assert "clip/merges.txt" in found.found and "detector/toybox.pt" in found.found
    (copied / "SHA256SUMS").unlink()
    assert installation.check_models().level == "wrong"


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("ONMODEL_CACHE", str(tmp_path / "file"))
    found = levels(machine.check_storage(tmp_path / "file" / "below"))
    assert found["cache folder"] == found["output folder"] == "wrong"
    assert levels(machine.check_storage(Path("/proc/none")))["output folder"] == "wrong"
    monkeypatch.setenv("ONMODEL_CACHE", str(tmp_path / "new" / "cache"))
    assert levels(machine.check_storage(tmp_path))["cache folder"] == "ok"


@pytest.mark.parametrize(("free", "level"), [(1 << 20, "wrong"), (5 << 30, "warning"), (1 << 40, "ok")])
def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 41, 0, free))  # type: ignore[attr-defined]  # pyright: ignore
    assert levels(machine.check_storage(tmp_path))["disk for outputs"] == level


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (limit,))
    limit.write_text(str(1 << 30))
    assert levels(machine.check_memory())["memory"] == "wrong"
    limit.write_text("max\n")
    assert "memory" in levels(machine.check_memory())


def test_a_clock_before_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.time, "time", lambda: 1_000_000.0)
    found = machine.check_clock()
    assert found.level == "wrong" and "1970-01-12" in found.found


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert machine.check_cluster().level == "ok"
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    assert machine.check_cluster().level == "wrong"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        assert machine.check_cluster().level == "ok"


class Fake(ScoringServiceServicer, DetectionServiceServicer, JobServiceServicer):
    """All services, as well as they are told to be."""

    late_s = 0.0
    jobs: tuple[grpc.StatusCode, str] | None = (grpc.StatusCode.NOT_FOUND, "Application 'jobs' not found")
    reload_error = ""
    received = 0

    def GetModelInfo(self, request: Any, context: Any) -> Any:
        import time

        context.set_trailing_metadata(((SERVER_TIME_MS, str(int((time.time() - self.late_s) * 1000))),))
        kind: Any = scoring_pb2 if isinstance(request, scoring_pb2.GetModelInfoRequest) else detection_pb2
        info = common_pb2.ModelInfo(name="fake", hash="0" * 64)
        return kind.GetModelInfoResponse(model=info, reload_error=self.reload_error)

    def List(self, request: Any, context: Any) -> Any:
        if self.jobs is not None:
            context.abort(*self.jobs)
        return jobs_pb2.ListResponse()

    def EmbedImages(self, request: Any, context: Any) -> Any:
        self.received = len(request.images[0].data)
        response = scoring_pb2.EmbedImagesResponse()
        response.results.add().embedding.values.append(1.0)
        return response


@pytest.fixture
def fake() -> Iterator[tuple[Fake, str]]:
    servicer = Fake()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    add_ScoringServiceServicer_to_server(servicer, server)
    add_DetectionServiceServicer_to_server(servicer, server)
    add_JobServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None)


def test_services_that_are_well(fake: tuple[Fake, str]) -> None:
    servicer, address = fake
    found = levels(services.check_services(address))
    assert found == {"detection": "ok", "scoring": "ok", "5 MB payload": "ok", "jobs": "ok"}
    assert 5_000_000 <= servicer.received < 5_200_000


def test_services_that_are_late_or_could_not_change_their_model(fake: tuple[Fake, str]) -> None:
    servicer, address = fake
    servicer.late_s, servicer.reload_error = 3600.0, "clip_2: no such folder"
    found = {finding.checked: finding for finding in services.check_services(address)}
    assert found["clock of scoring"].level == "warning" and "3600 s" in found["clock of scoring"].found
    assert found["detection"].level == "warning" and "clip_2: no such folder" in found["detection"].advice


def test_a_job_service_without_its_dashboard(fake: tuple[Fake, str]) -> None:
    servicer, address = fake
    servicer.jobs = (grpc.StatusCode.UNAVAILABLE, "Ray's job API does not answer; start the dashboard")
    jobs = {finding.checked: finding for finding in services.check_services(address)}["jobs"]
    assert jobs.level == "wrong" and "job" in jobs.found and jobs.advice
    servicer.jobs = None
    jobs = {finding.checked: finding for finding in services.check_services(address)}["jobs"]
    assert jobs.level == "ok" and "answers" in jobs.found


def test_the_command_says_what_to_do_and_ends_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    verb = load_verb("doctor")
    nobody = f"127.0.0.1:{free_port()}"
    done = CliRunner().invoke(command_of(verb), ["--services", nobody, "--out", str(tmp_path)])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.split()[:2] == ["wrong", "scoring"]]
    assert lines[at + 1].strip().startswith("->") and "onmodel serve up" in lines[at + 1]
    assert lines[-1].endswith(" 4 wrong")


def command_of(command: Any) -> Any:
    """What typer's test runner takes, of a command that is made already."""
    import typer

    made = typer.Typer()
    made.command()(command.callback)
    return made


def test_an_address_that_is_none_is_bad_usage() -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        load_verb("doctor").main(["--services", "nowhere"], standalone_mode=False)
    assert os.environ.get("ONMODEL_TOKEN") is None
