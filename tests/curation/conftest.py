"""Made folders, Chromium, and a server in a thread."""

import shutil
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from onmodel.curation.server import Listening, listen, make_server
from onmodel.curation.session import PageOptions, Session

from .made import make_clusters, make_many, session_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MANY = 10_000


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clusters; copy it before changing anything."""
    return make_clusters(tmp_path_factory.mktemp("made") / "clusters")


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten thousand pictures."""
    return make_many(tmp_path_factory.mktemp("many") / "many", MANY)


@pytest.fixture
def session(made: Path, tmp_path: Path) -> Generator[Session]:
    with session_of(made, tmp_path / "out") as opened:
        yield opened


@pytest.fixture(scope="session")
def browser() -> Generator[Any]:
    """Debian's Chromium through playwright."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


Serve = Callable[..., tuple[Session, Listening]]


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Serve]:
    """Serves a folder from a thread until the test ends."""
    with ExitStack() as stack:

        def start(
            source: Path, *, host: str = "127.0.0.1", background: bool = True, page: PageOptions | None = None
        ) -> tuple[Session, Listening]:
            session = stack.enter_context(session_of(source, tmp_path / "out", page=page))
            listening = stack.enter_context(_closing(listen(host, 0)))
            server = make_server(session, listening)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening.socket]}, daemon=True)
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(timeout=20)

            stack.callback(stop)
            if background:
                session.background.start()
            return session, listening

        yield start


class _closing:
    def __init__(self, listening: Listening) -> None:
        self._listening = listening

    def __enter__(self) -> Listening:
        return self._listening

    def __exit__(self, *_: object) -> None:
        self._listening.socket.close()
