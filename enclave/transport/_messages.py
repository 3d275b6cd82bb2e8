"""The seam between `Http` and whatever carries its requests: a request, a response, and a transport. Without I/O.

There are two transports: `http11.OriginTransport`, our own, and `_httpx_transport.HttpxTransport`, an adapter for any
`httpx.AsyncBaseTransport`. Both take a `Request`, give a `Response`, and raise the SDK's own errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from ._credential import Secret
from ._time_limit import TimeLimit

Headers = list[tuple[bytes, bytes]]

_WITHOUT_BODY = frozenset({"HEAD", "CONNECT"})


class Timeouts(NamedTuple):
    """Seconds to wait at most, None for no limit. The transport keeps all of them."""

    connect: float | None
    """For a connection, TLS included."""
    read: float | None
    """For the next bytes of the response. Of a stream, for those of its head."""
    write: float | None
    """For the server to take the next bytes of the request."""
    acquire: float | None
    """For one of the connections that requests share to come free, or for a stream's turn to connect."""
    total: float | None = None
    """For the whole response. Of a stream, for its head."""


class Delivery:
    """Whether the server may have seen anything of a request. Whoever asks for the request makes it, and looks at it.

    A request is tried several times, and this is about the latest try.
    """

    __slots__ = ("may_have_begun",)

    def __init__(self) -> None:
        self.may_have_begun = False
        """False as long as no byte can have been sent: while the request waits for a connection, and where none was
        made. A transport that cannot tell says True."""


class Request:
    """What to send. Its repr shows no header, and the credential is kept apart from the headers as a `Secret`."""

    __slots__ = ("content", "credential", "delivery", "headers", "is_stream", "method", "target", "timeouts")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        *,
        timeouts: Timeouts,
        credential: Secret | None = None,
        content: bytes | None = None,
        is_stream: bool = False,
        delivery: Delivery | None = None,
    ) -> None:
        """Keep what was given.

        Raises:
            ValueError: the response to such a method has no body where its head says that there is one.
        """
        # The parser sees the response alone, and would wait for the body that its head announces.
        if method in _WITHOUT_BODY:
            raise ValueError(f"{method} requests are not supported")
        self.method = method
        self.target = target
        """Path and query as they stand in the request line, percent-encoded."""
        self.headers = headers
        """All headers but ``Host``, ``Authorization`` and ``Content-Length``, which the transport adds."""
        self.timeouts = timeouts
        self.credential = credential
        """Sent as ``Authorization: Bearer``."""
        self.content = content
        self.is_stream = is_stream
        """Whether the response lasts, so that it must not take one of the connections that requests share."""
        self.delivery = delivery or Delivery()
        """Where the transport notes that it begins to send."""

    def time_limit(self) -> TimeLimit:
        """For the whole response, from now on. For a stream it ends with the head."""
        return TimeLimit(self.timeouts.total, "no response came" if self.is_stream else "no whole response came")

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"


class Body(Protocol):
    """The body of a response, read piece by piece. One task reads and closes it."""

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body has been reached, as far as can be told without reading."""
        ...

    @property
    def read_is_repeatable(self) -> bool:
        """Whether a cancelled `read` loses nothing and can be done again."""
        ...

    async def read(self) -> bytes:
        """The next bytes, empty at the end. Raises `APIConnectionError`."""
        ...

    async def deliver(self, take: Callable[[bytes], bool]) -> bool:
        """Call `take` with what comes, until it gives True, which means that it wants no more for now, or earlier.

        Args:
            take: waits for nothing and raises nothing, since the event loop may call it, or another task.
                So a stream of many small reads need not wake a task for each.

        Returns:
            False once the body has ended. Else there may be more, and another call gets it.

        Raises:
            As `read`. What came before is with `take`.
        """
        ...

    async def aclose(self) -> None:
        """Close, cancelled or not, within a deadline."""
        ...


class PulledBody:
    """Makes `Body.deliver` of `Body.read`, for bodies that a task pulls piece by piece."""

    __slots__ = ()

    async def read(self) -> bytes:
        """See `Body.read`."""
        raise NotImplementedError

    async def deliver(self, take: Callable[[bytes], bool]) -> bool:
        """See `Body.deliver`."""
        while data := await self.read():
            if take(data):
                return True
            del data  # 64 KiB may have come before the server fell silent
        return False


class Response:
    """The head of a response, with its body still to be read. Whoever asked for it closes the body."""

    __slots__ = ("_headers", "body", "reason", "status")

    def __init__(self, status: int, reason: bytes, headers: Headers, body: Body) -> None:
        self.status = status
        self.reason = reason
        self._headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Response {self.status}>"

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004

    def header(self, name: bytes) -> str | None:
        """The value of a header, None where there is none. Several of one name are joined, as HTTP allows.

        Args:
            name: in lower case.
        """
        # A loop over few headers costs less than a dictionary that is asked once or twice.
        values = [value for sent, value in self._headers if sent.lower() == name]
        return b", ".join(values).decode("latin-1") if values else None


class Transport(Protocol):
    """Carries requests to the control plane. Raises `EnclaveError`, and what an httpx transport of the caller's does.

    A method that raises is never a reason to send a request a second time unless `RetryPolicy` says so.
    """

    async def send(self, request: Request) -> Response:
        """Send a request and give the head of its response, with the body unread."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
