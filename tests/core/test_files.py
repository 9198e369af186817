"""What is written is whole or absent."""

import errno
from pathlib import Path

import pytest

from onmodel.core import files
from onmodel.core.errors import ResourceError, UserError


def test_write_replaces_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    files.write_text(target, "one")
    files.write_text(target, "two")
    assert target.read_text() == "two"
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_failure_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    target = tmp_path / "analysis.json"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.write_aside(target) as aside:
        aside.write_text("half")
        raise RuntimeError("killed here")
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_interrupt_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.folder_aside(tmp_path / "set") as aside:
        (aside / "a.png").write_bytes(b"x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="free some disk space"), files.write_aside(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_really_full_device_is_a_sentence() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"), full.open("wb", buffering=0) as stream:
        stream.write(b"x")


def test_unwritable_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(tmp_path / "file" / "report.html", "x")


def test_folder_aside_replaces_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with files.folder_aside(tmp_path / "set") as aside:
            (aside / name).write_text(name)
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["b"]


def test_tree_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.tree_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = files.tree_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, files.tree_hash(tmp_path)}) == 3


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name in (".zork.safetensors.abc.part", "kept.part", ".hidden", "deeper/.in.x.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".zork-000001.x.part").mkdir()
    files.remove_asides(tmp_path, tmp_path / "absent")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [".hidden", "deeper", "deeper/.in.x.part", "kept.part"]


def test_what_exists_of_a_path_may_be_a_file_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files.what_exists(tmp_path / "a" / "b") == files.what_exists(tmp_path) == tmp_path
    assert files.what_exists(tmp_path / "file" / "below" / "it") == tmp_path / "file"
