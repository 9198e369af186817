"""What makes embeddings for similarity search: a model in this process, or a running scoring service."""

from collections.abc import Sequence

import numpy as np

from onmodel.core.errors import ServiceError
from onmodel.core.images import RGB, encode_png
from onmodel.curation.similar import Floats
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig


class LocalEmbedder:
    """A CLIP model in this process: a page for one person needs no cluster."""

    def __init__(self, config: ScorerConfig) -> None:
        """Load the model. Raises as `scoring.model.load_scorer`."""
        # Imported here: torch takes seconds, and the page is already being looked at.
        from onmodel.scoring.model import load_scorer

        self._scorer = load_scorer(config)
        self.key = f"{self._scorer.hash} {self._scorer.config_hash}"

    def embed(self, images: Sequence[RGB]) -> Floats:
        """float32 (len(images), width), rows of unit length."""
        return self._scorer.embed_images(images)


class ServiceEmbedder:
    """The scoring service at an address."""

    def __init__(self, client: ScoringClient) -> None:
        """Ask for the model. Raises ServiceError when it does not answer."""
        self._client = client
        info = client.model_info()
        self.key = f"{info.hash} {info.config_hash}"

    def embed(self, images: Sequence[RGB]) -> Floats:
        """float32 (len(images), width), rows of unit length. Raises ServiceError."""
        vectors = self._client.embed_images([encode_png(image) for image in images])
        good = [vector for vector in vectors if isinstance(vector, np.ndarray)]
        if len(good) < len(vectors):
            # Crops that we encoded ourselves: a refusal is the service's failure, not the picture's.
            raise ServiceError(f"the scoring service refused {len(vectors) - len(good)} of {len(vectors)} crops")
        return np.stack(good)
