"""The scoring service's answers, made of a Scorer and the metrics. Knows messages; knows nothing of Ray."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from onmodel.common.convert import ModelInfo, error_to_wire, model_info_to_wire
from onmodel.common.pictures import Intake, Observer, Pipeline
from onmodel.common.v1 import common_pb2
from onmodel.core.errors import ImageError, OnModelError, UserError
from onmodel.scoring import metrics
from onmodel.scoring.convert import (
    Vector,
    embed_result_to_wire,
    embedding_to_wire,
    indexed_errors_to_wire,
    interval_to_wire,
)
from onmodel.scoring.model import Pixels, Scorer
from onmodel.scoring.v1 import scoring_pb2 as pb

Outcome = Vector | OnModelError
MAX_TEXTS = 4096


class ScoringService:
    """One method per RPC, named in snake case. `embed` turns prepared pictures into vectors, batched by the caller."""

    def __init__(
        self,
        scorer: Scorer,
        intake: Intake,
        batch_size: int,
        embed: Callable[[list[Pixels]], Awaitable[list[Vector]]],
        observer: Observer | None = None,
    ) -> None:
        self._scorer = scorer
        self._pipeline = Pipeline(intake, batch_size, scorer.prepare, embed, observer)

    async def embed_images(self, request: pb.EmbedImagesRequest) -> pb.EmbedImagesResponse:
        """A vector or an error per image."""
        outcomes = await self._pipeline.run(request.images)
        return pb.EmbedImagesResponse(results=[embed_result_to_wire(outcome) for outcome in outcomes])

    async def embed_texts(self, request: pb.EmbedTextsRequest) -> pb.EmbedTextsResponse:
        """A vector per text."""
        vectors = await self._embed_texts(list(request.texts))
        return pb.EmbedTextsResponse(embeddings=[embedding_to_wire(vector) for vector in vectors])

    async def score_consistency(self, request: pb.ScoreConsistencyRequest) -> pb.ScoreConsistencyResponse:
        """Pairwise likeness of each group, and the mean over groups."""
        groups = await self._embed_lists([group.images for group in request.groups])
        return await asyncio.to_thread(_consistency, groups)

    async def score_identity(self, request: pb.ScoreIdentityRequest) -> pb.ScoreIdentityResponse:
        """Likeness of each image to the references."""
        lists = await self._embed_lists([request.images, request.references, request.impostors])
        return await asyncio.to_thread(_identity, *lists)

    async def score_prompt(self, request: pb.ScorePromptRequest) -> pb.ScorePromptResponse:
        """Fit of each image to its text."""
        outcomes = await self._pipeline.run([pair.image for pair in request.pairs])
        # The same prompt is usually asked of several pictures.
        unique = list(dict.fromkeys(pair.text for pair in request.pairs))
        vectors = dict(zip(unique, await self._embed_texts(unique), strict=True))
        return _prompts(outcomes, [vectors[pair.text] for pair in request.pairs])

    def model_info(self, reload_error: str = "") -> pb.GetModelInfoResponse:
        """Which model scores, and why it is not the one asked for last."""
        info = ModelInfo(self._scorer.name, self._scorer.hash, self._scorer.config_hash)
        return pb.GetModelInfoResponse(model=model_info_to_wire(info), reload_error=reload_error)

    async def _embed_texts(self, texts: list[str]) -> Sequence[Vector]:
        if len(texts) > MAX_TEXTS:
            raise UserError(f"{len(texts)} texts in one request; the limit is {MAX_TEXTS}: send several requests")
        return list(await asyncio.to_thread(self._scorer.embed_texts, texts)) if texts else []

    async def _embed_lists(self, lists: Sequence[Sequence[common_pb2.Image]]) -> list[list[Outcome]]:
        outcomes = iter(await self._pipeline.run([image for images in lists for image in images]))
        return [[next(outcomes) for _ in images] for images in lists]


def _good(outcomes: Sequence[Outcome]) -> list[Vector]:
    return [outcome for outcome in outcomes if not isinstance(outcome, OnModelError)]


def _consistency(groups: list[list[Outcome]]) -> pb.ScoreConsistencyResponse:
    response = pb.ScoreConsistencyResponse()
    means: list[float] = []
    for outcomes in groups:
        result = response.groups.add(image_errors=indexed_errors_to_wire(outcomes))
        vectors = _good(outcomes)
        if len(vectors) < 2:
            problem = ImageError(f"group: {len(vectors)} of its {len(outcomes)} pictures can be read; it needs two")
            result.error.CopyFrom(error_to_wire(problem))
            continue
        stacked = np.stack(vectors)
        interval = metrics.consistency_interval(stacked)
        result.consistency.pairwise.CopyFrom(interval_to_wire(interval))
        result.consistency.minimum = metrics.pairwise_cosine_min(stacked)
        means.append(interval.mean)
    if means:
        response.overall.CopyFrom(interval_to_wire(metrics.bootstrap_interval(means)))
    return response


def _identity(outcomes: list[Outcome], references: list[Outcome], impostors: list[Outcome]) -> pb.ScoreIdentityResponse:
    genuine = _good(references)
    if not genuine:
        raise UserError("no reference picture can be read; give at least one picture of the character")
    stacked = np.stack(genuine)
    scale = _scale(genuine, _good(impostors))
    response = pb.ScoreIdentityResponse(
        reference_errors=indexed_errors_to_wire(references), impostor_errors=indexed_errors_to_wire(impostors)
    )
    similarities: list[float] = []
    for outcome in outcomes:
        result = response.results.add()
        if isinstance(outcome, OnModelError):
            result.error.CopyFrom(error_to_wire(outcome))
            continue
        cosines = metrics.cosines(outcome[None], stacked)[0]
        similarity = float(cosines.mean())
        result.identity.similarity, result.identity.nearest = similarity, float(cosines.max())
        if scale is not None:
            calibrated = metrics.calibrate(np.array([similarity]), impostor=scale[0], genuine=scale[1])
            result.identity.calibrated = float(calibrated[0])
        similarities.append(similarity)
    if similarities:
        response.overall.CopyFrom(interval_to_wire(metrics.bootstrap_interval(similarities)))
    return response


def _scale(references: list[Vector], impostors: list[Vector]) -> tuple[float, float] | None:
    if not impostors or len(references) < 2:
        return None
    impostor, genuine = metrics.identity_scale(np.stack(references), np.stack(impostors))
    # Where strangers are as alike as the character itself there is no scale to put anything on.
    return (impostor, genuine) if genuine > impostor else None


def _prompts(outcomes: Sequence[Outcome], texts: Sequence[Vector]) -> pb.ScorePromptResponse:
    response = pb.ScorePromptResponse()
    similarities: list[float] = []
    for outcome, text in zip(outcomes, texts, strict=True):
        if isinstance(outcome, OnModelError):
            response.results.add(error=error_to_wire(outcome))
            continue
        similarity = float(metrics.prompt_similarity(outcome[None], text[None])[0])
        response.results.add(similarity=similarity)
        similarities.append(similarity)
    if similarities:
        response.overall.CopyFrom(interval_to_wire(metrics.bootstrap_interval(similarities)))
    return response
