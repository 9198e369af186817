"""Pictures that are broken or odd: reported and counted, or read as a person sees them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onmodel.dataset.analysis import Analysis, analyze
from onmodel.dataset.folder import load_dataset

from .world import Exact, Services, noise


def analysed(folder: Path) -> Analysis:
    return analyze(load_dataset(folder), Services(Exact({})))


def jpeg(mode: str = "RGB", orientation: int | None = None, size: tuple[int, int] = (64, 48)) -> bytes:
    image = Image.fromarray(noise(64)).resize(size).convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_broken_pictures_are_counted_and_sink_nothing(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg())
    (tmp_path / "truncated.jpg").write_bytes(jpeg()[:700])
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("a text with the wrong name", encoding="utf-8")
    analysis = analysed(tmp_path)
    assert (analysis.pictures, analysis.unreadable) == (1, 3)
    errors = {row.file: row.error or "" for row in analysis.rows}
    assert errors["good.jpg"] == ""
    assert "truncated" in errors["truncated.jpg"]
    assert "empty" in errors["zero.png"]
    assert "not a picture" in errors["text.png"]
    assert "3 files could not be read" in analysis.conclusion


def test_all_broken_is_said(tmp_path: Path) -> None:
    (tmp_path / "zero.png").write_bytes(b"")
    analysis = analysed(tmp_path)
    assert analysis.pictures == 0
    assert analysis.conclusion.startswith("No picture could be read")


def test_an_unreadable_file_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg())
    (tmp_path / "locked.jpg").write_bytes(jpeg())
    read = Path.read_bytes

    # Tests may run as root, whom no permission stops.
    def refuse(self: Path) -> bytes:
        if self.name == "locked.jpg":
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    analysis = analysed(tmp_path)
    assert (analysis.pictures, analysis.unreadable) == (1, 1)
    (row,) = [row for row in analysis.rows if row.error]
    assert "Permission denied" in str(row.error)
    assert row.hash is None


def test_odd_pictures_are_read(tmp_path: Path) -> None:
    (tmp_path / "cmyk.jpg").write_bytes(jpeg("CMYK"))
    Image.fromarray((np.arange(64 * 48).reshape(48, 64) * 20).astype(np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.fromarray(noise(32, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "rotated.jpg").write_bytes(jpeg(orientation=6))
    analysis = analysed(tmp_path)
    assert analysis.unreadable == 0
    sizes = {row.file: (row.width, row.height) for row in analysis.rows}
    assert sizes == {"cmyk.jpg": (64, 48), "deep.png": (64, 48), "moving.gif": (32, 32), "rotated.jpg": (48, 64)}


def test_real_photographs_with_exif_and_all(shared_assets: Path, tmp_path: Path) -> None:
    for name in ("dog6", "red_cartoon", "robot_toy"):
        for path in (shared_assets / "subjects" / name).glob("*.jpg"):
            (tmp_path / f"{name}_{path.name}").write_bytes(path.read_bytes())
    analysis = analysed(tmp_path)
    assert analysis.pictures == 14
    assert analysis.unreadable == 0
    assert analysis.unclassified == 14  # the stand-in knows none of them
