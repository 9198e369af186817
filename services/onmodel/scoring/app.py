"""Serve application "scoring"."""

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ray import serve
from ray.serve import Application

from onmodel.common.edge import rpc
from onmodel.common.metrics import PictureMetrics
from onmodel.common.pictures import Intake, count_items
from onmodel.common.reload import Reloading, by_model
from onmodel.core.config import Config, validate
from onmodel.core.imports import collector_paused
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.convert import Vector
from onmodel.scoring.v1 import scoring_pb2 as pb

if TYPE_CHECKING:
    from onmodel.scoring.model import Pixels, Scorer
    from onmodel.scoring.service import ScoringService

NAME = "scoring"


class ScoringArgs(Config):
    """The application's `args` in a Serve config."""

    intake: Intake = Intake()


class ScoringModel(Config):
    """The deployment's `user_config` in a Serve config: changed, it is loaded while the former model answers."""

    scorer: ScorerConfig = ScorerConfig()


class _Loaded(NamedTuple):
    scorer: "Scorer"
    batch_size: int
    service: "ScoringService"


@serve.deployment(
    name="Scoring",
    # Requests of one picture each must be able to fill a batch.
    max_ongoing_requests=64,
    max_queued_requests=256,
    ray_actor_options={"num_cpus": 0.1},
    user_config={"scorer": {}},
)
class Scoring:
    """One replica: a CLIP model and a pool of decoding threads. Methods are named as the RPCs."""

    def __init__(self, args: ScoringArgs) -> None:
        self._intake = args.intake
        self._metrics = PictureMetrics()
        self._model = Reloading(self._load, self._metrics.loaded)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Serve with the first `user_config` and each later one."""
        await self._model.ask(user_config)
        batched: Any = self._embed
        batched.set_max_batch_size(self._model.loaded.batch_size)

    def _load(self, user_config: dict[str, Any]) -> _Loaded:
        wanted = validate(ScoringModel, user_config, "user_config of Scoring").scorer
        # Imported here: whoever deploys this class has no need of torch, and it takes seconds to import.
        with collector_paused():
            import torch

            from onmodel.scoring.model import load_scorer
            from onmodel.scoring.service import ScoringService

        # Ray sets OMP_NUM_THREADS by the actor's share of a CPU, which would leave the model one thread.
        torch.set_num_threads(self._intake.model_threads or os.cpu_count() or 1)
        scorer = load_scorer(wanted)

        async def embed(pictures: list["Pixels"]) -> list[Vector]:
            return await self._embed((loaded, pictures))

        service = ScoringService(scorer, self._intake, wanted.batch_size, embed, self._metrics)
        loaded = _Loaded(scorer, wanted.batch_size, service)
        return loaded

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005, batch_size_fn=count_items)
    async def _embed(self, pieces: list[tuple[_Loaded, list["Pixels"]]]) -> list[list[Vector]]:
        async def work(loaded: _Loaded, pixels: list["Pixels"]) -> Iterable[Vector]:
            with self._metrics.batch(len(pixels), loaded.batch_size):
                return await asyncio.to_thread(loaded.scorer.embed_pixels, pixels)

        return await by_model(pieces, work)

    @rpc
    async def EmbedImages(self, request: pb.EmbedImagesRequest) -> pb.EmbedImagesResponse:
        return await self._model.loaded.service.embed_images(request)

    @rpc
    async def EmbedTexts(self, request: pb.EmbedTextsRequest) -> pb.EmbedTextsResponse:
        return await self._model.loaded.service.embed_texts(request)

    @rpc
    async def ScoreConsistency(self, request: pb.ScoreConsistencyRequest) -> pb.ScoreConsistencyResponse:
        return await self._model.loaded.service.score_consistency(request)

    @rpc
    async def ScoreIdentity(self, request: pb.ScoreIdentityRequest) -> pb.ScoreIdentityResponse:
        return await self._model.loaded.service.score_identity(request)

    @rpc
    async def ScorePrompt(self, request: pb.ScorePromptRequest) -> pb.ScorePromptResponse:
        return await self._model.loaded.service.score_prompt(request)

    @rpc
    async def GetModelInfo(self, request: pb.GetModelInfoRequest) -> pb.GetModelInfoResponse:
        return self._model.loaded.service.model_info(self._model.error)


def build(args: ScoringArgs) -> Application:
    """The application, from a Serve config's `args`."""
    return Scoring.bind(args)
