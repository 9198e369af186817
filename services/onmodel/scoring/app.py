"""Serve application "scoring"."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve import Application

from onmodel.common.edge import rpc
from onmodel.common.pictures import Intake, count_items
from onmodel.core.config import Config
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.convert import Vector
from onmodel.scoring.v1 import scoring_pb2 as pb

if TYPE_CHECKING:
    from onmodel.scoring.model import Pixels

NAME = "scoring"


class ScoringArgs(Config):
    """The application's `args` in a Serve config."""

    scorer: ScorerConfig = ScorerConfig()
    intake: Intake = Intake()


@serve.deployment(
    name="Scoring",
    # Requests of one picture each must be able to fill a batch.
    max_ongoing_requests=64,
    max_queued_requests=256,
    ray_actor_options={"num_cpus": 0.1},
)
class Scoring:
    """One replica: a CLIP model and a pool of decoding threads. Methods are named as the RPCs."""

    def __init__(self, args: ScoringArgs) -> None:
        # Imported here: whoever deploys this class has no need of torch, and it takes seconds to import.
        import torch

        from onmodel.scoring.model import load_scorer
        from onmodel.scoring.service import ScoringService

        # Ray sets OMP_NUM_THREADS by the actor's share of a CPU, which would leave the model one thread.
        torch.set_num_threads(args.intake.model_threads or os.cpu_count() or 1)
        self._scorer = load_scorer(args.scorer)
        size = args.scorer.batch_size
        batched: Any = self._embed
        batched.set_max_batch_size(size)
        self._service = ScoringService(self._scorer, args.intake, size, self._embed)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005, batch_size_fn=count_items)
    async def _embed(self, pieces: list[list["Pixels"]]) -> list[list[Vector]]:
        flat = [pixels for piece in pieces for pixels in piece]
        vectors = iter(await asyncio.to_thread(self._scorer.embed_pixels, flat))
        return [[next(vectors) for _ in piece] for piece in pieces]

    @rpc
    async def EmbedImages(self, request: pb.EmbedImagesRequest) -> pb.EmbedImagesResponse:
        return await self._service.embed_images(request)

    @rpc
    async def EmbedTexts(self, request: pb.EmbedTextsRequest) -> pb.EmbedTextsResponse:
        return await self._service.embed_texts(request)

    @rpc
    async def ScoreConsistency(self, request: pb.ScoreConsistencyRequest) -> pb.ScoreConsistencyResponse:
        return await self._service.score_consistency(request)

    @rpc
    async def ScoreIdentity(self, request: pb.ScoreIdentityRequest) -> pb.ScoreIdentityResponse:
        return await self._service.score_identity(request)

    @rpc
    async def ScorePrompt(self, request: pb.ScorePromptRequest) -> pb.ScorePromptResponse:
        return await self._service.score_prompt(request)

    @rpc
    async def GetModelInfo(self, request: pb.GetModelInfoRequest) -> pb.GetModelInfoResponse:
        return self._service.model_info()


def build(args: ScoringArgs) -> Application:
    """The application, from a Serve config's `args`."""
    return Scoring.bind(args)
