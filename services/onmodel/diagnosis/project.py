"""The project file of `onmodel improve`: what is to be improved, with what, and how far the loop may go.

name = "zibo"
dataset = "my_character"
references = "held_back"
training = "trial.toml"
test_suite = "character"
output_dir = "zibo_project"
allowed = ["augment", "captions", "parameters"]

[materials]
backgrounds = ["backgrounds"]
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from onmodel.core.config import Config, load
from onmodel.core.files import existing
from onmodel.evaluation.suite import PACKAGED

Allowed = Literal["augment", "extract", "mix", "captions", "parameters"]


class Materials(Config):
    """What composites are made of."""

    backgrounds: tuple[Path, ...] = ()
    """Folders of pictures without characters."""
    companions: tuple[Path, ...] = ()
    """Folders of pictures of other characters."""
    foregrounds: tuple[Path, ...] = ()
    """Folders of things to put in front."""

    @property
    def folders(self) -> tuple[list[Path], list[Path], list[Path]]:
        """Backgrounds, companions, foregrounds."""
        return list(self.backgrounds), list(self.companions), list(self.foregrounds)


class Film(Config):
    """Where missing pictures can be taken from."""

    files: tuple[Path, ...] = Field(min_length=1)
    references: Path | None = None
    """Pictures of the character alone; None takes the project's."""


class Project(Config):
    """One character's improvement. Paths are relative to the project file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the trials: `<name>_r1`, `<name>_r2`, …"""
    dataset: Path
    references: Path
    """Held-back pictures of the character, which no training sees."""
    training: Path
    """Training config to begin with; its dataset, output folder and name are replaced."""
    test_suite: str = "character"
    """Packaged name or file."""
    output_dir: Path
    rounds: int = Field(default=4, ge=1)
    """Most trainings; `--rounds` goes before it."""
    allowed: tuple[Allowed, ...] = ("augment", "extract", "mix", "captions", "parameters")
    """Kinds of fixes that the loop may apply."""
    materials: Materials = Materials()
    film: Film | None = None
    trigger: str
    class_word: str = Field(alias="class")
    age: str | None = None
    """Class with its age, as in "teenage boy"."""
    scales: tuple[float, ...] = (0.7, 1.0, 1.3)
    """LoRA strengths that the last checkpoint is evaluated at."""
    checkpoints: int = Field(default=3, ge=1)
    """Checkpoints of each trial that are evaluated at full strength, evenly spread, the last among them."""
    target_size: int | None = Field(default=None, ge=1)
    """Pictures of an epoch after augmenting or merging; None: 475, or as many as there are."""
    num_workers: int = Field(default=1, ge=0)
    """Ray Train workers; 0 trains in the command's own process."""
    detector: str = "toybox"
    scorer: str = "toybox"
    scorer_pretrained: str | None = None
    device: str = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(not 0 < scale <= 2 for scale in self.scales) or 1.0 not in self.scales:
            raise ValueError("`scales` must lie above 0 and at most 2, and hold 1.0, by which trials are compared")
        return self


def load_project(path: Path) -> Project:
    """Read a project file, its paths made absolute.

    Raises:
        UserError: a wrong key, with the nearest known one.
        NotFoundError: a file or folder that it names does not exist.
    """
    project = load(Project, path)
    home = path.resolve().parent

    def at(given: Path, what: str) -> Path:
        return existing(home / given.expanduser(), f"{what}, which {path} names")

    changes: dict[str, object] = {
        "dataset": at(project.dataset, "dataset"),
        "references": at(project.references, "folder of references"),
        "training": at(project.training, "training config"),
        "output_dir": home / project.output_dir.expanduser(),
        "materials": Materials(
            backgrounds=tuple(at(p, "folder of backgrounds") for p in project.materials.backgrounds),
            companions=tuple(at(p, "folder of companions") for p in project.materials.companions),
            foregrounds=tuple(at(p, "folder of foregrounds") for p in project.materials.foregrounds),
        ),
    }
    if project.film is not None:
        references = project.film.references
        changes["film"] = Film(
            files=tuple(at(p, "film") for p in project.film.files),
            references=None if references is None else at(references, "folder of references"),
        )
    if not (PACKAGED / f"{project.test_suite}.json").is_file():
        changes["test_suite"] = str(at(Path(project.test_suite), "test suite"))
    return project.model_copy(update=changes)
