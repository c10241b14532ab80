"""Ask a service for songs, with the standard library alone.

    with Client("http://127.0.0.1:8765") as client:
        answer = client.recommend([{"song": "Nina Simone - Sinnerman", "level": "full"}], k=3)
        print([song["title"] for song in answer["songs"]])

The file stands alone, so that it can be copied to where no MusicBox is installed.
"""

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

Heard = str | Sequence[dict[str, Any]]
"""Songs heard, oldest first: ``{"song": ..., "level": ...}`` or ``skipped``, ``share`` or
``milliseconds`` in place of the level; or one text of ``SONG:LEVEL`` separated by commas."""


class ServiceError(RuntimeError):
    """The service refused a request; the message is its own.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Client:
    """Keeps one connection open; for one thread."""

    def __init__(
        self,
        address: str = "http://127.0.0.1:8765",
        *,
        token: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        """Name the service; nothing is sent yet.

        Args:
            address: Where it serves; HTTP if it names no scheme.
            token: Its token, if it asks for one; blanks around it, as of a file's last line, are
                left out.
            timeout: Seconds to wait for an answer.
            retries: How often a request is sent again when the connection breaks, which no answer
                depends on: the service keeps nothing. A late answer is not asked for again.
        """
        parts = urlsplit(address if "://" in address else f"http://{address}")
        secure = parts.scheme == "https"
        kind = HTTPSConnection if secure else HTTPConnection
        port = parts.port or (443 if secure else 80)
        self._connection = kind(parts.hostname or "", port, timeout=timeout)
        self._prefix, self._retries = parts.path.rstrip("/"), retries
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.strip()}"

    def recommend(self, heard: Heard = (), *, k: int = 3, **options: Any) -> dict[str, Any]:
        """The ``k`` songs to play next; options are ``agent``, ``context`` and ``exclude``."""
        return self.ask("POST", "/v1/recommend", {"heard": _plain(heard), "k": k, **options})

    def playlist(self, heard: Heard = (), *, n: int = 20, **options: Any) -> dict[str, Any]:
        """``n`` songs to play one after another; options as of `recommend`."""
        return self.ask("POST", "/v1/playlist", {"heard": _plain(heard), "n": n, **options})

    def tracks(self, query: str, *, limit: int = 10) -> list[dict[str, Any]]:
        """Songs like a query."""
        query = urlencode({"query": query, "limit": limit})
        found: list[dict[str, Any]] = self.ask("GET", f"/v1/tracks?{query}")["tracks"]
        return found

    def about(self) -> dict[str, Any]:
        """What is served."""
        return self.ask("GET", "/v1/about")

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request and read its answer.

        Raises:
            ServiceError: The service refused it, or something between did.
            TimeoutError: The answer did not come in time.
            OSError: The service cannot be reached.
        """
        data = None if body is None else json.dumps(body)
        for left in reversed(range(self._retries + 1)):
            try:
                self._connection.request(method, self._prefix + path, data, self._headers)
                response = self._connection.getresponse()
                text = response.read()
                break
            except (OSError, HTTPException) as error:
                self._connection.close()
                if not left or isinstance(error, TimeoutError):
                    raise
        try:
            answer: dict[str, Any] = json.loads(text)
            detail = str(answer.get("detail"))
        except (ValueError, AttributeError):  # a proxy's page
            detail = f"This is no answer of the service: {text[:200]!r}"
            raise ServiceError(response.status, detail) from None
        if response.status != 200:
            raise ServiceError(response.status, detail)
        return answer

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _plain(heard: Heard) -> Any:
    return heard if isinstance(heard, str) else list(heard)
