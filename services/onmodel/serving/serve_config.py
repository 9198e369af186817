"""Serve configs read strictly: Serve itself silently ignores a key that it does not know, or one a level too deep."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from onmodel.core.config import Config, validate
from onmodel.core.errors import NotFoundError, UserError
from onmodel.serving.config import APP_NAMES

DEFAULT_CONFIG = Path(__file__).with_name("serve.yaml")
"""Also at cluster/serve.yaml in the repository."""


def read_serve_config(path: Path) -> dict[str, Any]:
    """Read and check a Serve config: its keys at every level, its values, and our applications' `args`.

    Raises NotFoundError or UserError with the file, the key and the nearest known one.
    """
    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); check the file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}; mend that line") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a table of keys, not a {type(value).__name__}")
    check_serve_config(value, str(path))
    return value


def check_serve_config(value: dict[str, Any], source: str) -> None:
    """Check a Serve config that is already a mapping; `source` stands in the error. Raises UserError."""
    from ray.serve.schema import ServeDeploySchema

    problems = list(_unknown_keys(ServeDeploySchema, value, ()))
    if problems:
        raise UserError(f"{source}: " + "; ".join(problems))
    try:
        ServeDeploySchema.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: `{key}`: {first['msg']}") from None
    for app in value["applications"]:
        _check_app(app, source)


def _check_app(app: dict[str, Any], source: str) -> None:
    if app.get("name") not in (*APP_NAMES, "jobs"):
        names = ", ".join((*APP_NAMES, "jobs"))
        raise UserError(f"{source}: no application is called `{app.get('name')}`; ours are {names}")
    if not app.get("route_prefix", "/"):
        raise UserError(f"{source}: `{app['name']}` has no route_prefix; Serve routes no gRPC to it then: give it one")
    from onmodel.detection.app import DetectionArgs, DetectionModel
    from onmodel.jobs.service import JobsArgs
    from onmodel.scoring.app import ScoringArgs, ScoringModel

    known: dict[str, tuple[type[Config], type[Config]]] = {
        "onmodel.detection.app:build": (DetectionArgs, DetectionModel),
        "onmodel.scoring.app:build": (ScoringArgs, ScoringModel),
        "onmodel.jobs.app:build": (JobsArgs, Config),
    }
    if app["import_path"] not in known:
        raise UserError(
            f"{source}: `{app['name']}`: import_path `{app['import_path']}` is not one of {', '.join(known)}"
        )
    args, model = known[app["import_path"]]
    validate(args, app.get("args") or {}, f"{source}, args of {app['name']}")
    for deployment in app.get("deployments") or []:
        validate(model, deployment.get("user_config") or {}, f"{source}, user_config of {deployment['name']}")


def _unknown_keys(model: type[BaseModel], value: Any, place: tuple[str, ...]) -> list[str]:
    """One sentence for each key of `value` that `model` does not have, at any depth."""
    if isinstance(value, list):
        return [problem for item in value for problem in _unknown_keys(model, item, place)]
    if not isinstance(value, dict):
        return []
    problems: list[str] = []
    for key, inner in value.items():
        field = model.model_fields.get(key)
        if field is None:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(model.model_fields))}"
            problems.append(f"unknown key `{'.'.join((*place, str(key)))}`; {hint}")
            continue
        nested = _model_in(field.annotation)
        if nested is not None:
            problems += _unknown_keys(nested, inner, (*place, str(key)))
    return problems


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
