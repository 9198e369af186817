"""Wire ↔ domain for what the services have in common."""

from dataclasses import dataclass
from typing import TypeVar

import grpc

from onmodel.common.v1 import common_pb2 as pb
from onmodel.core.errors import ImageError, OnModelError, status_code

Result = TypeVar("Result")


@dataclass(frozen=True)
class ModelInfo:
    """What computed an answer; caches key on (hash, config_hash)."""

    name: str
    hash: str
    """Names the weights: SHA-256, 64 hex digits."""
    config_hash: str
    """SHA-256 of the settings that change answers, 64 hex digits."""


def image_to_wire(data: bytes) -> pb.Image:
    """An encoded picture file's bytes as a message."""
    return pb.Image(data=data)


def model_info_to_wire(info: ModelInfo) -> pb.ModelInfo:
    """The message of `info`."""
    return pb.ModelInfo(name=info.name, hash=info.hash, config_hash=info.config_hash)


def model_info_from_wire(message: pb.ModelInfo) -> ModelInfo:
    """The domain value of `message`."""
    return ModelInfo(message.name, message.hash, message.config_hash)


def error_to_wire(error: OnModelError) -> pb.ItemError:
    """One item's error as a canonical gRPC code and its sentence."""
    number, _ = status_code(error).value
    return pb.ItemError(code=number, message=str(error))


def error_from_wire(message: pb.ItemError) -> ImageError:
    """The ImageError of one item; every item error is about one picture."""
    return ImageError(message.message)


def code_name(number: int) -> str:
    """The name of a canonical gRPC status code, "UNKNOWN" for a number that is none."""
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")
