"""Who may talk to the page: checked before anything else of a request is looked at.

On the loopback interface the Host header must name it, so that a web site cannot reach the page through a name that
it points here (DNS rebinding). On any other interface a token is asked for: in the URL once, then in a cookie that
scripts cannot read and other sites cannot send. Whatever changes something needs a header that a form or a foreign
script cannot set without asking, and an Origin that is our own.
"""

import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

ACTION_HEADER = "x-onmodel"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Access:
    """What a request must show."""

    port: int
    token: str | None
    """None = served on the loopback interface alone."""

    @property
    def cookie(self) -> str:
        """The cookie's name. Cookies are shared by all ports of a host, so the port stands in it."""
        return f"onmodel_curate_{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an interface."""
    return host in ("localhost", "::1") or host.startswith("127.")


class Guard:
    """ASGI middleware: refuses what must not come in, and sets the headers that keep a browser in bounds."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # No web sockets are served, and lifespan events are none of this guard's business.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._access.token is None:
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name not in LOOPBACK:
                return PlainTextResponse("This page is served to 127.0.0.1 and localhost alone.\n", 403)
        else:
            refusal = self._without_token(scope, headers, self._access.token)
            if refusal is not None:
                return refusal
        if scope["method"] in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        if foreign or ACTION_HEADER not in headers or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Only the page itself may change anything.\n", 403)
        return None

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        shown = cookie_parser(headers.get("cookie", "")).get(self._access.cookie, "")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and _same(given, token) and scope["method"] == "GET":
            # The token leaves the address bar, where it would be seen and shared.
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            response = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            response.set_cookie(self._access.cookie, token, httponly=True, samesite="strict", path="/")
            return response
        if _same(shown, token):
            return None
        return PlainTextResponse("Open the address that `onmodel curate` printed; it ends in a token.\n", 401)


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())
