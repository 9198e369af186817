"""Made folders, and a server in a thread."""

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from onmodel.curation.server import Listening, listen, make_server
from onmodel.curation.session import PageOptions, Session

from .made import make_clusters, make_many, session_of

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


@pytest.fixture
def open_page(browser: Any) -> Generator[Callable[..., Any]]:
    """Opens the page with storage of its own, as another person would. Errors on the page fail the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def start(url: str, *, may_fail: bool = False, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        if not may_fail:
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(url) else None)
        page.goto(url)
        page.locator(".tile.cursor img[src]").wait_for()
        return page

    yield start
    for context in contexts:
        context.close()
    assert faults == []
