"""The package on the wire: the same bytes for the same code, and nothing but a package at the other end."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from onmodel.core.errors import UserError
from onmodel.jobs import bundle
from onmodel.jobs.bundle import code_hash, pack, package_files, package_folder, unpack


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "from" / "onmodel"
    (folder / "core" / "__pycache__").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "core" / "words.py").write_text("X = 1\n")
    (folder / "core" / "__pycache__" / "words.pyc").write_bytes(b"x")
    return folder


def test_what_is_packed_comes_out_the_same(package: Path, tmp_path: Path) -> None:
    data = pack(package)
    os.utime(package / "__init__.py", (1, 1))
    assert pack(package) == data
    out = unpack(data, tmp_path / "to")
    assert [file.relative_to(out).as_posix() for file in package_files(out)] == ["__init__.py", "core/words.py"]
    assert code_hash(out) == code_hash(package)
    (package / "core" / "words.py").write_text("X = 2\n")
    assert code_hash(out) != code_hash(package)


def test_the_running_package_goes_with_its_contracts_and_bundled_models() -> None:
    names = {file.relative_to(package_folder()).as_posix() for file in package_files(package_folder())}
    assert {"jobs/v1/jobs_pb2.py", "serving/serve.yaml", "evaluation/suites/character.json"} <= names
    assert not any("__pycache__" in name for name in names)


def zipped(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            if name == link:
                member.external_attr = 0o120777 << 16
            archive.writestr(member, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not a zip", "not a zip"),
        (zipped({}), "holds no `onmodel` package"),
        (zipped({"onmodel/../../x": b""}), "has no place"),
        (zipped({"/etc/passwd": b""}), "has no place"),
        (zipped({"other/__init__.py": b""}), "has no place"),
        (zipped({"onmodel/a": b"/etc"}, link="onmodel/a"), "has no place"),
        (zipped({"onmodel/__init__.py": b"x"})[:60], "not a zip"),
    ],
)
def test_what_is_no_package_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        unpack(data, tmp_path / "to")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_more_than_ray_takes_is_refused_on_both_sides(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "weights.bin").write_bytes(bytes(1 << 20))
    data = pack(package)
    monkeypatch.setattr(bundle, "LIMIT_BYTES", 1 << 19)
    with pytest.raises(UserError, match=r"the largest file is weights\.bin"):
        pack(package)
    with pytest.raises(UserError, match="unpacked"):
        unpack(data, tmp_path / "to")
