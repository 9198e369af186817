"""Reference pages for other programs: the gRPC contracts with their comments, and the Python clients.

Generated when the site is built (`scripts/build_docs.py`), never committed.
"""

import dataclasses
import inspect
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from docs_text import cell, inline, prose
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

from onmodel.common.channel import ServiceClient
from onmodel.common.convert import ModelInfo
from onmodel.core.vocabulary import Box, Decision, Detections, Instance
from onmodel.detection.client import DetectionClient
from onmodel.detection.convert import Detected
from onmodel.jobs.client import JobClient
from onmodel.jobs.request import Job, JobRequest, Resources
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.convert import Consistency, ConsistencyScores, Identity, IdentityScores, PromptScores

PROTOS = Path(__file__).resolve().parents[1] / "protos"
CLIENTS: tuple[type[Any], ...] = (DetectionClient, ScoringClient, JobClient)
ANSWERS: tuple[type[Any], ...] = (
    *(Detected, Detections, Instance, Box, Decision),
    *(ConsistencyScores, Consistency, IdentityScores, Identity, PromptScores),
    *(ModelInfo, JobRequest, Resources, Job),
)
"""What clients take and give, beside arrays and bytes."""

# Numbers of fields in descriptor.proto, of which the paths of source comments are made.
MESSAGE, ENUM, SERVICE, NESTED, FIELD, METHOD, ENUM_VALUE, NESTED_ENUM = 4, 5, 6, 3, 2, 2, 2, 4
Comments = dict[tuple[int, ...], str]


def contracts_page() -> str:
    """Markdown of every service, method, message and field below protos/, with the comments that stand there."""
    parts = [
        "# Contracts\n\nThe metadata key `application` names the service. Fields and messages are as in `protos/`.\n"
    ]
    described = _described()
    for proto in sorted(described, key=lambda each: (not each.service, each.package)):
        comments: Comments = {
            tuple(each.path): f"{each.leading_comments}\n{each.trailing_comments}".strip()
            for each in proto.source_code_info.location
        }
        parts.append(f"## {proto.package} {{ #{_slug(proto.package)} }}\n\n`protos/{proto.name}`\n")
        parts += _services(proto, comments)
        for number, message in enumerate(proto.message_type):
            parts += _message(message, f"{proto.package}.{message.name}", (MESSAGE, number), comments)
        for number, each in enumerate(proto.enum_type):
            parts += _enum(each, f"{proto.package}.{each.name}", (ENUM, number), comments)
    return "\n".join(parts)


def _described() -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "contracts.binpb"
        arguments = [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={out}",
            *(str(path) for path in sorted(PROTOS.rglob("*.proto"))),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc refused the protos; its message is above")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def _services(proto: FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for at, service in enumerate(proto.service):
        name = f"{proto.package}.{service.name}"
        yield f"### {service.name} {{ #{_slug(name)} }}\n\n{inline(comments.get((SERVICE, at), ''))}\n"
        yield "| method | takes | gives | |\n|---|---|---|---|"
        for number, method in enumerate(service.method):
            note = comments.get((SERVICE, at, METHOD, number), "")
            takes, gives = _link(method.input_type), _link(method.output_type)
            gives = f"stream of {gives}" if method.server_streaming else gives
            yield f"| `{method.name}` | {takes} | {gives} | {cell(inline(note))} |"
        yield ""


def _message(message: DescriptorProto, name: str, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"### {message.name} {{ #{_slug(name)} }}\n\n{inline(comments.get(path, ''))}\n"
    if not message.field:
        yield "No fields.\n"
    else:
        yield "| field | number | type | |\n|---|---|---|---|"
        for number, field in enumerate(message.field):
            note = inline(comments.get((*path, FIELD, number), ""))
            if field.HasField("oneof_index") and not field.proto3_optional:
                note = f"One of `{message.oneof_decl[field.oneof_index].name}`. {note}"
            yield f"| `{field.name}` | {field.number} | {_kind(field, message)} | {cell(note)} |"
        yield ""
    for number, inner in enumerate(message.nested_type):
        if not inner.options.map_entry:
            yield from _message(inner, f"{name}.{inner.name}", (*path, NESTED, number), comments)
    for number, each in enumerate(message.enum_type):
        yield from _enum(each, f"{name}.{each.name}", (*path, NESTED_ENUM, number), comments)


def _enum(each: Any, name: str, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"### {each.name} {{ #{_slug(name)} }}\n\n{inline(comments.get(path, ''))}\n"
    yield "| value | number | |\n|---|---|---|"
    for number, value in enumerate(each.value):
        note = comments.get((*path, ENUM_VALUE, number), "")
        yield f"| `{value.name}` | {value.number} | {cell(inline(note))} |"
    yield ""


def _kind(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    if not field.type_name:
        kind = f"`{FieldDescriptorProto.Type.Name(field.type).removeprefix('TYPE_').lower()}`"
    else:
        entry = next((e for e in message.nested_type if field.type_name.endswith(f".{message.name}.{e.name}")), None)
        if entry is not None and entry.options.map_entry:
            return f"map of {_kind(entry.field[0], entry)} to {_kind(entry.field[1], entry)}"
        kind = _link(field.type_name)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _slug(name: str) -> str:
    return name.strip(".").lower().replace(".", "-")


def _link(type_name: str) -> str:
    return f"[{type_name.rpartition('.')[2]}](#{_slug(type_name)})"


def clients_page() -> str:
    """Markdown of the Python clients: signatures and docstrings, and the types of what they take and give."""
    shared = inspect.cleandoc(ServiceClient.__doc__ or "")
    parts = [f"# Python clients\n\n{prose(shared)}\n"]
    for client in CLIENTS:
        parts.append(f"## {client.__name__}\n\n`from {client.__module__} import {client.__name__}`\n")
        parts.append(prose(inspect.cleandoc(client.__doc__ or "")) + "\n")
        parts.append(_signature(client.__name__, client.__init__))
        for name, method in _methods(client).items():
            parts.append(f"### {name} {{ #{client.__name__.lower()}-{name.replace('_', '-')} }}\n")
            parts.append(_signature(name, method))
            parts.append(prose(inspect.getdoc(method) or "") + "\n")
    parts.append("## What they take and give\n")
    parts += [_fields(each) for each in ANSWERS]
    return "\n".join(parts)


def _methods(client: type[Any]) -> dict[str, Any]:
    """A client's methods, with those of what it shares with others, but not what every connection has."""
    found: dict[str, Any] = {}
    for owner in client.__mro__:
        if not issubclass(ServiceClient, owner):
            found |= {name: each for name, each in vars(owner).items() if name not in found}
    return {name: each for name, each in found.items() if inspect.isfunction(each) and not name.startswith("_")}


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    shown = [each for each in signature.parameters.values() if each.name != "self"]
    given = [_parameter(each) for each in shown]
    line = f"{name}({', '.join(given)}){_arrow(signature)}"
    if len(line) > 88:
        line = f"{name}(\n    " + ",\n    ".join(given) + f",\n){_arrow(signature)}"
    return f"```python\n{line}\n```\n"


def _parameter(each: inspect.Parameter) -> str:
    default = "" if each.default is inspect.Parameter.empty else f" = {each.default!r}"
    mark = "*, " if each.kind is inspect.Parameter.KEYWORD_ONLY else ""
    return f"{mark}{each.name}: {_name(each.annotation)}{default}"


def _arrow(signature: inspect.Signature) -> str:
    empty = signature.return_annotation in (inspect.Signature.empty, None)
    return "" if empty else f" -> {_name(signature.return_annotation)}"


def _name(annotation: Any) -> str:
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    for part in sorted(
        {word for word in text.replace("[", " ").replace(",", " ").replace("]", " ").split() if "." in word}
    ):
        text = text.replace(part, part.rpartition(".")[2])
    return text


def _fields(kind: type[Any]) -> str:
    from docs_commands import field_notes

    notes = field_notes(kind)
    if dataclasses.is_dataclass(kind):
        names = {each.name: each.type for each in dataclasses.fields(kind)}
    else:
        names = {name: each.annotation for name, each in kind.model_fields.items()}
    lines = [
        f"### {kind.__name__}\n\n{prose(inspect.cleandoc(kind.__doc__ or ''))}\n",
        "| field | type | |",
        "|---|---|---|",
    ]
    for name, annotation in names.items():
        lines.append(f"| `{name}` | `{cell(_name(annotation))}` | {cell(prose(notes.get(name, '')))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(contracts_page() + clients_page())
