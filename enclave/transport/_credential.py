"""Credentials: revealed where they enter a header, and nothing but ``***`` everywhere else. Without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import NoReturn, cast

from enclave.errors import ConfigurationError

TokenSource = str | Callable[[], Awaitable[str]]
"""A token, or an async callable that returns one: a JWT expires, and may have to be fetched anew."""


_REMEMBERED = 4  # tokens of a callable: requests that are under way at once may have been sent with different ones


class Secret:
    """Holds a value that no repr, log record or traceback with local variables may show."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def reveal(self) -> object:
        """The value itself. Use it inside an expression: a variable would show in tracebacks."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


class Credential:
    """What authorises a request: an API key, a token, or what gives a token.

    Raises:
        ConfigurationError: the secret is nothing that a header can carry.
    """

    def __init__(self, name: str, secret: Secret) -> None:
        self._name = name
        self._secret = secret
        self._sent: deque[Secret] = deque(maxlen=_REMEMBERED)
        if not callable(secret.reveal()):
            _check(name, secret)
            self._sent.append(secret)

    def __repr__(self) -> str:
        return f"<Credential {self._name}=***>"

    @property
    def sent(self) -> tuple[Secret, ...]:
        """The secret, or the latest ones that a callable gave: what a server may echo."""
        return tuple(self._sent)

    async def current(self) -> Secret:
        """The secret to send now. If the client has a token callable, it is asked.

        Raises:
            ConfigurationError: the callable gave nothing that a header can carry. And what the callable raises.
        """
        if not callable(self._secret.reveal()):
            return self._secret
        given = Secret(cast(Callable[[], object], self._secret.reveal())())
        if not isawaitable(given.reveal()):
            raise ConfigurationError(f"{self._name}: a callable must be async: async def {self._name}() -> str")
        secret = Secret(await cast(Awaitable[str], given.reveal()))
        _check(self._name, secret)
        self._sent.append(secret)
        return secret


def _check(name: str, secret: Secret) -> None:
    if not isinstance(secret.reveal(), str):
        raise ConfigurationError(f"{name}: expected a string, got {type(secret.reveal()).__name__}")
    if not secret.reveal():
        raise ConfigurationError(f"{name}: is empty. Leave it out to send no credential")
    bad = _first_unsendable(secret)
    if bad is not None:
        # Not which character: it is a part of the secret.
        raise ConfigurationError(
            f"{name}: character {bad} is a space, a control character or not ASCII, which a header cannot carry. "
            "Was a line end read along with it? strip() it"
        )


def _first_unsendable(secret: Secret) -> int | None:
    return next((index for index, char in enumerate(str(secret.reveal())) if not "!" <= char <= "~"), None)
