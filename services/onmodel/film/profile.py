"""What an extraction asks for: how many frames of which scenes, under which constraints."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from onmodel.core.config import Config, read_mapping, validate
from onmodel.core.errors import UserError
from onmodel.dataset.analysis import Analysis
from onmodel.detection.config import ShotConfig

SCENES: dict[str, str] = {
    "close_up": "close_up",
    "medium_shot": "medium",
    "full_body": "full_body",
    "far": "far",
    "multi_character": "multi_character",
    "occlusion": "occlusion",
    "complex_backgrounds": "complex_background",
}
"""Scene name of a profile -> category of the analysis."""
_EXTRA = 1.15
"""A plan asks for this many times the deficit: a person who curates rejects some."""


class Scene(Config):
    """One kind of frame that is asked for."""

    target: int = Field(ge=0)
    """How many frames; 0 asks for none."""
    keywords: tuple[str, ...] = ()
    """Texts that CLIP compares with the frame and with the character's crop: better matches are preferred."""
    scene_types: tuple[str, ...] = ()
    """Places, compared with the whole frame in the same way."""
    min_character_height_ratio: float = Field(default=0.0, ge=0, le=1)
    """The character fills at least this share of the frame's height."""
    required_characters: tuple[str, ...] = ()
    """Folders of reference pictures (relative to the profile): all of these must be in the frame."""
    required_characters_alt: tuple[str, ...] = ()
    """The same, but any of these is enough."""

    @property
    def queries(self) -> tuple[str, ...]:
        """All texts."""
        return (*self.keywords, *self.scene_types)


class PriorityScenes(Config):
    """The scenes that can be asked for; those left out are not."""

    close_up: Scene | None = None
    medium_shot: Scene | None = None
    full_body: Scene | None = None
    far: Scene | None = None
    multi_character: Scene | None = None
    occlusion: Scene | None = None
    complex_backgrounds: Scene | None = None


class Profile(Config):
    """`configs/profiles/*.json`."""

    priority_scenes: PriorityScenes

    @model_validator(mode="after")
    def _check(self) -> "Profile":
        if not any(scene.target for _, scene in self.scenes()):
            raise ValueError("no scene has a target above 0, so there is nothing to extract; set one")
        return self

    def scenes(self) -> Iterator[tuple[str, Scene]]:
        """Name and constraints of each scene that is asked for."""
        for name in SCENES:
            scene: Scene | None = getattr(self.priority_scenes, name)
            if scene is not None and scene.target:
                yield name, scene

    def characters(self) -> tuple[str, ...]:
        """Every character folder that is named, each once, in order."""
        named = [n for _, s in self.scenes() for n in (*s.required_characters, *s.required_characters_alt)]
        return tuple(dict.fromkeys(named))


def load_profile(path: Path) -> Profile:
    """Read a profile (JSON or TOML).

    Raises:
        UserError: an unknown scene (named with the nearest known one), a wrong key or value, nothing asked for.
    """
    table = read_mapping(path)
    scenes: Any = table.get("priority_scenes")
    if isinstance(scenes, dict):
        for name in scenes:
            if name not in SCENES:
                near = difflib.get_close_matches(str(name), [*SCENES, *SCENES.values()], n=1, cutoff=0.4)
                known = next((s for s, c in SCENES.items() if near and near[0] in (s, c)), None)
                hint = f"did you mean `{known}`?" if known else f"known scenes: {', '.join(SCENES)}"
                raise UserError(f"{path}: `{name}` is no scene that can be asked for; {hint}")
    return validate(Profile, table, str(path))


def refuse_unreachable(profile: Profile, shots: ShotConfig, source: str) -> None:
    """Raise UserError where constraints contradict each other, so that no film can meet them."""
    for name, scene in profile.scenes():
        ratio = scene.min_character_height_ratio
        if name == "far" and ratio >= shots.far_height:
            raise UserError(
                f"{source}: scene `far` asks for a min_character_height_ratio of {ratio:g}, but a character is far only"
                f" below {shots.far_height:g} of the frame's height, so its target of {scene.target} cannot be met;"
                " lower the ratio or drop the scene"
            )
        both = set(scene.required_characters) & set(scene.required_characters_alt)
        if both:
            raise UserError(
                f"{source}: scene `{name}` names {sorted(both)[0]} as required and as an alternative; keep one"
            )


def plan(analysis: Analysis) -> Profile:
    """A profile whose targets are an analysis's deficits, with some to spare for curation.

    Raises:
        UserError: the analysis lacks nothing.
    """
    scenes: dict[str, dict[str, Any]] = {}
    for name, category in SCENES.items():
        deficit = analysis.categories[category].deficit_at_target
        if deficit > 0:
            scenes[name] = {"target": round(deficit * _EXTRA + 0.5), **_PLANNED.get(name, {})}
    if not scenes:
        raise UserError(f"{analysis.dataset}: every category is within its recommended range; nothing to extract")
    return Profile.model_validate({"priority_scenes": scenes})


_PLANNED: dict[str, dict[str, Any]] = {
    "full_body": {"keywords": ["full body"], "min_character_height_ratio": 0.45},
    "medium_shot": {"keywords": ["medium shot"], "min_character_height_ratio": 0.3},
    "complex_backgrounds": {"scene_types": ["a busy background"]},
}
"""Constraints that a planned scene starts with: too small a character teaches little of its body."""
