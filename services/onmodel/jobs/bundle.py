"""The package that travels with a job: found here, zipped for the wire, unpacked on the other side."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from onmodel.core.errors import UserError
from onmodel.core.files import tree_hash
from onmodel.jobs.request import LIMIT_BYTES

PACKAGE = "onmodel"
LEFT_OUT = ("__pycache__",)
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member of a zip, so that the same code gives the same bytes."""


def package_folder() -> Path:
    """The running installation's sources, a checkout's or an installed wheel's."""
    import onmodel

    return Path(onmodel.__file__).resolve().parent


def package_files(folder: Path) -> Iterator[Path]:
    """What of the package runs: all but compiled leftovers, sorted."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith(".") and not set(LEFT_OUT) & set(file.parts):
            yield file


def code_hash(folder: Path | None) -> str:
    """SHA-256 of a package's files; "installed" for None."""
    return "installed" if folder is None else tree_hash(folder, package_files(folder))


def check_size(folder: Path) -> int:
    """Bytes of a package. Raises UserError above what Ray takes in one upload."""
    size = sum(file.stat().st_size for file in package_files(folder))
    if size > LIMIT_BYTES:
        largest = max(package_files(folder), key=lambda file: file.stat().st_size)
        raise UserError(
            f"{folder}: {size >> 20} MiB, and a job carries at most {LIMIT_BYTES >> 20} MiB of code; move data and "
            f"weights out of the package (the largest file is {largest.relative_to(folder)})"
        )
    return size


def pack(folder: Path) -> bytes:
    """A package as a zip whose one folder is `onmodel`. The same files give the same bytes. Raises as `check_size`."""
    check_size(folder)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in package_files(folder):
            name = PurePosixPath(PACKAGE) / file.relative_to(folder).as_posix()
            member = zipfile.ZipInfo(str(name), EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, file.read_bytes())
    return buffer.getvalue()


def unpack(data: bytes, into: Path) -> Path:
    """Unpack what `pack` made, sent by somebody else, into the empty folder `into`; gives the package's folder.

    Raises UserError for what is not such a zip: another folder in it, `..`, links, more than a job may carry.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > LIMIT_BYTES:
                raise UserError(f"code: {size >> 20} MiB unpacked; a job carries at most {LIMIT_BYTES >> 20} MiB")
            for member in members:
                _check_member(member)
                # zipfile stops at the size that the member declares.
                archive.extract(member, into)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
        raise UserError(f"code: not a zip that can be read ({error}); send the `{PACKAGE}` package") from None
    if not (into / PACKAGE / "__init__.py").is_file():
        raise UserError(f"code: the zip holds no `{PACKAGE}` package; its one folder must be that")
    return into / PACKAGE


def _check_member(member: zipfile.ZipInfo) -> None:
    parts = PurePosixPath(member.filename).parts
    kind = (member.external_attr >> 16) & 0o170000
    if (
        not parts
        or parts[0] != PACKAGE
        or ".." in parts
        or "\\" in member.filename
        or kind not in (0, 0o040000, 0o100000)
    ):
        raise UserError(f"code: `{member.filename[:100]}` has no place in a package; send a zip of `{PACKAGE}` alone")
