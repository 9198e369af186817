"""Files written whole or not at all, and content hashes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from onmodel.core.errors import NotFoundError, ResourceError, UserError


def user_cache() -> Path:
    """Where what can be made anew is kept: `ONMODEL_CACHE`, or `onmodel` in the user's cache folder."""
    import pooch  # only where a cache is asked for: it brings its downloader along

    home = os.environ.get("ONMODEL_CACHE")
    return Path(home) if home else Path(pooch.os_cache("onmodel"))


def content_hash(data: bytes) -> str:
    """SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_hash(path: Path, files: Iterable[Path] | None = None) -> str:
    """SHA-256 over the names and bytes of all files below `path`, of those `files` alone, or of the one file."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in (path.rglob("*") if files is None else files) if p.is_file()):
        digest.update(str(file.relative_to(path)).encode() + b"\0" + bytes.fromhex(file_hash(file)))
    return digest.hexdigest()


@contextmanager
def write_aside(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends well, else it is removed.

    Raises:
        UserError: the folder cannot be written.
        ResourceError: the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise _write_error(path, error) from None
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        # mkstemp makes files private to the owner; what we write is meant to be shared like any other file.
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all. Raises as `write_aside`."""
    with write_aside(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` whole or not at all. Raises as `write_aside`."""
    write_bytes(path, text.encode())


@contextmanager
def folder_aside(path: Path) -> Generator[Path]:
    """Yield a new empty folder beside `path`; it becomes `path` (replacing an old one) when the block ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        raise _write_error(path, error) from None
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        aside.rename(path)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_asides(*folders: Path) -> None:
    """Remove what processes that were killed while they wrote have left directly in `folders`; none may write there."""
    for folder in folders:
        for left in folder.glob(".*.part"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> ResourceError | UserError:
    reason = error.strerror or str(error)
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return ResourceError(f"{path}: cannot be written ({reason}); free some disk space and run the command again")
    return UserError(f"{path}: cannot be written ({reason}); choose another place or check its permissions")


def existing(path: Path, what: str) -> Path:
    """`path` itself when it exists. Raises NotFoundError naming `what` otherwise."""
    if not path.exists():
        raise NotFoundError(f"{path}: no such {what}; check the path")
    return path


def what_exists(path: Path) -> Path:
    """`path` itself, or the nearest place above it that exists: a folder, or a file in its way. Absolute."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
