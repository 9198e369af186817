"""Labels that a person corrected, in `labels.jsonl` beside a dataset: from then on they count over the detector's.

One JSON object a line: `file` (path below the folder), `hash` (SHA-256 of the picture's bytes, by which it is found),
`shot_type` and `attributes`, either of them null where it was not corrected. `attributes` names all that are true.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from onmodel.core.config import Config, validate
from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.core.vocabulary import Attribute, ShotType

FILE = "labels.jsonl"
REASON = "labelled by a person"
"""Stands as the reason of a shot type that was corrected."""


class Label(Config):
    """What a person says about one picture."""

    file: str
    """Path below the folder, with forward slashes; for a person, the hash decides."""
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    shot_type: ShotType | None = None
    """None = not corrected."""
    attributes: tuple[Attribute, ...] | None = None
    """All that are true of the picture, () where none is; None = not corrected."""

    @property
    def categories(self) -> tuple[str, ...] | None:
        """The categories that the picture counts in, sorted; None where the label does not say it all."""
        if self.shot_type is None or self.attributes is None:
            return None
        shot = () if self.shot_type is ShotType.UNCLASSIFIED else (self.shot_type.value,)
        return tuple(sorted({*shot, *(attribute.value for attribute in self.attributes)}))


def read_labels(folder: Path) -> dict[str, Label]:
    """Content hash -> label, of the file in `folder`; empty where there is none. Of two lines the later one counts.

    Raises:
        UserError: the file cannot be read, or a line is no label; names the line and the key.
    """
    path = folder / FILE
    try:
        # Not splitlines: it also splits at characters that a name may hold.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); check the file or remove it") from None
    labels: dict[str, Label] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label = validate(Label, _parse(line, path, number), f"{path} line {number}")
        labels[label.hash] = label
    return labels


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {number} is not JSON ({error}); mend that line") from None
    if not isinstance(value, dict):
        raise UserError(f'{path}: line {number} must be an object with "file" and "hash"; mend that line')
    return value


def labelled_categories(folder: Path, contents: Collection[str]) -> dict[str, tuple[str, ...]] | None:
    """Content hash -> categories of a set that is labelled whole, which then needs no analysis; None of any other.

    Raises UserError as `read_labels`.
    """
    labels = read_labels(folder)
    found = {content: labels[content].categories for content in contents if content in labels}
    whole = {content: categories for content, categories in found.items() if categories is not None}
    return whole if contents and len(whole) == len(set(contents)) else None


def write_labels(folder: Path, labels: Iterable[Label]) -> None:
    """Write the file in `folder` whole, ordered by name. Raises as `core.files.write_text`."""
    rows = [label.model_dump_json() for label in sorted(labels, key=lambda label: (label.file, label.hash))]
    write_text(folder / FILE, "".join(row + "\n" for row in rows))
