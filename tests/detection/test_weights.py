"""Weights by path, by name, placed by hand, or missing."""

import re
from pathlib import Path

import pooch
import pytest
import torch

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import file_hash
from onmodel.detection import weights
from onmodel.detection.config import DetectorConfig
from onmodel.detection.model import load_detector


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.ENVIRONMENT, str(tmp_path))
    return tmp_path


def offline(*_: object, **__: object) -> str:
    raise ConnectionError("no route to host")


def test_offline_says_what_to_put_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(NotFoundError) as caught:
        weights.find_weights("yolox_nano")
    message = str(caught.value)
    assert "yolox_nano.onnx" in message
    assert str(folder) in message
    assert weights.KNOWN["yolox_nano"].url in message
    assert not list(folder.iterdir())


def test_what_the_address_gives_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> str:
        raise ValueError("SHA256 hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", wrong)
    with pytest.raises(NotFoundError, match="not the published file"):
        weights.find_weights("yunet")


def test_a_placed_file_is_found_under_either_name(folder: Path, shared_assets: Path) -> None:
    source = shared_assets / "detector" / "face_detection_yunet.onnx"
    placed = folder / source.name
    placed.write_bytes(source.read_bytes())
    assert weights.find_weights("yunet") == placed
    assert file_hash(placed) == weights.KNOWN["yunet"].sha256
    assert placed.stat().st_size == weights.KNOWN["yunet"].size


def test_a_placed_file_of_other_content_is_refused(folder: Path) -> None:
    (folder / "yolox_nano.onnx").write_bytes(b"something else")
    with pytest.raises(UserError, match="not the published yolox_nano"):
        weights.find_weights("yolox_nano")


def test_any_file_in_the_folder_goes_by_its_name(folder: Path) -> None:
    (folder / "mine.onnx").write_bytes(b"x")
    assert weights.find_weights("mine.onnx") == folder / "mine.onnx"
    with pytest.raises(NotFoundError, match=r"other\.pt"):
        weights.find_weights("other.pt")


@pytest.mark.parametrize("kind", ["yolox", "ultralytics"])
def test_a_file_that_is_no_model_is_one_sentence(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"no model at all")
    with pytest.raises(UserError, match=r"weights\.pt: not "):
        load_detector(DetectorConfig.model_validate({"kind": kind, "weights": weights.pinned(path)}))


class _Evil:
    """What a pickle may hold: loading it runs this."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("kind", ["yolox", "ultralytics"])
def test_a_file_that_can_run_code_is_opened_by_its_hash_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": _Evil(tmp_path / "ran")}, path)
    trusted = weights.pinned(path)
    for name, says in (
        (str(path), re.escape(trusted)),
        (f"{path}@sha256:{'0' * 64}", "is not the file that"),
        (f"{path}@sha256:", "by their hash alone"),
    ):
        with pytest.raises(UserError, match=says):
            load_detector(DetectorConfig.model_validate({"kind": kind, "weights": name}))
    assert not (tmp_path / "ran").exists()
    assert weights.find_weights(trusted) == path
    path.write_bytes(path.read_bytes() + b"changed since")
    with pytest.raises(UserError, match="is not the file that"):
        weights.find_weights(trusted)


def test_presets_and_roles() -> None:
    assert DetectorConfig.preset("film").kind == "yolox"
    with pytest.raises(NotFoundError, match="toybox, film"):
        DetectorConfig.preset("photo")
    with pytest.raises(ValueError, match="two roles"):
        DetectorConfig(face_classes=("a",), occluder_classes=("a",))


def test_the_hash_follows_what_changes_answers() -> None:
    base = DetectorConfig()
    assert base.hash == DetectorConfig(device="cpu", threads=3, batch_size=2).hash
    assert base.hash != DetectorConfig(confidence=0.3).hash
    assert base.hash != DetectorConfig.model_validate({"shots": {"far_height": 0.4}}).hash
