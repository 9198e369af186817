"""The committed code is that of the protos, and the protos keep to buf's STANDARD names."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    pytest.importorskip("grpc_tools", reason="grpcio-tools comes with the dev extra")
    spec = importlib.util.spec_from_file_location("generate_contracts", ROOT / "scripts" / "generate_contracts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_code_is_what_the_protos_give(generator: ModuleType, tmp_path: Path) -> None:
    fresh = {file.relative_to(tmp_path): file.read_text() for file in generator.generate(tmp_path)}
    services = ROOT / "services"
    committed = {file.relative_to(services): file.read_text() for file in services.glob("onmodel/*/v1/*_pb2*.py*")}
    assert committed == fresh, "run `make contracts` and commit what it writes"


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_package_is_the_folder(proto: Path) -> None:
    package = re.search(r"^package ([\w.]+);", proto.read_text(), re.MULTILINE)
    assert package is not None
    assert package[1].replace(".", "/") == proto.parent.relative_to(ROOT / "protos").as_posix()


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_rpcs_have_messages_of_their_own(proto: Path) -> None:
    for name, request, response in re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\)", proto.read_text()):
        assert (request, response) == (f"{name}Request", f"{name}Response")


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_enums_begin_unspecified_and_carry_their_name(proto: Path) -> None:
    for name, body in re.findall(r"enum (\w+) \{(.*?)\}", proto.read_text(), re.DOTALL):
        values = re.findall(r"^\s*(\w+) = (\d+);", body, re.MULTILINE)
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
        assert values[0] == (f"{prefix}_UNSPECIFIED", "0")
        assert all(value.startswith(f"{prefix}_") for value, _ in values)
