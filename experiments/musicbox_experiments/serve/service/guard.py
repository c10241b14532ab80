"""What stands before every request: bounds of size and time, the token, safe headers."""

import asyncio
import hmac
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicbox_experiments.serve.service.metrics import Metrics

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
PROTECTED: Final = ("/v1/", "/metrics")
"""Paths that need the token, where there is one; the page itself holds nothing."""
HOST: Final = re.compile(r"(\[.*\]|[^:]*)(?::\d*)?")
"""Name or address of the header Host, and a port."""
SAFE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """Bounds of a request.

    Attributes:
        body: Bytes.
        forgotten: Bytes of a larger one that are read, so that its refusal is, too.
        receiving: Seconds until all of it has arrived.
        answering: Seconds until the answer begins.
    """

    body: int = 1 << 18
    forgotten: int = 1 << 24
    receiving: float = 10.0
    answering: float = 30.0


class RefusedError(Exception):
    """A request that is not answered; its status, and why."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """Lets requests through that are small, complete in time, and allowed.

    Attributes:
        draining: Whether connections end with the next answer, since the worker does.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        limits: Limits,
        token: str | None,
        hosts: tuple[str, ...] | None,
    ) -> None:
        """Stand before an application.

        Args:
            app: The application.
            metrics: Where requests are counted.
            limits: Bounds.
            token: What the header ``Authorization: Bearer`` must hold; None is nothing.
            hosts: Names that a request may call the service by, against pages of other sites whose
                names lead here; None is any.
        """
        self.app, self.metrics, self.limits = app, metrics, limits
        self.token, self.draining = token, False
        self.hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; other events go through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # no body is sent
        headers = [pair for pair in scope["headers"] if pair[0] != b"range"]  # answers are whole
        path = scope["path"]
        if not path.startswith("/"):  # of a client that takes the service for a proxy (RFC 9112)
            path = "/" + path.partition("://")[2].partition("/")[2]
        scope = {**scope, "method": method, "headers": headers, "path": path}
        status, started = 0, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._make_safe(message)
            await send(message)

        try:
            body = await self._allowed_body(scope, receive)
            started = time.perf_counter()
            async with asyncio.timeout(self.limits.answering):
                await self.app(scope, _replayed(body, receive), sending)
        except RefusedError as error:
            await _refuse(error, sending)
        except TimeoutError:
            if not status:
                late = "The answer took too long; ask for less, or later."
                await _refuse(RefusedError(HTTPStatus.GATEWAY_TIMEOUT, late), sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status or 500).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _make_safe(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        headers.update(SAFE_HEADERS)
        headers.setdefault("Cache-Control", "no-store")
        if self.draining:
            headers["Connection"] = "close"

    async def _allowed_body(self, scope: Scope, receive: Receive) -> bytes:
        headers = Headers(scope=scope)
        try:
            self._require_allowed(scope["path"], headers)
        except RefusedError:
            if "expect" not in headers:  # whose sender waits to be told whether to go on
                with suppress(RefusedError):
                    await self._body(headers, receive)
            raise
        return await self._body(headers, receive)

    def _require_allowed(self, path: str, headers: Headers) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # One of several servers on the way may go by the other length.
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The request gives its length in two ways.")
        named = HOST.fullmatch(headers.get("host", "").lower())
        if self.hosts is not None and (named is None or named[1].strip("[]") not in self.hosts):
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST, "This service is not called by that host name."
            )
        if self.token is None or not path.startswith(PROTECTED):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED, "Send the service's token as Authorization: Bearer TOKEN."
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """What a request holds; of one that is too large the rest is read and forgotten.

        Where a connection ends with bytes unread, its client sees that it was reset, and no answer.
        """
        limits, parts, size, more = self.limits, [], 0, True
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > limits.forgotten:
            more, size = False, limits.forgotten
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.receiving):
                while more and size <= limits.forgotten:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    part, more = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    if size <= limits.body:
                        parts.append(part)
        if size > limits.body:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The body is larger than {limits.body:,} bytes.",
            )
        if more:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time.")
        return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, and then what follows it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(error: RefusedError, send: Send) -> None:
    body = json.dumps({"detail": error.detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if error.status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": int(error.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
