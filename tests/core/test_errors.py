"""The one table from exceptions to exit codes and status codes."""

import grpc
import pytest

from onmodel.core import errors


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.UserError("x"), 2, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFoundError("x"), 2, grpc.StatusCode.NOT_FOUND),
        (errors.ForbiddenError("x"), 2, grpc.StatusCode.PERMISSION_DENIED),
        (errors.ConflictError("x"), 2, grpc.StatusCode.ALREADY_EXISTS),
        (errors.ImageError("x"), 2, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ResourceError("x"), 3, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.ServiceError("x"), 4, grpc.StatusCode.UNAVAILABLE),
        (KeyboardInterrupt(), 130, grpc.StatusCode.CANCELLED),
        (ValueError("x"), 1, grpc.StatusCode.INTERNAL),
    ],
)
def test_codes(error: BaseException, code: int, status: grpc.StatusCode) -> None:
    assert errors.exit_code(error) == code
    assert errors.status_code(error) is status


def test_a_subclass_inherits_its_parents_row() -> None:
    class Odd(errors.NotFoundError): ...

    assert errors.status_code(Odd("x")) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one  \ntwo"), "one"),
        (ValueError(""), "ValueError"),
        (ValueError(" \n "), "ValueError"),
        (ValueError("x" * 1000), "x" * 300),
    ],
)
def test_the_first_line_of_another_librarys_error(error: Exception, line: str) -> None:
    assert errors.first_line(error) == line
