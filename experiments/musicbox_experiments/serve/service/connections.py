"""The HTTP server of a worker: connections that cannot wait for ever, and refusals in JSON."""

import asyncio
import json
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from musicbox_experiments.serve.service.guard import Guard

WAITING: Final = 2_048
"""Connections that wait to be taken."""
STOP_SECONDS: Final = 30
"""How long a server that ends goes on with requests that it has begun."""
HEAD_BYTES: Final = 1 << 16
"""Most that is kept of the head of a request before it is complete."""
HEAD_SECONDS: Final = 10.0
"""How long a connection may wait, or send the head of a request, until that is complete."""
READ_SECONDS: Final = 60.0
"""How long a connection stays of whose answer nothing more is read."""
MALFORMED: Final = "This is no HTTP request, or its headers are too large."


class Connection(H11Protocol):
    """A connection of HTTP/1.1.

    uvicorn limits how long a connection is idle after an answer alone. Here a request's head must
    be complete in time, an answer must be read, a client that sends no more is still answered, and
    what is no HTTP is refused in JSON as all else is.
    """

    _late: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._limit()
        self._reading = self.loop.call_later(READ_SECONDS, self._require_reading)

    def data_received(self, data: bytes) -> None:
        """Read on; the time limit of a head that is not complete stays."""
        super().data_received(data)
        self._unread = 0  # what is answered now is not what was unread
        self._limit()

    def resume_writing(self) -> None:
        """Take note that the client reads."""
        super().resume_writing()
        self._unread = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limits."""
        super().connection_lost(exc)
        self._forget()
        if self._reading is not None:
            self._reading.cancel()

    def eof_received(self) -> bool:  # type: ignore[override]
        """End with the answer that is awaited, or at once."""
        if not self.transport.is_closing():
            self.shutdown()
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"detail": MALFORMED}).encode()
            headers = {"content-type": "application/json", "connection": "close"}
            headers["content-length"] = str(len(body))
            head = h11.Response(status_code=400, headers=[*headers.items()], reason="Bad Request")
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _require_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        if 0 < self._unread <= left:
            self.transport.abort()
            return
        self._unread = left
        self._reading = self.loop.call_later(READ_SECONDS, self._require_reading)

    def _limit(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def make_server(app: Guard, *, backlog: int = WAITING, **options: Any) -> uvicorn.Server:
    """A server of an application; options are uvicorn's, `backlog` among them.

    Not whatever is installed beside it reads requests: another parser would bound no header.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            h11_max_incomplete_event_size=HEAD_BYTES,
            log_level="error",  # its warnings are of what clients send
            access_log=False,
            server_header=False,
            backlog=backlog,
            timeout_graceful_shutdown=STOP_SECONDS,
            **options,
        )
    )
