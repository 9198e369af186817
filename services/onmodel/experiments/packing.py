"""Tar files through narrow doors: the sets to a machine that trains, what was made back from it."""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import content_hash, write_aside, write_text
from onmodel.experiments.make import RECORD, jobs_of, read_made
from onmodel.experiments.plan import PLAN_FILE, Layout, Settings
from onmodel.experiments.rate import RATE_FILE

SETS_FILE = "sets.tar.xz"
PACKED_FILE = "packed.txt"
"""What earlier packs took along: another one takes the rest."""
MOST_BYTES = 15 * 2**20
"""Of one tar file."""
MOST_FILES = 6
MOST_TOTAL = 57 * 10**6


def pack_sets(layout: Layout) -> Path:
    """Write the sets that all trials are trained on, with the settings, to `WORK/sets.tar.xz`; equal files once."""
    target = layout.work / SETS_FILE
    files = [layout.work / PLAN_FILE, *sorted(f for f in (layout.work / "sets").rglob("*") if f.is_file())]
    first: dict[str, str] = {}
    with write_aside(target) as aside, tarfile.open(aside, "w:xz", format=tarfile.USTAR_FORMAT) as tar:
        for file in files:
            name = file.relative_to(layout.work).as_posix()
            content = content_hash(file.read_bytes())
            info = _plain(tar.gettarinfo(file, name))
            if content in first:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first[content], 0
                tar.addfile(info)
                continue
            first[content] = name
            info.type = tarfile.REGTYPE
            with file.open("rb") as stream:
                tar.addfile(info, stream)
    return target


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs from machine to machine."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o644
    return info


def pack(settings: Settings, layout: Layout, out: Path | None) -> list[str]:
    """Write tar files of what was made and not packed yet: pictures and records first, then checkpoints.

    Judging needs no checkpoint, so these go where there is room left. Returns a line for each tar file, and one for
    what was left out.

    Raises:
        UserError: no folder is given, or it holds something.
    """
    if out is None:
        raise UserError("no folder is given for the tar files; name one behind WORK")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: holds something; give a new folder for each pack")
    known = layout.work / PACKED_FILE
    before = set(known.read_text(encoding="utf-8").split()) if known.is_file() else set[str]()
    pieces = [(name, files) for name, files in _pieces(settings, layout) if name not in before]
    # A tar file ends on a multiple of its record.
    room = MOST_BYTES - 2 * tarfile.RECORDSIZE
    tars, left = _fill([(name, _size(files)) for name, files in pieces], most_bytes=room, most_total=MOST_TOTAL)
    lines: list[str] = []
    for number, names in enumerate(tars):
        target = out / f"made_{number}.tar"
        with write_aside(target) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
            for file in (file for name in names for file in dict(pieces)[name]):
                tar.add(file, file.relative_to(layout.work).as_posix(), recursive=False, filter=_plain)
        lines.append(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {', '.join(names)}")
    packed = before | {name for names in tars for name in names}
    write_text(known, "".join(f"{name}\n" for name in sorted(packed)))
    if left:
        lines.append(f"left out: {', '.join(left)}")
    return lines


def _pieces(settings: Settings, layout: Layout) -> Iterator[tuple[str, list[Path]]]:
    """What is packed together, by name, in order."""
    checkpoints: list[tuple[str, list[Path]]] = []
    for job in jobs_of(settings, layout):
        if not job.made:
            continue
        if job.trial is None:
            folder = layout.pictures(job.character)
            rate = [file for file in (layout.work / RATE_FILE,) if file.is_file()]
            yield f"base:{job.character}", [*rate, folder / RECORD, *sorted(folder.glob("base-*/img_*.png"))]
            continue
        made = read_made(layout, job.trial)
        assert made is not None
        folder = layout.trial(job.trial)
        checkpoint = folder / made.checkpoint
        pictures = layout.pictures(job.character) / checkpoint.stem
        others = sorted(file for file in folder.iterdir() if file != checkpoint)
        yield job.trial.name, [*others, *sorted(pictures.glob("img_*.png"))]
        if checkpoint.is_file():
            checkpoints.append((f"{job.trial.name}:checkpoint", [checkpoint]))
    # The small ones first: more of them fit.
    yield from sorted(checkpoints, key=lambda piece: piece[1][0].stat().st_size // 2**20)


def _size(files: Iterable[Path]) -> int:
    return sum(tarfile.BLOCKSIZE + -(-file.stat().st_size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for file in files)


def _fill(
    pieces: Sequence[tuple[str, int]], *, most_bytes: int, most_total: int
) -> tuple[list[list[str]], list[str]]:  # fmt: skip
    """Names by tar file, each piece in the first that has room, and those that none has room for.

    `pieces` are names with their bytes; a tar file takes `most_bytes`, and all of them `most_total`.
    """
    tars: list[list[str]] = []
    sizes: list[int] = []
    left: list[str] = []
    for name, size in pieces:
        place = next((n for n, used in enumerate(sizes) if used + size <= most_bytes), None)
        room = place is not None or (len(tars) < MOST_FILES and size <= most_bytes)
        if not room or sum(sizes) + size > most_total:
            left.append(name)
            continue
        if place is None:
            place = len(tars)
            tars.append([])
            sizes.append(0)
        tars[place].append(name)
        sizes[place] += size
    return tars, left


def unpack(place: Path | None, work: Path) -> None:
    """Put into `work` what a tar file, or each of a folder's, holds.

    Raises:
        UserError: no place is given, or a file that cannot be read.
        NotFoundError: nothing is there.
    """
    if place is None:
        raise UserError("no tar file or folder of them is given; name one behind WORK")
    files = sorted(place.glob("*.tar*")) if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise NotFoundError(f"{place}: no tar file there; check the path")
    work.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            with tarfile.open(file) as tar:
                tar.extractall(work, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{file}: cannot be unpacked ({error}); fetch it again") from None
