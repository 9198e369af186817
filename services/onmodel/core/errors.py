"""The exceptions of OnModel, and the one table from them to gRPC status codes and exit codes.

OnModelError                       exit  gRPC
├── UserError                      2     INVALID_ARGUMENT     a file, key or argument is wrong
│   ├── NotFoundError              2     NOT_FOUND            a file, model or name does not exist
│   ├── ForbiddenError             2     PERMISSION_DENIED    a path outside the allowed roots
│   └── ConflictError              2     ALREADY_EXISTS       a name that stands for something else already
├── ImageError                     2     INVALID_ARGUMENT     one picture cannot be read
├── ResourceError                  3     RESOURCE_EXHAUSTED   disk, memory or workers cannot be had
├── ServiceError                   4     UNAVAILABLE          a service does not answer
└── InternalError                  1     INTERNAL             a fault of ours

The text of an OnModelError is one or two sentences for a person: which file or key, why, and what to do.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class OnModelError(Exception):
    """Root of the tree; never raised itself."""


class UserError(OnModelError):
    """Something that the user gave is wrong and the user can mend it."""


class NotFoundError(UserError):
    """A file, model or name that was given does not exist."""


class ForbiddenError(UserError):
    """A path outside the folders that a service may read."""


class ConflictError(UserError):
    """A name that was given for something new stands for something else already."""


class ImageError(OnModelError):
    """One picture cannot be read. Batches report and count it; they do not stop for it."""


class ResourceError(OnModelError):
    """Disk, memory or workers that the work needs cannot be had."""


class ServiceError(OnModelError):
    """A service does not answer, or answers with a failure of its own."""


class InternalError(OnModelError):
    """A fault in OnModel itself."""


# Looked up along the exception's method resolution order, so a subclass inherits its parent's row.
CODES: dict[type[BaseException], tuple[int, str]] = {
    NotFoundError: (2, "NOT_FOUND"),
    ForbiddenError: (2, "PERMISSION_DENIED"),
    ConflictError: (2, "ALREADY_EXISTS"),
    UserError: (2, "INVALID_ARGUMENT"),
    ImageError: (2, "INVALID_ARGUMENT"),
    ResourceError: (3, "RESOURCE_EXHAUSTED"),
    ServiceError: (4, "UNAVAILABLE"),
    TimeoutError: (4, "DEADLINE_EXCEEDED"),
    KeyboardInterrupt: (130, "CANCELLED"),
    BaseException: (1, "INTERNAL"),
}


def first_line(error: BaseException) -> str:
    """What another library's exception says, as it fits into a sentence: its first line, at most 300
    characters of it, else the name of its type."""
    return next(iter(str(error).strip().splitlines()), "").strip()[:300] or type(error).__name__


def _codes(error: BaseException) -> tuple[int, str]:
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return CODES[BaseException]


def exit_code(error: BaseException) -> int:
    """Process exit code for `error`."""
    return _codes(error)[0]


def status_code(error: BaseException) -> "grpc.StatusCode":
    """gRPC status code for `error`."""
    import grpc  # here alone: training raises these errors too, and speaks to no service

    return grpc.StatusCode[_codes(error)[1]]
