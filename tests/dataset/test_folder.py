"""Datasets as folders, repeat folders, metadata and sd-scripts TOML; and what is said when there is none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onmodel.core.errors import NotFoundError, UserError
from onmodel.dataset.folder import load_dataset, repeats_of

Write = Callable[[Path], Path]


def test_flat_folder_with_captions(tmp_path: Path, picture: Write) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("\ufeffzibo, close-up\n", encoding="utf-8")
    picture(tmp_path / "b.PNG")
    (tmp_path / "b.caption").write_text("zibo, full body", encoding="utf-8")
    picture(tmp_path / "c.webp")
    (tmp_path / "readme.md").write_text("no picture", encoding="utf-8")
    dataset = load_dataset(tmp_path)
    assert [(dataset.relative(p), p.caption, p.repeats) for p in dataset.pictures] == [
        ("a.png", "zibo, close-up", 1),
        ("b.PNG", "zibo, full body", 1),
        ("c.webp", "", 1),
    ]
    assert len(dataset.pictures[0].hash) == 64


def test_repeat_folders(tmp_path: Path, picture: Write) -> None:
    picture(tmp_path / "10_zibo boy" / "a.png")
    picture(tmp_path / "2_zibo" / "b.png")
    picture(tmp_path / "notes" / "c.png")
    dataset = load_dataset(tmp_path)
    assert [(dataset.relative(p), p.repeats, p.class_tokens) for p in dataset.pictures] == [
        ("10_zibo boy/a.png", 10, "zibo boy"),
        ("2_zibo/b.png", 2, "zibo"),
    ]
    assert repeats_of("zibo") == (None, None)
    assert repeats_of("3_") == (3, None)


def test_metadata(tmp_path: Path, picture: Write) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub" / "b.png")
    # A line separator within a text ends no line of the file.
    rows = [{"file_name": "a.png", "text": "one\u2028more"}, {"file_name": "sub/b.png", "text": "two"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    assert [p.caption for p in load_dataset(tmp_path).pictures] == ["one\u2028more", "two"]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{oops\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 2"):
        load_dataset(tmp_path)


def test_sd_scripts_toml(tmp_path: Path, picture: Write) -> None:
    picture(tmp_path / "pics" / "a.png")
    (tmp_path / "pics" / "a.txt").write_text("a boy", encoding="utf-8")
    picture(tmp_path / "reg" / "r.png")
    config = tmp_path / "set.toml"
    config.write_text(
        '[general]\ncaption_extension = ".txt"\n[[datasets]]\nresolution = 512\n'
        '[[datasets.subsets]]\nimage_dir = "pics"\nnum_repeats = 4\nclass_tokens = "zibo"\ncaption_prefix = "zibo,"\n'
        '[[datasets.subsets]]\nimage_dir = "reg"\nis_reg = true\n',
        encoding="utf-8",
    )
    dataset = load_dataset(config)
    assert [(p.path.name, p.repeats, p.caption) for p in dataset.pictures] == [("a.png", 4, "zibo, a boy")]
    config.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "gone"\n', encoding="utf-8")
    with pytest.raises(NotFoundError, match="gone"):
        load_dataset(config)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such dataset folder"):
        load_dataset(tmp_path / "nowhere")


def test_an_empty_folder_is_told_from_one_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the folder is empty; expected pictures \(.*png"):
        load_dataset(tmp_path)
    for name in ("a.txt", "b.txt", "notes.md"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match=r"2 \.txt files, 1 \.md file, 1 folder \(pictures\) not named"):
        load_dataset(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path, picture: Write) -> None:
    with pytest.raises(UserError, match="is a file"):
        load_dataset(picture(tmp_path / "a.png"))


def test_a_caption_that_is_no_text_is_named(tmp_path: Path, picture: Write) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00bad\xff")
    with pytest.raises(UserError, match=r"a\.txt: the caption is not UTF-8"):
        load_dataset(tmp_path)
