"""Config files read into frozen pydantic models, with errors a person can act on."""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from onmodel.core.errors import NotFoundError, OnModelError, UserError

Model = TypeVar("Model", bound=BaseModel)


class Config(BaseModel):
    """Base of every config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def read_mapping(path: Path) -> dict[str, Any]:
    """Parse a `.toml` or `.json` file. Raises UserError with file, line and cause."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); check the file") from None
    try:
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise UserError(f"{path}: not valid {kind}: {error}; mend that line") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a table of keys, not a {type(value).__name__}")
    return value


def load(model: type[Model], path: Path) -> Model:
    """Read `path` into `model`. Raises UserError naming the file, each wrong key and the nearest known one."""
    return validate(model, read_mapping(path), str(path))


def load_whole(model: type[Model], path: Path) -> Model | None:
    """What `path` holds; None where there is none, it is damaged, or it is of another version: it is made anew then."""
    try:
        return load(model, path)
    except OnModelError:
        return None


def validate(model: type[Model], value: dict[str, Any], source: str) -> Model:
    """Check `value` against `model`; `source` stands in the error."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise UserError(f"{source}: " + "; ".join(lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    location = list(item["loc"])
    key = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        known = known_keys(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(sorted(known))}"
        return f"unknown key `{key}`; {hint}"
    if item["type"] == "missing":
        return f"key `{key}` is missing; add it"
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float, bool, type(None))) else ""
    return f"`{key}`: {message[:1].lower()}{message[1:]}{shown}" if key else f"{message}"


def known_keys(model: type[BaseModel], location: list[Any]) -> list[str]:
    """The key names that `model` knows at `location` (a path of keys and list indices)."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) or next(
            (f for f in current.model_fields.values() if f.alias == part), None
        )
        current = _inner_model(field.annotation) if field is not None else None
        if current is None:
            return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None
