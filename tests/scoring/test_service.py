"""The scoring service's answers, without Ray: the same numbers as the metrics give on the model's embeddings."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest

from onmodel.common.pictures import Intake
from onmodel.common.v1 import common_pb2
from onmodel.core.errors import ImageError, UserError
from onmodel.scoring import metrics
from onmodel.scoring.convert import (
    Consistency,
    Identity,
    Vector,
    consistency_from_wire,
    embed_result_from_wire,
    identity_from_wire,
    prompt_from_wire,
)
from onmodel.scoring.model import ClipModel, Pixels
from onmodel.scoring.service import ScoringService
from onmodel.scoring.v1 import scoring_pb2 as pb

from .made import noise, noise_png

Answer = TypeVar("Answer")
BROKEN = common_pb2.Image(data=b"no picture")


def image(seed: int) -> common_pb2.Image:
    return common_pb2.Image(data=noise_png(seed))


@pytest.fixture
def ask(scorer: ClipModel) -> Callable[[Callable[[ScoringService], Awaitable[Answer]]], Answer]:
    async def embed(pixels: list[Pixels]) -> list[Vector]:
        return list(scorer.embed_pixels(pixels))

    def run(question: Callable[[ScoringService], Awaitable[Answer]]) -> Answer:
        async def go() -> Answer:
            return await question(ScoringService(scorer, Intake(), 4, embed))

        return asyncio.run(go())

    return run


Ask = Callable[[Callable[[ScoringService], Awaitable[object]]], object]


def test_embeddings_survive_the_wire_exactly(ask: Ask, scorer: ClipModel) -> None:
    request = pb.EmbedImagesRequest(images=[image(0), BROKEN, image(1)])
    response = ask(lambda service: service.embed_images(request))
    assert isinstance(response, pb.EmbedImagesResponse)
    first, broken, second = map(embed_result_from_wire, response.results)
    assert isinstance(broken, ImageError)
    expected = scorer.embed_images([noise(0), noise(1)])
    np.testing.assert_allclose(np.stack([first, second]), expected, atol=1e-6)  # type: ignore[list-item]


def test_consistency_leaves_out_what_is_broken(ask: Ask, scorer: ClipModel) -> None:
    groups = [
        pb.ImageGroup(images=[image(0), image(1), BROKEN, image(2)]),
        pb.ImageGroup(images=[image(3), BROKEN]),
    ]
    response = ask(lambda service: service.score_consistency(pb.ScoreConsistencyRequest(groups=groups)))
    assert isinstance(response, pb.ScoreConsistencyResponse)
    scores = consistency_from_wire(response)
    first, second = scores.groups
    rows = scorer.embed_images([noise(0), noise(1), noise(2)])
    assert isinstance(first, Consistency) and isinstance(second, ImageError)
    assert first.pairwise.mean == pytest.approx(metrics.pairwise_cosine_mean(rows), abs=1e-5)
    assert first.minimum == pytest.approx(metrics.pairwise_cosine_min(rows), abs=1e-5)
    assert list(first.errors) == [2]
    assert scores.overall is not None and scores.overall.mean == pytest.approx(first.pairwise.mean)


def test_identity_counts_references_and_says_what_is_broken(ask: Ask, scorer: ClipModel) -> None:
    request = pb.ScoreIdentityRequest(images=[image(0), BROKEN], references=[image(1), BROKEN, image(2)])
    response = ask(lambda service: service.score_identity(request))
    assert isinstance(response, pb.ScoreIdentityResponse)
    scores = identity_from_wire(response)
    found, broken = scores.results
    cosines = metrics.cosines(scorer.embed_images([noise(0)]), scorer.embed_images([noise(1), noise(2)]))[0]
    assert isinstance(found, Identity) and isinstance(broken, ImageError)
    assert found.similarity == pytest.approx(cosines.mean(), abs=1e-5)
    assert found.nearest == pytest.approx(cosines.max(), abs=1e-5)
    assert found.calibrated is None and list(scores.reference_errors) == [1]


def test_identity_is_calibrated_against_impostors(ask: Ask) -> None:
    # The character is one picture and a near copy; strangers are noise.
    near = noise(0).copy()
    near[0, 0] = 0
    from onmodel.core.images import encode_png

    request = pb.ScoreIdentityRequest(
        images=[image(0), image(9)],
        references=[image(0), common_pb2.Image(data=encode_png(near))],
        impostors=[image(5), image(6), image(9)],
    )
    response = ask(lambda service: service.score_identity(request))
    assert isinstance(response, pb.ScoreIdentityResponse)
    own, stranger = identity_from_wire(response).results
    assert isinstance(own, Identity) and own.calibrated == pytest.approx(1.0, abs=0.05)
    assert isinstance(stranger, Identity) and stranger.calibrated is not None and stranger.calibrated < 0.8


def test_identity_without_a_readable_reference_is_refused(ask: Ask) -> None:
    request = pb.ScoreIdentityRequest(images=[image(0)], references=[BROKEN])
    with pytest.raises(UserError, match="no reference"):
        ask(lambda service: service.score_identity(request))


def test_prompts_are_scored_pair_by_pair(ask: Ask, scorer: ClipModel) -> None:
    pairs = [
        pb.PromptPair(image=image(0), text="a boy"),
        pb.PromptPair(image=BROKEN, text="a boy"),
        pb.PromptPair(image=image(1), text="a dog"),
    ]
    response = ask(lambda service: service.score_prompt(pb.ScorePromptRequest(pairs=pairs)))
    assert isinstance(response, pb.ScorePromptResponse)
    scores = prompt_from_wire(response)
    expected = metrics.prompt_similarity(
        scorer.embed_images([noise(0), noise(1)]), scorer.embed_texts(["a boy", "a dog"])
    )
    assert isinstance(scores.results[1], ImageError)
    assert [scores.results[0], scores.results[2]] == pytest.approx(list(expected), abs=1e-5)


def test_empty_requests_have_empty_answers(ask: Ask) -> None:
    consistency = ask(lambda service: service.score_consistency(pb.ScoreConsistencyRequest()))
    assert isinstance(consistency, pb.ScoreConsistencyResponse)
    assert consistency_from_wire(consistency).overall is None
    prompts = ask(lambda service: service.score_prompt(pb.ScorePromptRequest()))
    assert isinstance(prompts, pb.ScorePromptResponse) and not prompts.results


def test_too_many_texts_are_refused(ask: Ask) -> None:
    with pytest.raises(UserError, match="the limit is"):
        ask(lambda service: service.embed_texts(pb.EmbedTextsRequest(texts=["a"] * 5000)))
