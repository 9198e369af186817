"""Settings of detection: which model, what its classes mean, and where the line between two shot types runs."""

import hashlib
from typing import Literal, Self

from pydantic import Field, model_validator

from onmodel.core.config import Config
from onmodel.core.errors import NotFoundError

# COCO's things that are never a character, whatever a film's style. Animals and toys stay: YOLOX calls an
# animated rabbit bird, cow, sheep, giraffe, dog, bear, elephant or teddy bear.
FURNITURE = (
    "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis",
    "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
    "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "hair drier", "toothbrush",
)  # fmt: skip


class ShotConfig(Config):
    """Thresholds of the shot-type and attribute decision. Lengths are shares, so no picture size enters.

    `configs/shots.toml` shows these defaults; a test keeps the two equal.
    """

    far_height: float = Field(default=0.45, gt=0, lt=1)
    """A whole character below this share of the picture's height is far: midway between a third, the usual wide shot,
    and the two thirds and more of a full-body shot."""
    edge_margin: float = Field(default=0.015, ge=0, lt=0.2)
    """A box this near to an edge (share of that side) is cut by it: detectors stop a little short of the edge."""
    top_margin: float = Field(default=0.03, ge=0, lt=0.2)
    """The same for the upper edge, looked at only where no face is found: so near to it a head has no room. Films
    leave ears and hats just below the edge, and want less."""
    close_up_heads: float = Field(default=1.65, gt=1)
    """Head and shoulders are less than this many head heights: chin to armpit is about two thirds of a head."""
    medium_heads: float = Field(default=4.0, gt=1)
    """Cut below after this many head heights, only the feet are missing: characters are three to five heads high."""
    face_to_head: float = Field(default=1.0, gt=0)
    """Head height over face-box height: 1 where the detector's box is the whole head, about 1.5 for YuNet's."""
    whole_heads: float = Field(default=2.0, ge=0)
    """A body of fewer head heights is not whole, though no edge cuts it: its lower part is hidden, or its box ends
    too early. 0 turns it off, for faces that say little about heads and for figures of two heads."""
    close_up_face: float = Field(default=0.66, gt=0)
    """A face this share of the picture's height is a close-up even where the box's lower edge is unreliable."""
    cut_close_up_aspect: float = Field(default=1.0, gt=0)
    """Without a face: a character cut below whose box is wider than this (width over height) shows shoulders, not
    hips, since shoulders are wider than the head and neck above them are high."""
    cut_close_up_area: float = Field(default=0.62, gt=0, le=1)
    """Without a face: a character cut below that fills this share of the picture is close to the camera."""
    faces_are_reliable: bool = True
    """A character cut above without a face is then not decidable. Off where the face finder misses many: then
    only one whose feet are in the picture is."""
    headless_full_height: float = Field(default=0.85, ge=0, le=1)
    """Then, a character of this share of the picture's height that no lower edge cuts lacks no more than its ears or
    hat; a smaller one that is cut above is a pair of legs."""
    main_headless_weight: float = Field(default=0.05, ge=0, le=1)
    """What remains of the prominence of a faceless character that the upper edge cuts: a pair of legs, or the
    shoulder of somebody in the foreground past whom the camera looks."""
    main_center_weight: float = Field(default=0.3, ge=0, le=1)
    """How much nearness to the middle counts beside area when the main character is chosen."""
    main_face_weight: float = Field(default=2.0, ge=0)
    """How much a visible face adds to a character's prominence: who faces the camera is the subject."""
    other_height: float = Field(default=0.25, ge=0)
    """Another character counts from this share of the main one's height: smaller is decoration or a false box."""
    other_confidence: float = Field(default=0.35, ge=0, le=1)
    """Another character counts from this confidence; second boxes of one body score low."""
    other_outside: float = Field(default=0.3, ge=0, le=1)
    """Another character counts when this share of its box lies outside the main one's."""
    occluder_share: float = Field(default=0.04, ge=0, le=1)
    """An object in front counts from this share of the main character's box."""
    occluding_character_share: float = Field(default=0.35, ge=0, le=1)
    """Another character hides the main one when it covers this share of its box and stands nearer (lower feet):
    boxes of people side by side overlap by up to a quarter."""
    edge_strength: float = Field(default=24.0, gt=0)
    """A step between neighbouring pixels (0 to 255, at 96 px) that counts as an edge; softer ones are shading."""
    complex_edges: float = Field(default=0.17, ge=0, le=1)
    """A background with this share of edge pixels has much in it."""
    complex_entropy: float = Field(default=0.33, ge=0, le=1)
    """A background whose colours are spread this evenly (entropy over its maximum) has many things in it."""
    complex_score: float = Field(default=1.0, gt=0)
    """Busy from this mean of edges/complex_edges and entropy/complex_entropy on: one may make up for the other."""
    background_min_area: float = Field(default=0.03, ge=0, le=1)
    """Less visible background than this share of the picture is no background."""
    keypoint_confidence: float = Field(default=0.4, ge=0, le=1)
    """A keypoint below this confidence is not seen."""


class DetectorConfig(Config):
    """Which detector runs, on what, and what its class names mean."""

    kind: Literal["yolox", "ultralytics"] = "ultralytics"
    weights: str = "toybox"
    """"toybox" (bundled), a known name such as "yolox_nano", or a path; a `.pt` file with `@sha256:` and its hash."""
    face_weights: str | None = None
    """"yunet", a path to a `cv2.FaceDetectorYN` model, or none: then faces come from `face_classes` alone."""
    input_size: int = Field(default=416, ge=32)
    """Longer side in pixels that pictures are scaled to; a fixed-size export overrides it."""
    batch_size: int = Field(default=8, ge=1)
    confidence: float = Field(default=0.25, ge=0, le=1)
    part_confidence: float = Field(default=0.25, ge=0, le=1)
    """The same for occluders and faces found by class: parts are found less surely than whole characters."""
    iou: float = Field(default=0.5, ge=0, le=1)
    """Boxes that overlap more are one."""
    nested: float = Field(default=0.8, ge=0, le=1)
    """A box this much inside a bigger one is part of the same body; 1 keeps all."""
    class_agnostic: bool = True
    """Merge over classes too: one animated animal is often found as two or three kinds."""
    mean_boxes: bool = False
    """Boxes that are one become their mean, weighted by confidence, rather than the surest of them."""
    thorough: bool = False
    """Look also at the mirrored picture and at overlapping squares along its longer side (YOLOX): finds small
    characters and steadies doubtful ones, for three to five times the work."""
    classes: tuple[str, ...] | None = None
    """Class names in the model's order, where the weights do not carry them (COCO's 80 for YOLOX)."""
    character_classes: tuple[str, ...] | None = None
    """Classes that are characters; None = all but the excluded, face and occluder classes."""
    excluded_classes: tuple[str, ...] = ()
    """Classes that can never be a character."""
    face_classes: tuple[str, ...] = ()
    occluder_classes: tuple[str, ...] = ()
    face_confidence: float = Field(default=0.6, ge=0, le=1)
    face_makes_instance: bool = False
    """A face inside no character becomes a character of its own, its body guessed from the face."""
    min_area: float = Field(default=0.0005, ge=0, le=1)
    """Smaller boxes (share of the picture) are dropped."""
    device: str = "auto"
    threads: int = Field(default=0, ge=0)
    """CPU threads of one detector; 0 leaves the choice to the runtime."""
    shots: ShotConfig = ShotConfig()

    @classmethod
    def preset(cls, name: str) -> Self:
        """A named whole setting: "toybox" (bundled weights) or "film" (YOLOX-nano and YuNet). Raises NotFoundError."""
        if name not in _PRESETS:
            raise NotFoundError(f"no detector preset is called `{name}`; there are: {', '.join(_PRESETS)}")
        return cls.model_validate(_PRESETS[name])

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        roles = [*(self.character_classes or ()), *self.excluded_classes, *self.face_classes, *self.occluder_classes]
        twice = sorted({name for name in roles if roles.count(name) > 1})
        if twice:
            raise ValueError(f"class {twice[0]!r} has two roles; keep one")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of everything that can change an answer: what runs it (device, threads, batch size) does not."""
        text = self.model_dump_json(exclude={"device", "threads", "batch_size"})
        return hashlib.sha256(text.encode()).hexdigest()

    def role(self, label: str) -> Literal["character", "face", "occluder", "none"]:
        """What a class name stands for."""
        if label in self.face_classes:
            return "face"
        if label in self.occluder_classes:
            return "occluder"
        if label in self.excluded_classes:
            return "none"
        return "character" if self.character_classes is None or label in self.character_classes else "none"


# Values differ from the defaults only where the two worlds do: see each threshold's reason above.
_PRESETS: dict[str, dict[str, object]] = {
    "toybox": {
        "kind": "ultralytics",
        "weights": "toybox",
        "input_size": 128,
        "confidence": 0.2,
        "part_confidence": 0.3,
        "character_classes": ("character",),
        "face_classes": ("face",),
        "occluder_classes": ("object",),
    },
    "film": {
        "kind": "yolox",
        "weights": "yolox_nano",
        "face_weights": "yunet",
        "confidence": 0.2,
        "iou": 0.5,
        "mean_boxes": True,
        "thorough": True,
        "nested": 0.7,
        "min_area": 0.005,
        "excluded_classes": FURNITURE,
        "shots": {
            "edge_margin": 0.02,
            "top_margin": 0.008,
            "other_outside": 0.5,
            "far_height": 0.36,
            "face_to_head": 1.6,
            "close_up_face": 0.33,
            "close_up_heads": 1.75,
            "medium_heads": 3.1,
            "whole_heads": 0.0,
            "main_face_weight": 0.3,
            "cut_close_up_aspect": 2.0,
            "cut_close_up_area": 0.45,
            "faces_are_reliable": False,
            "complex_edges": 0.38,
            "complex_entropy": 0.55,
        },
    },
}
