"""Folders and s3:// prefixes below which a caller may name files: the one place that decides it."""

import os
from collections.abc import Sequence
from pathlib import Path

from onmodel.core.errors import ForbiddenError, UserError

S3 = "s3://"


class AllowedRoots:
    """What services and jobs may touch when somebody else names it. Says nothing of what exists outside."""

    def __init__(self, roots: Sequence[str], *, advice: str = "choose a place below one") -> None:
        """`roots`: absolute folders, or s3://BUCKET[/PREFIX]. `advice` ends the sentence of a refusal."""
        self._folders = tuple(Path(root).resolve() for root in roots if not root.startswith(S3))
        self._prefixes = tuple(root.rstrip("/") + "/" for root in roots if root.startswith(S3))
        self._advice = advice

    def file(self, path: Path, shown: str) -> Path:
        """`path` with its links followed; it need not exist. `shown` is how the caller wrote it.

        Raises:
            ForbiddenError: it is not below an allowed folder, has `..` in it, or a link leads outside.
        """
        refused = ForbiddenError(f"{shown}: not below a folder that this service may read; {self._advice}")
        if ".." in path.parts or "\0" in str(path):
            raise refused
        # Links are followed before the comparison, so one that leads outside is refused.
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(root) for root in self._folders):
            raise refused
        return real

    def check(self, place: str) -> None:
        """Refuse an absolute path or s3:// URI that is not below a root.

        Raises:
            ForbiddenError: as `file`.
            UserError: another kind of URI, or a path that is not absolute.
        """
        if place.startswith(S3):
            # A key is no path: `..` means nothing in it, until it is brought to a disk.
            inside = any(f"{place.rstrip('/')}/".startswith(prefix) for prefix in self._prefixes)
            if not inside or ".." in place.split("/"):
                raise ForbiddenError(f"{place}: not below a prefix that this service may read; {self._advice}")
        elif not place.startswith("/"):
            raise UserError(f"{place}: neither an absolute path nor an s3:// URI; nothing else is read or written")
        else:
            self.file(Path(place), place)
