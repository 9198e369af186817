"""What lies at s3://, brought to a disk for a job and sent back: whole files, changed ones alone, by fsspec.

A place is a file or everything below a prefix. Bringing mirrors it; sending back takes what is new or changed and
removes what the job removed. A job that was cut off therefore finds, given again, what was sent until then.
"""

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onmodel.core.errors import NotFoundError, ResourceError, UserError, first_line
from onmodel.core.files import write_aside
from onmodel.core.roots import S3

Open = Callable[[str], Any]
"""Gives the fsspec file system of a URI."""


def open_s3(uri: str) -> Any:
    """The S3 file system by Arrow, which comes with OnModel, behind fsspec's interface.

    Credentials and region are found as AWS's tools find them (variables, profile, the machine's role); AWS_ENDPOINT_URL
    (or AWS_ENDPOINT_URL_S3) names another store that speaks S3. `uri` is for the error alone. Raises UserError.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        return ArrowFSWrapper(S3FileSystem(region=region, endpoint_override=endpoint))
    except (OSError, ValueError) as error:
        raise UserError(f"{uri}: S3 cannot be reached ({first_line(error)}); check region and credentials") from None


@dataclass
class Place:
    """One URI and where it lies on this machine."""

    uri: str
    """Without a slash at its end."""
    local: Path
    written: bool
    """Named as an output: it need not exist yet."""
    seen: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """What both sides hold: path below the place ("" for the place itself, a file) -> (bytes, mtime in ns) here."""


class Storage:
    """The places of one job, below one folder of this machine."""

    def __init__(self, folder: Path, uris: dict[str, bool], open_: Open = open_s3) -> None:
        """`uris`: each with whether it is an output. Places that lie below another are part of it."""
        self._open = open_
        self.at = {uri: str(folder / uri.removeprefix(S3)) for uri in uris}
        outer = [uri for uri in uris if not any(uri.startswith(f"{other}/") for other in uris)]
        self.places = [Place(uri, Path(self.at[uri]), uris[uri]) for uri in outer]

    def bring(self, advance: Callable[[int], object] = lambda _: None) -> int:
        """Fetch everything; gives the number of files.

        Raises:
            NotFoundError: an input is not there.
            ForbiddenError, UserError: the store refuses, or cannot be reached.
        """
        return sum(self._bring(place, advance) for place in self.places)

    def _bring(self, place: Place, advance: Callable[[int], object]) -> int:
        system = self._open(place.uri)
        with _explained(place.uri):
            found = _listing(system, place.uri)
            if not found and not place.written:
                raise NotFoundError(f"{place.uri}: nothing is there; check the URI and which bucket it names")
            for name in found:
                target = place.local / name if name else place.local
                if not target.resolve().is_relative_to(place.local.resolve()):
                    raise UserError(f"{place.uri}/{name}: its name leads out of the folder; rename it")
                with write_aside(target) as aside:
                    system.get_file(_key(place.uri, name), str(aside))
                place.seen[name] = _state(target)
                advance(1)
        place.local.parent.mkdir(parents=True, exist_ok=True)
        return len(found)

    def send(self) -> int:
        """Send what is new or changed and remove what is gone; gives the number of files. Raises as `bring`."""
        return sum(self._send(place) for place in self.places)

    def _send(self, place: Place) -> int:
        now = {name: _state(place.local / name if name else place.local) for name in _names(place.local)}
        # The oldest first: what is written last names what was written before (a state its checkpoint).
        changed = sorted((n for n, state in now.items() if place.seen.get(n) != state), key=lambda name: now[name][1])
        gone = [name for name in place.seen if name not in now]
        if not changed and not gone:
            return 0
        system = self._open(place.uri)
        with _explained(place.uri):
            for name in changed:
                local = place.local / name if name else place.local
                try:
                    system.put_file(str(local), _key(place.uri, name))
                except FileNotFoundError:
                    if local.exists():  # then it is the bucket that is not there
                        raise
                    continue  # the verb removed it meanwhile
                # It may be replaced while it is read: sent again next time, as its state is taken before.
                place.seen[name] = now[name]
            for name in gone:
                with contextlib.suppress(FileNotFoundError):
                    system.rm_file(_key(place.uri, name))
                del place.seen[name]
        return len(changed) + len(gone)


def _listing(system: Any, uri: str) -> list[str]:
    """Names below a place, "" for the place itself where it is a file; sorted."""
    root = _key(uri, "")
    if system.isfile(root):
        return [""]
    prefix = root + "/"
    found: Iterable[str] = system.find(root)
    keys = (key.lstrip("/") for key in found)
    return sorted(key.removeprefix(prefix) for key in keys if key.startswith(prefix) and key != prefix)


def _key(uri: str, name: str) -> str:
    bucket_and_key = uri.removeprefix(S3)
    return posixpath.join(bucket_and_key, name) if name else bucket_and_key


def _names(local: Path) -> list[str]:
    """Files of a place here, without those that are still being written (`core.files.write_aside`) and links."""
    if local.is_file():
        return [""]
    found: list[str] = []
    for folder, folders, files in os.walk(local):
        folders[:] = [name for name in folders if not _being_written(name)]
        for name in files:
            path = Path(folder) / name
            if not _being_written(name) and not path.is_symlink() and path.is_file():
                found.append(path.relative_to(local).as_posix())
    return found


def _being_written(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (-1, 0)
    return (stat.st_size, stat.st_mtime_ns)


class _explained(contextlib.AbstractContextManager[None]):
    """Turns what a store raises into a sentence."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, PermissionError):
            raise UserError(
                f"{self._uri}: the store refuses ({first_line(error)}); check the credentials of the cluster's nodes"
            ) from None
        if isinstance(error, OSError):
            if error.errno in (28, 122):  # ENOSPC, EDQUOT
                raise ResourceError(f"{self._uri}: no room for it on this node; free some, or set ONMODEL_CACHE")
            raise UserError(
                f"{self._uri}: cannot be read or written ({first_line(error)}); check URI, credentials and network"
            ) from None
