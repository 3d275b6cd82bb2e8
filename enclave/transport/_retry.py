"""When to try again, and how long to wait before. Without I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeGuard

from enclave.errors import (
    APIConnectionError,
    APIStatusError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    EnclaveError,
    ServerError,
)

_RETRIED_STATUSES = frozenset({429, 502, 503, 504})
# 502 and 504 come from a proxy that may have passed the request on: a POST may have made a session nobody knows.
_REFUSALS = frozenset({429, 503})


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast failed requests are tried again.

    GET and DELETE are tried again after connection failures, timeouts and statuses 429, 502, 503 and 504. Creating a
    session is tried again only where none can have been made: no connection was established, or 429 or 503, unless
    `retry_lost_creates` says otherwise. A server whose certificate is not trusted is not tried again.

    A stream that broke is resumed, after any 5xx too, as long as it makes progress. `attempts` bounds the consecutive
    attempts that bring nothing new. A connection that brings only frames that are known already counts as half an
    attempt. One that was silent for half a second or longer before it was closed counts as none.

    A create that is answered 429 or 503 holds all creates of its client until the wait is over, and a ``Retry-After``
    is made longer by a random part of up to ``jitter / 5`` of it. In a fan-out `attempts` and `total_seconds` begin
    anew whenever a create has got through.

    The wait before retry *n* (from 1) is ``min(max_wait_seconds, wait_seconds * 2 ** (n - 1))``, less a random part of
    up to `jitter` of it. A ``Retry-After`` of the server's replaces it, up to `max_retry_after_seconds`.
    """

    attempts: int = 5
    """Tries in all, the first included."""
    total_seconds: float | None = 60.0
    """No retry begins later than this after the first try, and None sets no bound. It does not bind streams."""
    wait_seconds: float = 0.5
    """The wait before the first retry."""
    max_wait_seconds: float = 15.0
    """The longest wait between two tries."""
    jitter: float = 0.5
    """Which part of each wait is random, from 0 to 1, so that clients that failed together do not return together."""
    max_retry_after_seconds: float = 60.0
    """The longest ``Retry-After``, or ``retry`` of a stream, that is honoured. A longer one is cut to this."""
    retry_lost_creates: bool = False
    """Whether a create whose answer was lost is sent again, once the list of sessions has shown for
    `Timeout.recover_create` seconds that it made none. A server that takes longer would then make two sessions."""

    def __post_init__(self) -> None:
        if not _is_number(self.attempts) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigurationError(f"retry.attempts: expected a whole number from 1, got {self.attempts!r}")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"retry.jitter: expected a number from 0 to 1, got {self.jitter!r}")
        if not isinstance(self.retry_lost_creates, bool):
            raise ConfigurationError(
                f"retry.retry_lost_creates: expected True or False, got {self.retry_lost_creates!r}"
            )
        for name in ("total_seconds", "wait_seconds", "max_wait_seconds", "max_retry_after_seconds"):
            value = getattr(self, name)
            if value is None and name == "total_seconds":
                continue
            if not (_is_number(value) and value >= 0):
                raise ConfigurationError(f"retry.{name}: expected a number of seconds from 0, got {value!r}")

    def wait_before(self, retry: int, error: EnclaveError | None = None, *, base_seconds: float | None = None) -> float:
        """Seconds to wait before retry number `retry`, counted from 1, after `error`.

        `base_seconds` takes the place of `wait_seconds`, where a server asked for its own reconnection time. The wait
        is never shorter than that, up to `max_retry_after_seconds`. Zero asks for one retry at once, not for all.
        """
        if isinstance(error, APIStatusError) and error.retry_after_seconds is not None:
            return min(error.retry_after_seconds, self.max_retry_after_seconds)
        shortest = 0.0 if base_seconds is None else min(base_seconds, self.max_retry_after_seconds)
        if base_seconds == 0 and retry == 1:
            return 0.0  # "reconnect at once" is honoured once: a server that keeps dropping would be hammered
        base = shortest or self.wait_seconds
        longest = max(self.max_wait_seconds, base)
        # The exponent is bounded: a float overflows from 1024 on, and a policy may allow thousands of attempts.
        wait: float = min(longest, base * 2.0 ** min(retry - 1, 60))
        wait *= 1 - self.jitter * random.random()  # noqa: S311 - spreads load, keeps no secret
        return max(shortest, wait)


NO_RETRY = RetryPolicy(attempts=1)
"""What ``retry=None`` stands for."""


def may_retry(error: EnclaveError, *, creates: bool) -> bool:
    """Whether the request that failed with `error` can be sent again without doing anything twice."""
    if isinstance(error, APIStatusError):
        return error.status in (_REFUSALS if creates else _RETRIED_STATUSES)
    if isinstance(error, CertificateError):
        return False
    return isinstance(error, ConnectError if creates else APIConnectionError)


def is_refusal(error: BaseException) -> TypeGuard[APIStatusError]:
    """Whether the server says that it does not do what was asked now, and may do it later."""
    return isinstance(error, APIStatusError) and error.status in _REFUSALS


def may_resume(error: EnclaveError) -> bool:
    """Whether a stream that once stood is worth opening again after `error`. Reading changes nothing on the server."""
    return isinstance(error, ServerError) or may_retry(error, creates=False)
