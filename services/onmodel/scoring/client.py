"""Client of the scoring service."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onmodel.common.convert import image_to_wire
from onmodel.common.model_client import ModelClient
from onmodel.core.errors import ImageError
from onmodel.scoring.convert import (
    ConsistencyScores,
    IdentityScores,
    PromptScores,
    Vector,
    consistency_from_wire,
    embed_result_from_wire,
    embedding_from_wire,
    identity_from_wire,
    prompt_from_wire,
)
from onmodel.scoring.metrics import Array
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceStub

TEXTS_PER_REQUEST = 1024


class ScoringClient(ModelClient):
    """Embeddings and scores from a running service. Pictures are encoded bytes, as they lie on disk.

    Every method raises ServiceError when the service does not answer in time, UserError when it refuses.
    """

    def __init__(self, address: str, *, timeout_s: float = 120.0) -> None:
        super().__init__(address, "scoring", timeout_s=timeout_s)
        self._stub = ScoringServiceStub(self._channel)

    def embed_images(
        self, images: Sequence[bytes], *, advance: Callable[[int], object] | None = None
    ) -> list[Vector | ImageError]:
        """A float32 (width,) vector of unit length per picture, or its error. Any number of pictures.

        `advance` is called with the number of pictures that each answer brought.
        """
        results = self._results(self._stub.EmbedImages, pb.EmbedImagesRequest, images, advance)
        return [embed_result_from_wire(result) for result in results]

    def embed_texts(self, texts: Sequence[str]) -> Array:
        """float32 (len(texts), width), rows of unit length."""
        starts = range(0, len(texts), TEXTS_PER_REQUEST)
        requests = (pb.EmbedTextsRequest(texts=texts[at : at + TEXTS_PER_REQUEST]) for at in starts)
        vectors = [
            embedding_from_wire(embedding)
            for response in self.pipeline(self._stub.EmbedTexts, requests)
            for embedding in response.embeddings
        ]
        return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)

    def score_consistency(self, groups: Sequence[Sequence[bytes]]) -> ConsistencyScores:
        """How alike the pictures of each group are. One request: at most 1024 pictures together."""
        wire = [pb.ImageGroup(images=map(image_to_wire, group)) for group in groups]
        return consistency_from_wire(self.call(self._stub.ScoreConsistency, pb.ScoreConsistencyRequest(groups=wire)))

    def score_identity(
        self, images: Sequence[bytes], references: Sequence[bytes], impostors: Sequence[bytes] = ()
    ) -> IdentityScores:
        """How like the references each picture is, calibrated where impostors are given. One request."""
        request = pb.ScoreIdentityRequest(
            images=map(image_to_wire, images),
            references=map(image_to_wire, references),
            impostors=map(image_to_wire, impostors),
        )
        return identity_from_wire(self.call(self._stub.ScoreIdentity, request))

    def score_prompt(self, images: Sequence[bytes], texts: Sequence[str]) -> PromptScores:
        """How well each picture fits the text of the same index. One request."""
        pairs = [
            pb.PromptPair(image=image_to_wire(image), text=text) for image, text in zip(images, texts, strict=True)
        ]
        return prompt_from_wire(self.call(self._stub.ScorePrompt, pb.ScorePromptRequest(pairs=pairs)))

    def _info(self) -> tuple[Any, Any]:
        return self._stub.GetModelInfo, pb.GetModelInfoRequest()
