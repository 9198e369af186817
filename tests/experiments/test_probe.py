"""The probe's pictures, targets, network and measures, small: how right the trained one is stands beside it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.vocabulary import ShotType
from onmodel.experiments import probe_pictures
from onmodel.experiments.probe import Probe, load_probe, peaks, save_probe
from onmodel.experiments.probe_augment import VARIANTS, Batch, augment
from onmodel.experiments.probe_loss import batch_loss, heat_targets
from onmodel.experiments.probe_measure import HELD_FIRST, calibrated, count_accuracy, matched, measure
from onmodel.experiments.probe_network import CELLS, STRIDE, NetworkConfig, build, to_input
from onmodel.experiments.probe_pictures import COUNTED, FEATURES, Pictures, Targets, character_of, scene_of, targets_of
from onmodel.experiments.probe_store import Store
from onmodel.toybox.character import HEADS, any_character, random_character
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.render import render
from onmodel.toybox.scene import FRAMED

from .people import PerfectProbe

SMALL = NetworkConfig((16, 24, 32, 32), (8, 16, 16, 16), 64)
PICTURES = 28


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    pairs = [probe_pictures.picture(k) for k in range(PICTURES)]
    images = np.stack([image for image, _ in pairs])
    return Pictures(images, images, Targets.joined([targets for _, targets in pairs]))


def batch_of(pictures: Pictures) -> Batch:
    targets: dict[str, Any] = {k: torch.from_numpy(v) for k, v in pictures.targets.arrays().items()}
    return Batch(to_input(torch.from_numpy(pictures.images)), **targets)


def test_targets_are_where_the_renderer_says(pictures: Pictures) -> None:
    scale, everybody, last = MODEL_SIDE / 96, 0, Targets.nobody(1)
    for k in range(PICTURES):
        scene = scene_of(k)
        drawn, targets = render(scene, 96), Targets.nobody(1)
        targets_of(scene, drawn, 0, targets)
        last = targets
        for p, truth in enumerate(drawn.truth.characters):
            if targets.state[0, p] != COUNTED:
                continue
            everybody += 1
            face, (x, y) = truth.face_box, targets.centre[0, p]
            assert face is not None
            assert face.x0 * scale <= x <= face.x1 * scale and face.y0 * scale <= y <= face.y1 * scale
            x0, y0, x1, y1 = targets.box[0, p]
            assert x0 <= x <= x1 and y0 <= y <= y1
            who = scene.people[p].character
            ratio = targets.body[0, p] / targets.head[0, p]
            assert ratio == pytest.approx(HEADS[who.age] * who.height, rel=1e-4)
            for f, (name, options) in enumerate(FEATURES.items()):
                assert options[targets.values[0, p, f]] == getattr(who, name)
    assert everybody > PICTURES / 2
    assert all(np.array_equal(a, pictures.targets.arrays()[n][-1:]) for n, a in last.arrays().items())


def test_legs_are_not_in_a_close_up_and_everything_is_in_a_full_body(pictures: Pictures) -> None:
    targets = pictures.targets
    counted = targets.state == COUNTED
    names = list(FEATURES)
    legs = [names.index("legwear"), names.index("leg_colour")]
    close, full = (counted & (targets.framing == FRAMED.index(s)) for s in (ShotType.CLOSE_UP, ShotType.FULL_BODY))
    assert close.any() and full.any()
    assert not targets.seen[close][:, legs].any()
    assert targets.seen[full][:, names.index("shirt")].mean() > 0.8
    assert targets.seen[full][:, names.index("leg_colour")].mean() > 0.7
    assert targets.seen[counted][:, names.index("skin")].all()


def test_characters_of_all_looks_are_drawn_and_twins_differ_in_hair_colour_and_shirt() -> None:
    drawn = [any_character(np.random.default_rng(k)) for k in range(60)]
    assert "teal" in {c.skin for c in drawn}
    assert all(random_character(np.random.default_rng(k)).skin != "teal" for k in range(20))
    first, near = character_of(2), character_of(3)
    same = {f.name for f in dataclasses.fields(first) if getattr(first, f.name) == getattr(near, f.name)}
    assert {"age", "skin", "hair_style", "legwear", "leg_colour", "hat", "height"} <= same
    assert not {"hair_colour", "shirt"} & same


def test_the_heatmap_peaks_at_counted_heads_and_ignores_those_hardly_seen(pictures: Pictures) -> None:
    batch = batch_of(pictures)
    heat, weight = heat_targets(batch)
    assert heat.shape == weight.shape == (PICTURES, CELLS, CELLS)
    counted = batch.state == COUNTED
    assert ((heat >= 0.99).flatten(1).sum(1) == counted.sum(1)).all()
    logits = torch.logit(heat.clamp(1e-4, 1 - 1e-4))
    scores, centres = peaks(logits)
    for row in range(PICTURES):
        found = [(float(x), float(y)) for s, (x, y) in zip(scores[row], centres[row], strict=True) if s > 0.9]
        true = [(float(x), float(y)) for x, y in batch.centre[row][counted[row]]]
        assert len(found) == len(true)
        for x, y in true:
            assert min(max(abs(x - a), abs(y - b)) for a, b in found) <= 1.5 * STRIDE
    unsure = dataclasses.replace(batch, state=torch.where(counted, 2, batch.state))
    heat, weight = heat_targets(unsure)
    assert float(heat.max()) == 0
    assert ((weight == 0).flatten(1).any(1) == counted.any(1)).all()


def test_augmented_targets_move_with_the_picture() -> None:
    """A mark that is drawn at the centre is where the moved target says."""
    torch.manual_seed(3)
    n = 24
    targets: dict[str, Any] = {k: torch.from_numpy(v) for k, v in Targets.nobody(n).arrays().items()}
    x, y = torch.randint(12, 52, (n,)), torch.randint(12, 52, (n,))
    images = torch.full((n, 3, MODEL_SIDE, MODEL_SIDE), -1.0)
    for k in range(n):
        images[k, :, y[k] - 1 : y[k] + 1, x[k] - 1 : x[k] + 1] = 1
    centre = torch.stack([x, y], dim=-1).float()[:, None].expand(n, 3, 2)
    moved = augment(Batch(images, **{**targets, "centre": centre, "box": torch.cat([centre - 2, centre + 2], -1)}))
    bright = (moved.images.mean(dim=1) + 1).clamp(min=0) ** 4
    line = torch.arange(MODEL_SIDE) + 0.5
    for axis, dimension in ((0, 1), (1, 2)):
        profile = bright.sum(dim=dimension)
        at = (profile * line).sum(1) / profile.sum(1)
        assert (at - moved.centre[:, 0, axis]).abs().max() < 1.0
    assert (moved.centre[:, 0, 0] != x).any()
    assert (moved.box[..., 2] > moved.box[..., 0]).all()


def test_the_loss_falls(pictures: Pictures) -> None:
    targets = pictures.targets.between(0, 12)
    batch = batch_of(Pictures(pictures.images[:12], pictures.jpegs[:12], targets))
    network = build(SMALL, 1)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    losses: list[float] = []
    for _ in range(30):
        loss: Tensor = batch_loss(network, batch, 0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(np.isfinite(losses))
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_a_saved_probe_reads_the_same(tmp_path: Path, pictures: Pictures) -> None:
    network = build(SMALL, 2).half().float()
    save_probe(tmp_path / "probe", network, 0.0, {"accuracy": {}})
    kept = load_probe(tmp_path / "probe")
    a, b = Probe(network, 0.0, torch.device("cpu")).read(pictures.images[:3]), kept.read(pictures.images[:3], batch=2)
    assert [len(people) for people in a] == [len(people) for people in b]
    for one, other in zip(a, b, strict=True):
        for p, q in zip(one, other, strict=True):
            assert p.head_height == pytest.approx(q.head_height, rel=1e-3)
            assert p.centre == pytest.approx(q.centre, abs=1e-2)
            assert 0 <= p.box.x0 <= p.box.x1 <= MODEL_SIDE
            assert set(p.features) == set(FEATURES)
            assert (p.body_height is None) is (p.framing in (ShotType.CLOSE_UP, ShotType.MEDIUM))
    with pytest.raises(UserError, match="scale them first"):
        kept.read(np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(NotFoundError, match="probe_training"):
        load_probe(tmp_path)


def test_shards_are_taken_in_once_and_as_far_as_there_is_room(tmp_path: Path) -> None:
    probe_pictures.write(tmp_path, 0, 2)
    store = Store(3, torch.device("cpu"))
    store.take(tmp_path)
    store.take(tmp_path)
    assert store.filled == 2 and not store.full
    probe_pictures.write(tmp_path, 500, 502)
    store.take(tmp_path)
    assert store.full
    assert np.array_equal(store.on_cpu().values[2], probe_pictures.picture(500)[1].values[0])
    images = store.images.float()
    for k, name in enumerate(VARIANTS[1:], 1):
        far = (images[k] - images[0]).abs().mean(dim=(1, 2, 3))
        assert (far > 0).all() and (far < 30).all(), name


def test_measures_of_a_probe_without_mistakes(pictures: Pictures) -> None:
    probe = PerfectProbe(pictures.targets)
    result = measure(probe, pictures.images, pictures.targets, range(PICTURES))
    assert {result[k] for k in ("count", "found", "framing", "features", "seen", *FEATURES)} == {1.0}
    assert result["head_error_90"] < 1e-3 and result["ratio_error_90"] < 1e-3
    assert result["on_model_right"] > 0.9, "some show too little to be recognised"
    assert result["on_model_twin"] == result["on_model_other"] == 0
    assert calibrated(probe, pictures.images[None], pictures.targets) >= 0.1


def test_heads_found_belong_to_the_nearest_true_ones(pictures: Pictures) -> None:
    targets = pictures.targets
    people = PerfectProbe(targets).read(pictures.images)
    row = next(r for r in range(PICTURES) if (targets.state[r] == COUNTED).sum() > 1)
    pairs = matched(people[row][::-1], targets, row)
    assert all(pairs[k].centre == pytest.approx(tuple(targets.centre[row, k]), abs=1e-5) for k in pairs)
    assert len(pairs) == len(people[row])
    away = tuple(dataclasses.replace(p, centre=(p.centre[0] + 1000, p.centre[1])) for p in people[row])
    assert matched(away, targets, row) == {}
    people[row] = people[row][:1]
    assert count_accuracy(people, targets) < 1


def test_the_trained_probe_reads_renders_it_never_saw() -> None:
    numbers = range(HELD_FIRST + 600, HELD_FIRST + 616)
    pairs = [probe_pictures.picture(k) for k in numbers]
    targets = Targets.joined([targets for _, targets in pairs])
    result = measure(load_probe(), np.stack([image for image, _ in pairs]), targets, numbers)
    assert result["count"] >= 0.8 and result["framing"] >= 0.9
    assert result["features"] >= 0.75 and result["head_error_median"] <= 0.06
    assert result["on_model_other"] == 0
