"""A command line made ready for another machine: its configs travel along, everything else must lie where nodes see it.

Every word is looked at by itself. What names a config that lies here becomes `onmodel-file:NAME`, and so does what that
config names. An absolute path or an s3:// URI stays as it is. A relative path needs a workspace to be relative to.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onmodel.core.errors import UserError
from onmodel.core.roots import S3
from onmodel.jobs.request import FILE

SUFFIXES = (".toml", ".json", ".yaml", ".yml")
LARGEST_CONFIG_BYTES = 32 << 20
"""An analysis of some ten thousand pictures; what is larger is data."""
OUTPUT_OPTIONS = ("--output", "--out", "--html")
"""Options of verbs whose value is written; every one that begins with `--output` is."""
OUTPUT_KEYS = ("output", "logging_dir")
"""The same for keys of configs."""
PATH_KEYS = re.compile(
    r"(_dir|_path|_file|_folder|_config)$|^(dataset|references|impostors|training|base|files|backgrounds|companions"
    r"|foregrounds|required_characters|required_characters_alt)$"
)
"""Keys whose value is a path, or a name where no such path exists."""
OTHER_URI = re.compile(r"(file|https?|ftp|gs|gcs|az|abfs|hdfs|ssh|sftp)://", re.IGNORECASE)
WRITES_BY_ITSELF = {"train": "output_dir", "ablate": "output_dir", "demo": "--out"}
"""Verbs that write to a relative folder unless this says where."""


class Shipment:
    """What of a command line goes along, and how it reads on the other side."""

    def __init__(self, arguments: Sequence[str], paths: Sequence[Path], *, workspace: bool) -> None:
        """Read the configs that `arguments` name.

        Args:
            arguments: the verb and what follows it.
            paths: which values the verb takes for paths.
            workspace: whether relative paths have a place to be relative to.

        Raises:
            UserError: a relative path without a workspace, or a config too large or not text.
        """
        # A project file's paths are relative to it, wherever it lies.
        self._workspace = workspace and arguments[0] != "improve"
        self._names: dict[Path, str] = {}
        self.files: dict[str, str] = {}
        named = {str(path) for path in paths}
        words = [arguments[0]]
        for index, word in enumerate(arguments[1:], start=1):
            option, value = _option_and_value(arguments[index - 1], word)
            words.append(word.removesuffix(value) + self._value(value, option, named))
        self.arguments = tuple(words)
        self._check_output()

    def _check_output(self) -> None:
        key = WRITES_BY_ITSELF.get(self.arguments[0])
        if key is None or self._workspace or key in self.arguments or (not self.files and key == "output_dir"):
            return
        given = (value for name, text in self.files.items() for each, value in strings(name, text) if each == key)
        if not any(value.startswith(("/", S3)) for value in given):
            raise UserError(
                f"{self.arguments[0]}: nothing says where on the cluster its results go; set `{key}` to an absolute "
                "path or an s3:// URI, or give --workspace"
            )

    def _value(self, value: str, option: str, named: set[str]) -> str:
        if not value or (value.startswith(("-", "/", S3)) and not _is_config(Path(value))):
            return value
        written = is_output(option)
        if not written and _is_config(Path(value)):
            return FILE + self._take(Path(value))
        is_path = str(Path(value)) in named or Path(value).exists()
        if is_path and not self._workspace and not Path(value).is_absolute():
            raise UserError(
                f"{value}: a relative path means nothing on the cluster; give the absolute path of a folder that its "
                "nodes see, an s3:// URI, or --workspace with the folder that it is relative to"
            )
        return value

    def _take(self, file: Path) -> str:
        """Take a config along, and those that it names; gives its name on the other side."""
        file = file.resolve()
        if file in self._names:
            return self._names[file]
        # Numbered: two folders may hold files of one name.
        name = self._names[file] = f"{len(self._names):02d}_{file.name}"
        if file.stat().st_size > LARGEST_CONFIG_BYTES:
            raise UserError(
                f"{file}: {file.stat().st_size >> 20} MiB are too much for a config; put it where the nodes see it"
            )
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read as text ({error}); check the file") from None
        for key, value in strings(file.name, text):
            found = next((at for at in (file.parent / value, Path(value)) if _is_config(at)), None)
            if found is not None and not is_output_key(key):
                text = _with(text, value, FILE + self._take(found), file)
            elif PATH_KEYS.search(key) and not value.startswith(("/", S3)):
                self._check_relative(file, key, value)
        self.files[name] = text
        return name

    def _check_relative(self, file: Path, key: str, value: str) -> None:
        """Refuse a relative path of a config that would mean nothing, or something else, on the cluster."""
        here, beside = Path(value).exists(), (file.parent / value).exists()
        if not value or not (here or beside or key.endswith("_dir")) or (self._workspace and (here or not beside)):
            return
        advice = "" if beside and not here else ", or give --workspace with the folder that it is relative to"
        raise UserError(
            f"{file}: `{key}` = {value!r} is a relative path, which means nothing on the cluster; make it absolute or "
            f"an s3:// URI{advice}"
        )


def _with(text: str, value: str, new: str, file: Path) -> str:
    """`text` with a quoted value replaced."""
    changed = text.replace(f'"{value}"', f'"{new}"').replace(f"'{value}'", f"'{new}'")
    if changed == text:
        raise UserError(f"{file}: {value!r} names a config that has to travel along; write it in plain quotes")
    return changed


def _option_and_value(before: str, word: str) -> tuple[str, str]:
    """The option that a word belongs to ("" for a bare one), and the part of the word that may name a file."""
    if word.startswith("--"):
        option, _, value = word.partition("=")
        return option, value
    option = before if before.startswith("--") and "=" not in before else ""
    # `--reference zibo=FOLDER`
    return option, word.rpartition("=")[2]


def is_output(option: str) -> bool:
    """Whether an option's value is written rather than read."""
    return option in OUTPUT_OPTIONS or option.startswith("--output")


def is_output_key(key: str) -> bool:
    """Whether the value of a config's key is written rather than read."""
    return key.startswith(OUTPUT_KEYS)


def _is_config(path: Path) -> bool:
    # A dataset TOML is a config too; `is_file` fails on names that no file can have.
    try:
        return path.suffix.lower() in SUFFIXES and path.is_file()
    except (OSError, ValueError):
        return False


def strings(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Every string of a config with its key, at any depth. Raises UserError: it cannot be parsed."""
    try:
        if name.endswith(".toml"):
            value: Any = tomllib.loads(text)
        elif name.endswith(".json"):
            value = json.loads(text)
        else:
            import yaml

            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: cannot be parsed: {' '.join(str(error).split())}; mend it") from None
    yield from _strings("", value)


def _strings(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for inner, each in value.items():
            yield from _strings(str(inner), each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(key, each)


def words_of(arguments: Sequence[str], files: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """Every value of arguments and configs that may name a place, and whether it is written."""
    for index, word in enumerate(arguments[1:], start=1):
        option, _ = _option_and_value(arguments[index - 1], word)
        written = is_output(option) or (option == "--profile" and "--plan" in arguments)
        # Where `=` stands in a word, it may be part of a name or end one: each of the rests could be a path.
        parts = word.split("=")
        for start in range(len(parts)):
            yield "=".join(parts[start:]), written
    for name, text in files.items():
        for key, value in strings(name, text):
            yield value, is_output_key(key)


def places(arguments: Sequence[str], files: dict[str, str], *, results: bool = True) -> dict[str, bool]:
    """Absolute paths and s3:// URIs that a job names, each with whether it is written.

    Args:
        results: look into results of ours too (`analysis.json`), which tell of places and ask for none.

    Raises:
        UserError: a URI of another kind, a path with `..` in it, or one from somebody's home.
    """
    looked_at = files if results else {name: text for name, text in files.items() if not _is_result(name, text)}
    found: dict[str, bool] = {}
    for value, written in words_of(arguments, looked_at):
        if ".." in value.split("/"):
            raise UserError(f"{value}: `..` in a path is not taken along; write the path without it")
        if value.startswith("~"):
            raise UserError(f"{value}: `~` is another folder on the cluster; write the absolute path")
        if OTHER_URI.match(value):
            raise UserError(f"{value}: jobs read and write absolute paths and s3:// URIs alone; copy it to one of them")
        if value.startswith(("/", S3)):
            found[value.rstrip("/") or "/"] = found.get(value, False) or written
    return found


def _is_result(name: str, text: str) -> bool:
    return name.endswith(".json") and any(key == "schema_version" for key in _top_keys(text))


def _top_keys(text: str) -> list[str]:
    value: Any = json.loads(text)
    return [str(key) for key in value] if isinstance(value, dict) else []


def placed(text: str, at: dict[str, str]) -> str:
    """`text` with what stands for places elsewhere (`onmodel-file:…`, `s3://…`) replaced by where they are here."""
    if not at:
        return text
    # The longest first: one place may lie below another.
    pattern = "|".join(re.escape(name) for name in sorted(at, key=len, reverse=True))
    return re.sub(pattern, lambda match: at[match[0]], text)


def relative_to_job(files: dict[str, str], folder: Path) -> dict[str, str]:
    """`onmodel-file:NAME` -> where NAME lies in `folder`."""
    return {FILE + name: os.fspath(folder / name) for name in files}
