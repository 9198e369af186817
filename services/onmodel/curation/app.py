"""The page's HTTP interface: pictures by their id, JSON for everything else."""

import gzip
import json
import mimetypes
import os
import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from onmodel.core.errors import ImageError, NotFoundError, OnModelError, ResourceError, UserError
from onmodel.core.images import read_bytes
from onmodel.curation.cache import SIDES
from onmodel.curation.guard import Access, Guard
from onmodel.curation.session import ActionRequest, Session, TurnRequest
from onmodel.curation.store import ConflictError

PAGES = Path(__file__).parent / "pages"
# What is named by its content never changes.
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
_STATUS: tuple[tuple[type[OnModelError], int], ...] = (
    (ConflictError, 409),
    (NotFoundError, 404),
    (UserError, 400),
    (ImageError, 410),
    (ResourceError, 507),
)


class Routes:
    """Answers to the page."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # Decoding is heavy; more at once than cores only makes every one of them late.
        self._decoding = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))

    def page(self) -> Response:
        """The page itself."""
        return FileResponse(PAGES / "index.html", headers={"cache-control": "no-cache"})

    def everything(self, request: Request) -> Response:
        """All pictures and states; some megabytes for ten thousand pictures."""
        data = json.dumps(self._session.everything(), ensure_ascii=False, separators=(",", ":")).encode()
        headers: dict[str, str] = {}
        if "gzip" in request.headers.get("accept-encoding", ""):
            data, headers = gzip.compress(data, 4), {"content-encoding": "gzip"}
        return Response(data, media_type="application/json", headers=headers)

    def changes(self, since: Annotated[int, Query(ge=0)]) -> dict[str, Any]:
        """What was done since a revision."""
        return self._session.changes(since)

    def stacks(self) -> dict[str, Any]:
        """Near-duplicates."""
        background = self._session.background
        return {"version": background.progress.stacks, "stacks": background.stacks}

    def act(self, request: ActionRequest) -> dict[str, Any]:
        """Keep, reject, clear, move or label."""
        return self._session.act(request)

    def undo(self, request: TurnRequest) -> dict[str, Any]:
        """Turn the latest action back."""
        return self._session.undo(request)

    def redo(self, request: TurnRequest) -> dict[str, Any]:
        """Do the action undone last again."""
        return self._session.redo(request)

    def similar(self, picture_id: str) -> dict[str, Any]:
        """The pictures most like one."""
        return self._session.similar(picture_id)

    def export(self) -> dict[str, Any]:
        """Write the kept pictures."""
        done = self._session.write()
        return {
            "output": str(done.output_dir),
            "kept": done.kept,
            "groups": done.groups,
            "counts": done.counts,
            "skipped": done.skipped,
        }

    def thumbnail(self, picture_id: str, side: Annotated[int, Query()] = SIDES[0]) -> Response:
        """A picture scaled down, as JPEG."""
        if side not in SIDES:
            raise UserError(f"side {side}: thumbnails are {', '.join(map(str, SIDES))} pixels; choose one")
        entry = self._session.catalogue.entry(picture_id)
        with self._decoding:
            data = self._session.cache.thumbnail(entry.path, entry.hash, side)
        return Response(data, media_type="image/jpeg", headers=_FOREVER)

    def picture(self, picture_id: str) -> Response:
        """A picture's own file."""
        entry = self._session.catalogue.entry(picture_id)
        kind = mimetypes.guess_type(entry.path.name)[0] or "application/octet-stream"
        return Response(read_bytes(entry.path), media_type=kind, headers={"cache-control": "private, no-cache"})


def create_app(session: Session, access: Access) -> FastAPI:
    """The application for one session."""
    app = FastAPI(title="OnModel curate", docs_url=None, redoc_url=None, openapi_url=None)
    routes = Routes(session)
    app.add_api_route("/", routes.page, methods=["GET"], response_model=None)
    app.add_api_route("/api/everything", routes.everything, methods=["GET"], response_model=None)
    app.add_api_route("/api/changes", routes.changes, methods=["GET"])
    app.add_api_route("/api/stacks", routes.stacks, methods=["GET"])
    app.add_api_route("/api/similar/{picture_id}", routes.similar, methods=["GET"])
    app.add_api_route("/api/actions", routes.act, methods=["POST"])
    app.add_api_route("/api/undo", routes.undo, methods=["POST"])
    app.add_api_route("/api/redo", routes.redo, methods=["POST"])
    app.add_api_route("/api/export", routes.export, methods=["POST"])
    app.add_api_route("/thumbnail/{picture_id}", routes.thumbnail, methods=["GET"], response_model=None)
    app.add_api_route("/picture/{picture_id}", routes.picture, methods=["GET"], response_model=None)
    app.mount("/pages", StaticFiles(directory=PAGES))
    app.add_exception_handler(OnModelError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_middleware(Guard, access=access)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, status)


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    return JSONResponse({"error": f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"}, 422)
