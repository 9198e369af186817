"""The two real implementations, on real pictures and on models made here."""

from pathlib import Path

import av
import numpy as np
import pytest

from onmodel.core.errors import UserError
from onmodel.core.images import RGB, load
from onmodel.core.vocabulary import ShotType
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected, result_from_wire, result_to_wire
from onmodel.detection.model import Detector, load_detector
from onmodel.detection.rules import decide
from onmodel.detection.weights import ENVIRONMENT, pinned
from onmodel.detection.yolox import grid, letterbox


@pytest.fixture(scope="module")
def frames(shared_assets: Path) -> list[RGB]:
    """A few frames of the small film, uint8 RGB 176x320."""
    with av.open(str(shared_assets / "video" / "big_buck_bunny_10s_176p.mp4")) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    return [np.ascontiguousarray(pictures[i], dtype=np.uint8) for i in range(0, len(pictures), 60)]


@pytest.fixture(scope="module")
def film_detector(shared_assets: Path) -> Detector:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(shared_assets / "detector"))
        return load_detector(DetectorConfig.preset("film"))


def test_letterbox_keeps_shape_and_puts_bgr_top_left() -> None:
    image = np.zeros((50, 100, 3), dtype=np.uint8)
    image[..., 0] = 255
    square, scale = letterbox(image, 416)
    assert square.shape == (3, 416, 416)
    assert scale == pytest.approx(4.16)
    assert square[:, 100, 200].tolist() == [0.0, 0.0, 255.0]
    assert square[:, 300, 200].tolist() == [114.0] * 3


def test_grid_covers_all_cells() -> None:
    corners, strides = grid(416)
    assert len(corners) == len(strides) == 52**2 + 26**2 + 13**2
    assert (corners * strides).max() < 416


def test_the_rabbit_is_found(film_detector: Detector, frames: list[RGB]) -> None:
    found = film_detector.detect(frames)
    assert sum(bool(d.instances) for d in found) >= 0.5 * len(frames)
    for image, detections in zip(frames, found, strict=True):
        assert (detections.height, detections.width) == image.shape[:2]
        for instance in detections.instances:
            assert 0 <= instance.box.x0 < instance.box.x1 <= detections.width
            assert 0 <= instance.box.y0 < instance.box.y1 <= detections.height


def test_a_batch_answers_as_one_by_one(film_detector: Detector, frames: list[RGB]) -> None:
    assert film_detector.detect(frames) == [film_detector.detect([image])[0] for image in frames]
    assert film_detector.detect([]) == []


def test_real_photographs(film_detector: Detector, shared_assets: Path) -> None:
    """A dog in all its photographs, none of them without a shot type."""
    shots = DetectorConfig.preset("film").shots
    for path in sorted((shared_assets / "subjects" / "dog6").glob("*.jpg")):
        image = load(path)
        (found,) = film_detector.detect([image])
        assert "dog" in {i.label for i in found.instances}
        assert decide(image, found, shots).shot_type is not ShotType.UNCLASSIFIED


def test_other_class_counts_are_refused(shared_assets: Path) -> None:
    config = DetectorConfig(
        kind="yolox", weights=str(shared_assets / "detector" / "yolox_nano.onnx"), classes=("a", "b")
    )
    with pytest.raises(UserError, match="of 2 classes"):
        load_detector(config)


def test_ultralytics_detection_weights(tmp_path: Path) -> None:
    yolo = pytest.importorskip("ultralytics").YOLO
    path = tmp_path / "tiny.pt"
    yolo("yolo11n.yaml", verbose=False).save(path)
    detector = load_detector(DetectorConfig(weights=pinned(path), input_size=96, confidence=0.0, device="cpu"))
    images = [np.zeros((60, 90, 3), np.uint8), np.full((96, 96, 3), 128, np.uint8)]
    found = detector.detect(images)
    assert [(d.width, d.height) for d in found] == [(90, 60), (96, 96)]
    assert detector.name == "tiny"
    assert len(detector.hash) == 64


def test_ultralytics_pose_weights_keep_their_keypoints(tmp_path: Path) -> None:
    yolo = pytest.importorskip("ultralytics").YOLO
    path = tmp_path / "pose.pt"
    yolo("yolo11n-pose.yaml", verbose=False).save(path)
    config = DetectorConfig(weights=pinned(path), input_size=96, confidence=0.0, min_area=0, nested=1, device="cpu")
    (found,) = load_detector(config).detect([np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)])
    # Random weights say nothing about what is where; but what is found has all 17 points.
    assert found.instances
    assert all(len(instance.keypoints) == 17 and not instance.outline for instance in found.instances)


def test_ultralytics_segmentation_weights_give_outlines(tmp_path: Path) -> None:
    yolo = pytest.importorskip("ultralytics").YOLO
    path = tmp_path / "seg.pt"
    yolo("yolo11n-seg.yaml", verbose=False).save(path)
    config = DetectorConfig(weights=pinned(path), input_size=96, confidence=0.0, min_area=0, nested=1, device="cpu")
    (found,) = load_detector(config).detect([np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)])
    outlines = [instance.outline for instance in found.instances if instance.outline]
    assert outlines
    assert all(0 <= x <= 96 and 0 <= y <= 96 for outline in outlines for x, y in outline)
    decision = decide(np.zeros((96, 96, 3), np.uint8), found, config.shots)
    back = result_from_wire(result_to_wire(Detected(found, decision)))
    assert isinstance(back, Detected) and back.detections == found


def test_the_bundled_detector_knows_a_render() -> None:
    from onmodel.toybox.models import bundled
    from onmodel.toybox.render import render
    from onmodel.toybox.scene import random_scene

    assert bundled("detector").is_file()
    config = DetectorConfig.preset("toybox")
    detector = load_detector(config)
    scene = random_scene(np.random.default_rng(5), shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=False)
    made = render(scene, 96)
    (found,) = detector.detect([made.image])
    truth = made.truth.characters[0].visible_box
    assert truth is not None
    assert max(i.box.iou(truth) for i in found.instances) > 0.7
    assert found.instances[0].face is not None
    assert decide(made.image, found, config.shots).shot_type is ShotType.FULL_BODY
