"""Credentials: revealed where they enter a header, and nothing but ``***`` everywhere else. Without I/O."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NoReturn, cast

import httpx

from enclave.errors import ConfigurationError

TokenSource = str | Callable[[], Awaitable[str]]
"""A token, or an async callable that returns one: a JWT expires, and may have to be fetched anew."""


class Secret:
    """Holds a value that no repr, log record or traceback with local variables may show."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def reveal(self) -> object:
        """The value itself. Use it in an expression; a variable would show in tracebacks."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


class Credential(httpx.Auth):
    """Puts ``Authorization: Bearer`` on each request. Wire: contract "Base and authentication".

    Raises:
        ConfigurationError: the secret is nothing that a header can carry.
    """

    def __init__(self, name: str, secret: Secret) -> None:
        self._name = name
        self._secret = secret
        if not callable(secret.reveal()):
            _check(name, secret)

    def __repr__(self) -> str:
        return f"<Credential {self._name}=***>"

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Set the header. Called by httpx for each request it sends."""
        request.headers["Authorization"] = f"Bearer {(await self._current()).reveal()}"
        yield request

    async def _current(self) -> Secret:
        if not callable(self._secret.reveal()):
            return self._secret
        fetch = cast(Callable[[], Awaitable[str]], self._secret.reveal())
        secret = Secret(await fetch())
        _check(self._name, secret)
        return secret


def _check(name: str, secret: Secret) -> None:
    if not isinstance(secret.reveal(), str):
        raise ConfigurationError(f"{name}: expected a string, got {type(secret.reveal()).__name__}")
    if not secret.reveal():
        raise ConfigurationError(f"{name}: is empty; leave it out to send no credential")
    bad = _first_unsendable(secret)
    if bad is not None:
        # Not which character: it is a part of the secret.
        raise ConfigurationError(
            f"{name}: character {bad} is a space, a control character or not ASCII, which a header cannot carry; "
            "was a line end read along with it? strip() it"
        )


def _first_unsendable(secret: Secret) -> int | None:
    return next((index for index, char in enumerate(str(secret.reveal())) if not "!" <= char <= "~"), None)
