"""What a client is configured with: checked here once, so that nothing further in needs to doubt it. Without I/O."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from inspect import currentframe
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlsplit

from msgspec import UNSET, UnsetType

from enclave.errors import ConfigurationError

from ._credential import Credential, Secret
from ._proxies import is_loopback

if TYPE_CHECKING:
    import ssl

_PACKAGE = __name__.partition(".")[0]

DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Default bound of one event of a stream, in bytes of its field lines."""

DEFAULT_MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Default bound of the body of one response that is not a stream, in bytes after decompression."""


class InsecureTransportWarning(UserWarning):
    """A credential will travel unencrypted, to a host that is not this machine."""


@dataclass(frozen=True, slots=True, init=False)
class Timeout:
    """How long the client waits, in seconds. None waits for ever. A deadline of the caller's own scope always wins.

    ``Timeout(5)`` sets connect, read, write and acquire, and ``Timeout(5, connect=60)`` all of these but one, as
    `httpx.Timeout` does.
    """

    connect: float | None
    """For a connection: to look the name up, to try its addresses, and TLS. 10 by default."""
    read: float | None
    """For the next bytes of a response to a request that is not a stream. 60 by default."""
    write: float | None
    """For the server to take the next bytes of a request. 60 by default."""
    acquire: float | None
    """For one of the connections that requests share to come free, or for a stream's turn to connect where hundreds are
    opened at once. 60 by default."""
    total: float | None
    """For one try of a request that is not a stream, to the last byte of its response. 300 by default. A server that
    sends a byte now and then never exceeds `read`, but it exceeds this."""
    stream_idle: float | None
    """For the next bytes of a stream, heartbeats included. After that it is taken for dropped and is resumed. Keep it
    longer than the server's heartbeat interval. 300 by default."""
    stream_end: float | None
    """For the next frame of a stream whose workload has ended. After so long a silence the stream is complete, although
    the server sent no `end` frame. 5 by default."""
    teardown: float
    """For work that goes on although its caller is cancelled: learning the id of a session that is being created, and
    tearing it down. Each of the two has this long. 30 by default."""
    recover_create: float
    """For a session to show up in the list of sessions whose create got no answer (see `EnclaveClient`). 10 by default.
    Make it longer than the server may take to create a session after a connection has broken."""

    def __init__(
        self,
        seconds: float | UnsetType | None = UNSET,
        *,
        connect: float | UnsetType | None = UNSET,
        read: float | UnsetType | None = UNSET,
        write: float | UnsetType | None = UNSET,
        acquire: float | UnsetType | None = UNSET,
        total: float | None = 300.0,
        stream_idle: float | None = 300.0,
        stream_end: float | None = 5.0,
        teardown: float = 30.0,
        recover_create: float = 10.0,
    ) -> None:
        """Each argument sets the attribute of its name. `seconds` is for those of the first four that are not given.

        Raises:
            ConfigurationError: one of them is not a positive number, or `teardown` or `recover_create` is None. The
                message names it.
        """
        values: dict[str, object] = {"connect": connect, "read": read, "write": write, "acquire": acquire}
        for name, value in values.items():
            fallback = (10.0 if name == "connect" else 60.0) if seconds is UNSET else seconds
            values[name] = fallback if value is UNSET else value
        values |= {"total": total, "stream_idle": stream_idle, "stream_end": stream_end}
        values |= {"teardown": teardown, "recover_create": recover_create}
        # All are kept before the first is checked: a traceback that shows local variables shows this object's repr.
        for name, value in values.items():
            object.__setattr__(self, name, value)  # frozen for everybody else
        for name, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_unlimited = value is None and name not in ("teardown", "recover_create")
            if not is_unlimited and not (is_number and cast("float", value) > 0):
                raise ConfigurationError(f"timeout.{name}: expected a positive number of seconds, got {value!r}")

    @classmethod
    def of(cls, timeout: float | Timeout | None) -> Timeout:
        """A `Timeout` from what callers may pass: one number for connect, read, write and acquire, or None for none."""
        return timeout if isinstance(timeout, Timeout) else cls(timeout)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the control plane is and how to speak to it."""

    base_url: str
    """Without a slash at its end."""
    credential: Credential | None
    timeout: Timeout
    max_event_bytes: int
    max_response_bytes: int
    max_buffered_bytes: int
    ssl_context: ssl.SSLContext | None = None
    """For TLS to the control plane. None stands for the authorities of certifi, or of ``SSL_CERT_FILE``."""

    @property
    def base_path(self) -> str:
        """The path of the base URL, percent-encoded: how the path of every request begins. It is mostly empty."""
        return quote(urlsplit(self.base_url).path, safe="/%:@!$&'()*+,;=~")

    @classmethod
    def resolve(
        cls,
        base_url: Secret,
        *,
        api_key: Secret,
        token: Secret,
        timeout: float | Timeout | None,
        max_event_bytes: int,
        max_response_bytes: int,
        max_buffered_bytes: int,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Settings:
        """Fill in from the environment what was not given, and check everything.

        Raises:
            ConfigurationError: there is no base URL, or something cannot be used. The message names it.
        """
        url = _checked_url(base_url)
        settings = cls(
            url,
            _credential(api_key, token),
            Timeout.of(timeout),
            _checked_bound("max_event_bytes", max_event_bytes),
            _checked_bound("max_response_bytes", max_response_bytes),
            _checked_bound("max_buffered_bytes", max_buffered_bytes),
            ssl_context,
        )
        if settings.credential and not _is_protected(url):
            warnings.warn(
                f"the credential will travel unencrypted to {url}. Use https",
                InsecureTransportWarning,
                stacklevel=_level_of_the_caller(),
            )
        return settings


def _level_of_the_caller() -> int:
    """The `stacklevel` of whoever makes the client. With a blocking client more of us stand between."""
    frame, level = currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    return level


def _credential(api_key: Secret, token: Secret) -> Credential | None:
    # Explicit arguments win over the environment. Between equals, the API key wins.
    for name, secret in (("api_key", api_key), ("token", token)):
        if secret.reveal() is not None:
            return Credential(name, secret)
    for name in ("ENCLAVE_API_KEY", "ENCLAVE_TOKEN"):
        if os.environ.get(name):
            return Credential(name, Secret(os.environ[name]))
    return None


def _checked_bound(name: str, size: int) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise ConfigurationError(f"{name}: expected a positive number of bytes, got {size!r}")
    return size


def _checked_url(given: Secret) -> str:
    name = "base_url"
    if given.reveal() is None:
        name, given = "ENCLAVE_BASE_URL", Secret(os.environ.get("ENCLAVE_BASE_URL") or None)
    if given.reveal() is None:
        raise ConfigurationError(
            "no base URL: pass EnclaveClient(base_url=...) or set ENCLAVE_BASE_URL, as in http://127.0.0.1:8088"
        )
    if not isinstance(given.reveal(), str):
        raise ConfigurationError(f"{name}: expected a string, got {type(given.reveal()).__name__}")
    problem = _problem_of(str(given.reveal()))
    if problem and "@" in str(given.reveal()):
        # Whatever else is wrong, as with a password that holds a slash: what was meant for a password must not show.
        problem = "must not hold a user name or password: pass api_key= or token="
    if problem:
        raise ConfigurationError(f"{name}: {problem}")
    return str(given.reveal()).rstrip("/")


def _problem_of(url: str) -> str | None:
    """What is wrong with a base URL. Tells instead of raising: a traceback through here would show the URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"expected http://host or https://host, got {url!r}"
    if "?" in url or "#" in url:  # an empty one counts: what is appended to the URL would become its content
        return f"must not hold a query or a fragment, got {url!r}"
    if any(char.isspace() or not char.isprintable() for char in url):
        return f"holds a space or a control character: {url!r}"
    return None if parts.hostname.isascii() else _problem_of_name(url)


def _problem_of_name(url: str) -> str | None:
    """What is wrong with a host whose name is not ASCII. Else a transport would say so, with the first request."""
    from .http11._origin import Origin  # noqa: PLC0415 - brings in the transport, and such a name httpx as well

    try:
        Origin.of(url)
    except ValueError as error:
        return str(error)
    return None


def _is_protected(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
