"""Wire ↔ domain for scoring, and the domain's result types."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onmodel.common.convert import error_from_wire, error_to_wire
from onmodel.core.errors import ImageError, OnModelError
from onmodel.scoring.metrics import Interval
from onmodel.scoring.v1 import scoring_pb2 as pb

Vector = npt.NDArray[np.float32]
"""float32 (width,) of unit length."""


@dataclass(frozen=True)
class Consistency:
    """How alike the pictures of one group are."""

    pairwise: Interval
    """Mean pairwise cosine; `count` is the number of pictures."""
    minimum: float
    """The least alike pair's cosine."""
    errors: dict[int, ImageError]
    """Pictures left out, by index in the group."""


@dataclass(frozen=True)
class Identity:
    """How like the references one picture is."""

    similarity: float
    """Mean cosine to the references."""
    nearest: float
    """Greatest cosine to one of them."""
    calibrated: float | None
    """`similarity` with impostors' mean at 0 and the references' own at 1, where impostors were given."""


@dataclass(frozen=True)
class ConsistencyScores:
    """Answer of `ScoreConsistency`."""

    groups: list[Consistency | ImageError]
    overall: Interval | None
    """Over the groups' means; None when no group could be scored."""


@dataclass(frozen=True)
class IdentityScores:
    """Answer of `ScoreIdentity`."""

    results: list[Identity | ImageError]
    overall: Interval | None
    """Over the similarities."""
    reference_errors: dict[int, ImageError]
    impostor_errors: dict[int, ImageError]


@dataclass(frozen=True)
class PromptScores:
    """Answer of `ScorePrompt`."""

    results: list[float | ImageError]
    overall: Interval | None


def embedding_to_wire(vector: Vector) -> pb.Embedding:
    """The message of one vector."""
    return pb.Embedding(values=vector.tolist())


def embedding_from_wire(message: pb.Embedding) -> Vector:
    """The vector of one message."""
    return np.array(message.values, dtype=np.float32)


def embed_result_to_wire(outcome: Vector | OnModelError) -> pb.EmbedImageResult:
    """One picture's vector or error."""
    if isinstance(outcome, OnModelError):
        return pb.EmbedImageResult(error=error_to_wire(outcome))
    return pb.EmbedImageResult(embedding=embedding_to_wire(outcome))


def embed_result_from_wire(message: pb.EmbedImageResult) -> Vector | ImageError:
    """One picture's vector or error."""
    if message.WhichOneof("outcome") == "error":
        return error_from_wire(message.error)
    return embedding_from_wire(message.embedding)


def interval_to_wire(interval: Interval) -> pb.Interval:
    """The message of `interval`."""
    return pb.Interval(mean=interval.mean, low=interval.low, high=interval.high, count=interval.count)


def interval_from_wire(message: pb.Interval) -> Interval:
    """The domain value of `message`."""
    return Interval(message.mean, message.low, message.high, message.count)


def indexed_errors_to_wire(outcomes: Sequence[object]) -> list[pb.IndexedError]:
    """The errors among `outcomes`, with their indices."""
    return [
        pb.IndexedError(index=index, error=error_to_wire(outcome))
        for index, outcome in enumerate(outcomes)
        if isinstance(outcome, OnModelError)
    ]


def indexed_errors_from_wire(messages: Iterable[pb.IndexedError]) -> dict[int, ImageError]:
    """Errors by index."""
    return {message.index: error_from_wire(message.error) for message in messages}


def consistency_from_wire(message: pb.ScoreConsistencyResponse) -> ConsistencyScores:
    """The domain value of a whole answer."""
    groups: list[Consistency | ImageError] = []
    for group in message.groups:
        if group.WhichOneof("outcome") == "error":
            groups.append(error_from_wire(group.error))
            continue
        found = group.consistency
        errors = indexed_errors_from_wire(group.image_errors)
        groups.append(Consistency(interval_from_wire(found.pairwise), found.minimum, errors))
    return ConsistencyScores(groups, _overall(message))


def identity_from_wire(message: pb.ScoreIdentityResponse) -> IdentityScores:
    """The domain value of a whole answer."""
    results: list[Identity | ImageError] = []
    for result in message.results:
        if result.WhichOneof("outcome") == "error":
            results.append(error_from_wire(result.error))
            continue
        found = result.identity
        calibrated = found.calibrated if found.HasField("calibrated") else None
        results.append(Identity(found.similarity, found.nearest, calibrated))
    return IdentityScores(
        results,
        _overall(message),
        indexed_errors_from_wire(message.reference_errors),
        indexed_errors_from_wire(message.impostor_errors),
    )


def prompt_from_wire(message: pb.ScorePromptResponse) -> PromptScores:
    """The domain value of a whole answer."""
    results: list[float | ImageError] = [
        error_from_wire(result.error) if result.WhichOneof("outcome") == "error" else result.similarity
        for result in message.results
    ]
    return PromptScores(results, _overall(message))


def _overall(
    message: pb.ScoreConsistencyResponse | pb.ScoreIdentityResponse | pb.ScorePromptResponse,
) -> Interval | None:
    return interval_from_wire(message.overall) if message.HasField("overall") else None
