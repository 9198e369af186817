"""Targeted extraction: from films, a profile and a few reference pictures to a dataset of the frames that are missing.

A film is worked in parts of about a minute. Each finished part is written whole to `.extract` in the output folder,
under a key of film, settings, references and models; a run that was killed goes on behind the last finished part and
gives the same bytes as one that was not.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.errors import UserError
from onmodel.core.files import content_hash, remove_asides
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.facts import FILE as FACTS
from onmodel.film import chunk
from onmodel.film.candidates import SamplingConfig
from onmodel.film.chunk import Questions, Task
from onmodel.film.decode import Film, pieces, probe
from onmodel.film.identity import Character, IdentityConfig, load_character, threshold
from onmodel.film.judge import JudgeConfig, Judged, judge
from onmodel.film.look import Look
from onmodel.film.output import Gathered, write
from onmodel.film.profile import SCENES, Profile, refuse_unreachable
from onmodel.film.records import (
    LINEAGE,
    PAGE,
    TABLE,
    ExtractionResult,
    read_lineage,
    read_result,
)
from onmodel.film.run import Runner, local
from onmodel.film.select import SelectConfig, select

STATE = ".extract"
_GONE = ".gone"
_VERSION = 1
"""Part of the key: raised when a part's rows change their meaning."""
_SPANS_A_FRAME = 8
"""Spans that are considered for each frame asked for, where no span is set."""
_SPAN_S = (0.2, 1.0)
_DOUBT = 0.3
"""A picture is kept though its likeness is this much below the least threshold: its neighbours may speak for it."""
_STOP_AT = 3
"""`stop_when_met`: each scene has this many times as many candidates as it asks for."""
_KEPT = 8
"""At most this many times a scene's target of pictures wait on disk, the likest ones."""


class ExtractConfig(Config):
    """All settings of an extraction."""

    part_s: float = Field(default=60.0, gt=0)
    """Length of the parts that a film is worked in; a killed run loses one at most."""
    span_s: float | None = Field(default=None, gt=0)
    """Replaces `sampling.span_s`; None = about eight spans a frame asked for, between 0.2 and 1 s."""
    sampling: SamplingConfig = SamplingConfig()
    identity: IdentityConfig = IdentityConfig()
    judge: JudgeConfig = JudgeConfig()
    select: SelectConfig = SelectConfig()


@dataclass(slots=True)
class Watch:
    """Told how an extraction goes on."""

    begin: Callable[[int], object] = lambda frames: None
    """Once, with the number of frames in all films."""
    advance: Callable[[int], object] = lambda frames: None
    """With the number of frames done."""
    found: Callable[[dict[str, tuple[int, int]]], object] = lambda scenes: None
    """After each part: scene -> frames that can serve it so far, and its target."""


def extract(
    films: Sequence[Path],
    profile: Profile,
    output_dir: Path,
    look: Look,
    *,
    reference: Path | None = None,
    profile_folder: Path = Path(),
    config: ExtractConfig | None = None,
    knows_occluders: bool = False,
    runner: Runner | None = None,
    resume: bool = True,
    stop_when_met: bool = False,
    trigger: str | None = None,
    watch: Watch | None = None,
) -> ExtractionResult:
    """Take from films the frames that a profile asks for, as a dataset folder.

    Args:
        films: film files, worked in this order.
        profile: what is asked for.
        output_dir: the dataset's folder; one that an extraction made before is brought up to date.
        look: the models.
        reference: folder of pictures of our character; None = the first character that the profile requires, else
            whoever is the main character.
        profile_folder: what the profile's character folders are relative to.
        config: settings.
        knows_occluders: whether the detector has classes of things that stand in front of characters; else
            occlusion is judged by colours too.
        runner: works through the parts; None = on this machine.
        resume: go on from the parts that an earlier run finished.
        stop_when_met: end when each scene has several times as many candidates as it asks for.
        trigger: word that captions begin with; None = the reference folder's name.
        watch: told how it goes on.

    Raises:
        UserError: a film, profile or reference folder is wrong, or `output_dir` holds something else.
        ServiceError: a service fails; what was finished is kept.
    """
    config = config or ExtractConfig()
    watch = watch or Watch()
    refuse_unreachable(profile, look.thresholds, "profile")
    _refuse_foreign(output_dir)
    found = _probe_all(films)
    names, characters = _characters(profile, reference, profile_folder, look, config.identity)
    asking = _Asking(found, profile, settings_for(config, found, profile), names, characters, stop_when_met)
    tasks = asking.tasks(look, knows_occluders)
    keys = [_key(task, look.models) for task in tasks]
    caption = trigger or (characters[0].name if characters else "character")
    key = _digest([keys, profile.model_dump(), asking.config.model_dump(), caption, stop_when_met, names])
    state = output_dir / STATE
    finished = read_result(output_dir) if resume else None
    _sweep(output_dir)
    if finished is not None and finished.key == key and _is_whole(output_dir):
        _discard(state)
        return finished.model_copy(update={"output_dir": str(output_dir)})
    if not resume:
        _discard(state)
    _forget_others(state, keys)
    watch.begin(sum(film.frames for film in found))
    gathered = _work(tasks, keys, state, asking, look, runner or local(look), watch)
    asking.judge(gathered.rows, look)
    chosen = select(gathered.rows, profile, config.select)
    notes = _notes(asking, gathered)
    result = write(output_dir, gathered, chosen, found, profile, look, key=key, caption=caption, notes=notes)
    _discard(state)
    return result


@dataclass(slots=True)
class _Asking:
    """Everything that is asked of the films."""

    films: list[Film]
    profile: Profile
    config: ExtractConfig
    names: tuple[str, ...]
    characters: tuple[Character, ...]
    stop_when_met: bool

    def tasks(self, look: Look, knows_occluders: bool) -> list[Task]:
        identity = self.config.identity
        queries = [(name, scene.queries) for name, scene in self.profile.scenes() if scene.queries]
        floor = -1.0
        if self.characters:
            floor = min(threshold(self.characters[0], shot, identity) for shot in ShotType) - _DOUBT
        categories = frozenset(SCENES[name] for name, _ in self.profile.scenes())
        questions = Questions(
            self.characters,
            identity,
            tuple((name, look.embed_texts(texts)) for name, texts in queries),
            categories,
            floor,
            look.thresholds,
            not knows_occluders and Attribute.OCCLUSION.value in categories,
        )
        return [
            Task(film, index, piece, self.config.sampling, questions)
            for film in self.films
            for index, piece in enumerate(pieces(film, self.config.part_s))
        ]

    def judge(self, rows: list[Judged], look: Look) -> None:
        """Decide what each candidate serves; may be called again as rows are added."""
        config = self.config
        judge(rows, self.profile, self.names, self.characters, config.identity, look.thresholds, config.judge)


def _probe_all(films: Sequence[Path]) -> list[Film]:
    """Each film once, though it be given twice. Raises UserError for none."""
    if not films:
        raise UserError("no film is given; name at least one")
    found = {film.hash: film for film in reversed([probe(path) for path in films])}
    return list(reversed(found.values()))


def _characters(
    profile: Profile, reference: Path | None, folder: Path, look: Look, config: IdentityConfig
) -> tuple[tuple[str, ...], tuple[Character, ...]]:
    """Names as the profile gives them and what the references show; ours first."""
    named = profile.characters()
    paths = {name: folder / name for name in named}
    if reference is not None:
        same = [name for name in named if paths[name].resolve() == reference.resolve() or name == reference.name]
        ours = same[0] if same else ""
        paths[ours] = reference
        named = (ours, *(name for name in named if name != ours))
    return named, tuple(load_character(paths[name], look, config) for name in named)


def settings_for(config: ExtractConfig, films: Sequence[Film], profile: Profile) -> ExtractConfig:
    """The settings with a span: the given one, or one by how much is asked of how much film."""
    span = config.span_s
    if span is None:
        asked = sum(scene.target for _, scene in profile.scenes())
        wanted = sum(film.duration_s for film in films) / (_SPANS_A_FRAME * asked)
        span = round(min(max(wanted, _SPAN_S[0]), _SPAN_S[1]), 3)
    return config.model_copy(update={"span_s": span, "sampling": config.sampling.model_copy(update={"span_s": span})})


def _digest(value: object) -> str:
    return content_hash(json.dumps(value, sort_keys=True, default=str).encode())


def _key(task: Task, models: str) -> str:
    asked = task.questions
    digest = hashlib.sha256()
    for character in asked.characters:
        digest.update(character.embeddings.tobytes() + character.signatures.tobytes())
    for name, texts in asked.texts:
        digest.update(name.encode() + texts.tobytes())
    rest = [
        _VERSION, models, task.film.hash, task.piece, task.sampling.model_dump(), asked.identity.model_dump(),
        sorted(asked.categories), asked.floor, asked.thresholds.model_dump(), asked.colours_hide,
    ]  # fmt: skip
    return _digest([digest.hexdigest(), rest])


def _refuse_foreign(folder: Path) -> None:
    """Raise UserError where the output folder holds something that no extraction made."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give --output-dir a folder")
    known = {LINEAGE, TABLE, PAGE, FACTS}
    if folder.is_dir() and not (folder / STATE).is_dir() and not (folder / TABLE).is_file():
        other = [p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name not in known]
        if other:
            raise UserError(
                f"{folder}: holds {len(other)} files that no extraction made ({sorted(other)[0]}, …);"
                " give --output-dir another folder"
            )


def _forget_others(state: Path, keys: Sequence[str]) -> None:
    """Remove parts that were worked for other questions."""
    if state.is_dir():
        wanted = {key[:32] for key in keys}
        for folder in state.iterdir():
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    return all((folder / line["file"]).is_file() for line in read_lineage(folder / LINEAGE))


def _discard(state: Path) -> None:
    """Remove the parts at one stroke: one half removed would look like a finished one."""
    if state.is_dir():
        gone = state.with_name(f"{STATE}.{os.getpid()}{_GONE}")
        state.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a run that was killed while it wrote has left."""
    for gone in folder.glob(f"{STATE}.*{_GONE}"):
        shutil.rmtree(gone, ignore_errors=True)
    remove_asides(folder, folder / STATE)


def _work(
    tasks: Sequence[Task], keys: Sequence[str], state: Path, asking: _Asking, look: Look, runner: Runner, watch: Watch
) -> Gathered:
    """Work through all parts that are not finished yet, and gather the rows of all."""
    gathered = Gathered()
    folders = [state / key[:32] for key in keys]
    known = [chunk.read(folder) for folder in folders]
    left = [task for task, part in zip(tasks, known, strict=True) if part is None]
    film = {f.hash: n for n, f in enumerate(asking.films)}
    with closing(runner(left, watch.advance)) as running:
        for number, task in enumerate(tasks):
            part = known[number]
            if part is None:
                _, part, pictures = next(running)
                chunk.save(folders[number], part, pictures)
            else:
                watch.advance(part.frames)
            gathered.add(film[task.film.hash], part, folders[number])
            _trim(gathered, asking)
            asking.judge(gathered.rows, look)
            counts = _able(gathered.rows, asking.profile)
            watch.found(counts)
            if asking.stop_when_met and all(able >= _STOP_AT * target for able, target in counts.values()):
                break
    return gathered


def _able(rows: Sequence[Judged], profile: Profile) -> dict[str, tuple[int, int]]:
    return {name: (sum(name in row.scores for row in rows), scene.target) for name, scene in profile.scenes()}


def _trim(gathered: Gathered, asking: _Asking) -> None:
    """Let go of the least likely pictures, so that a long film does not fill the disk.

    Depends on the parts so far alone, so a run that goes on lets go of the same ones.
    """
    kept: set[int] = set()
    waiting = [n for n, row in enumerate(gathered.rows) if row.looked.picture is not None]
    for name, scene in asking.profile.scenes():
        mine = [n for n in waiting if _shows(gathered.rows[n], SCENES[name])]
        mine.sort(key=lambda n: (-_promise(gathered.rows[n]), n))
        kept.update(mine[: _KEPT * scene.target])
    for n in waiting:
        if n not in kept:
            looked = gathered.rows[n].looked
            assert looked.picture is not None
            (gathered.folders[gathered.rows[n].part] / looked.picture).unlink(missing_ok=True)
            looked.picture = None


def _shows(row: Judged, category: str) -> bool:
    return row.decision is not None and category in row.decision.categories


def _promise(row: Judged) -> float:
    main, decision = row.main, row.decision
    if main is None or decision is None or decision.main is None:
        return 0.0
    like = row.looked.likeness[0][decision.main] if row.looked.likeness else 0.5
    return like + 0.2 * main.confidence


def _notes(asking: _Asking, gathered: Gathered) -> tuple[str, ...]:
    notes = [note for film in asking.films for note in film.notes]
    notes += [note for character in asking.characters for note in character.notes]
    if gathered.damaged:
        notes.append(f"{gathered.damaged} frames could not be decoded and are left out")
    if not asking.characters:
        notes.append("no reference pictures were given, so whoever is the main character of a frame counts as ours")
    return tuple(notes)
