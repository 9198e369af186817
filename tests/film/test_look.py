"""Looking through services is looking at the very same pixels."""

from collections.abc import Sequence

import numpy as np
import pytest

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import ImageError
from onmodel.core.images import decode
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.film import look as module
from onmodel.film.look import LookConfig, RemoteLook

from .made import LightLook, scene


class Client:
    """Both clients of running services, answering from encoded pictures with the light look."""

    def __init__(self, address: str) -> None:
        self._look = LightLook()
        self.closed = False

    def model_info(self) -> ModelInfo:
        return ModelInfo("light", "1" * 64, "2" * 64)

    def detect(self, images: Sequence[bytes]) -> list[Detected | ImageError]:
        return [*self._look.detect([decode(image) for image in images])]

    def embed_images(self, images: Sequence[bytes]) -> list[np.ndarray | ImageError]:
        return [*self._look.embed([decode(image) for image in images])]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._look.embed_texts(texts)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> RemoteLook:
    monkeypatch.setattr(module, "DetectionClient", Client)
    monkeypatch.setattr(module, "ScoringClient", Client)
    opened = LookConfig(DetectorConfig.preset("film"), address="127.0.0.1:1").open()
    assert isinstance(opened, RemoteLook)
    return opened


def test_services_answer_as_models_here(remote: RemoteLook) -> None:
    images = [scene(n, step=3 * n) for n in range(4)]
    assert remote.detect(images) == LightLook().detect(images)
    assert np.array_equal(remote.embed(images), LightLook().embed(images))
    assert remote.embed([]).shape == (0, 0)
    assert remote.detector.hash == "1" * 64
    assert remote.thresholds == DetectorConfig.preset("film").shots
    remote.close()


def test_a_refused_picture_ends_the_run_with_its_reason(remote: RemoteLook, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Client, images: Sequence[bytes]) -> list[Detected | ImageError]:
        return [ImageError("picture: too large") for _ in images]

    monkeypatch.setattr(Client, "detect", refuse)
    with pytest.raises(ImageError, match="too large"):
        remote.detect([scene(1)])
