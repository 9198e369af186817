"""The page on an address: its socket, its token, and serving until it is stopped."""

import errno
import secrets
import socket
from dataclasses import dataclass
from typing import Any

import uvicorn

from onmodel.core.errors import UserError
from onmodel.curation.app import create_app
from onmodel.curation.guard import Access, is_loopback
from onmodel.curation.session import Session

PORT = 8420


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that is bound and listens."""

    socket: socket.socket
    access: Access
    url: str
    """What a person opens; holds the token where one is needed."""


def listen(host: str, port: int) -> Listening:
    """Take an address. Port 0 takes any free one; a host other than the loopback interface gets a token.

    Raises:
        UserError: the port is in use or not allowed, or the host is no address of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        taken = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise _why(host, port, error) from None
    number = int(taken.getsockname()[1])
    access = Access(number, None if is_loopback(host) else secrets.token_urlsafe(24))
    # A page that is served on every interface is opened by this machine's name, not by 0.0.0.0.
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    base = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/"
    return Listening(taken, access, base if access.token is None else f"{base}?token={access.token}")


def _why(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(f"port {port} of {host} is in use; choose another with --port (0 takes any free one)")
    if error.errno == errno.EACCES:
        return UserError(f"port {port} needs more rights; choose one above 1023 with --port")
    reason = error.strerror or str(error)
    return UserError(f"--host {host}: is no address of this machine ({reason}); use 127.0.0.1, or 0.0.0.0 for all")


def make_server(session: Session, listening: Listening) -> Any:
    """A uvicorn server; `run(sockets=[listening.socket])` serves, `should_exit = True` ends it."""
    config = uvicorn.Config(
        create_app(session, listening.access),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
