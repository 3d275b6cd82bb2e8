"""Creating a session so that none is left behind, and tearing one down.

The request has no idempotency key, so a create whose answer is lost cannot be sent again: nobody would know whether
there are two sessions then. Instead each create carries a label of its own. Where the answer is lost, the session is
looked for by that label in the list of sessions, and is adopted.

::

    POST ──┬── 2xx with an id ──────────────────────────> the session
           ├── refused, or never sent ──────────────────> raise: there is none
           └── lost ──> look for the label ──┬── found ─> the session
                                             └── not ───> raise, and name the label

A session that does not stand in the list at once proves nothing, for the server may still be at work on the request.
So the list is asked again, with growing waits, for `Timeout.recover_create` seconds.

The transport notes when it begins to send (see `Delivery`). A create that was cut before that has made no session, so
nothing is looked for, and a caller who leaves while the connection is being made is let go at once.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import msgspec

from . import _calls
from ._log import logger
from ._observed import ObservedSession
from ._open_work import OpenWork
from ._tasks import BackgroundTask, finish_or_undo
from .errors import (
    APIConnectionError,
    APIStatusError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    EnclaveError,
    NotFoundError,
    ProtocolError,
)
from .transport import Delivery, PerLoop, RetryPolicy, decoded
from .types import CreateSessionRequest, Session
from .types._answers import decode_session
from .types._request import check_labels

if TYPE_CHECKING:
    from .transport import Http, Turn

CREATE_LABEL = "enclave-sdk.create"
"""The label by which a session is found whose create got no answer."""

_NOT_SENT = "the caller left before it was sent"
_LOOK = RetryPolicy(wait_seconds=0.1, max_wait_seconds=2.0)
# A proxy's: whether the server behind it did what was asked, it cannot say.
_UNSURE_STATUSES = frozenset({502, 504})
_REFUSED_STATUSES = frozenset({400, 422})


class Creates:
    """How a client creates sessions: with which labels, and whether it looks for those whose answer was lost.

    Raises:
        ConfigurationError: an argument cannot be used. The message names it.
    """

    def __init__(self, labels: Mapping[str, str] | None, *, recover: bool) -> None:
        try:
            if labels is not None:
                check_labels(labels)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from None
        if not isinstance(recover, bool):
            raise ConfigurationError(f"recover_creates: expected True or False, got {recover!r}")
        self._labels = dict(labels or {})
        self._recover = recover
        self._open_work = PerLoop(OpenWork)

    @property
    def open_work(self) -> OpenWork:
        """What the client has open in the running event loop."""
        return self._open_work.current()

    def label(self, request: CreateSessionRequest) -> tuple[CreateSessionRequest, str | None]:
        """The request with the client's labels and one of its own, and the value of that."""
        value = secrets.token_hex(16) if self._recover else None
        labels = {**self._labels, **(request.labels or {})}
        if value is not None:
            labels[CREATE_LABEL] = value  # also over another create's, which came along with labels of its session
        return (msgspec.structs.replace(request, labels=labels) if labels else request), value

    def without_label(self) -> Creates:
        """The same for a server that does not take our label."""
        return Creates(self._labels, recover=False)

    def stop_labelling(self, error: APIStatusError) -> None:
        """Send no label of our own from now on."""
        if self._recover:
            self._recover = False
            logger.warning("the server refuses the label %s, so lost creates cannot be found: %s", CREATE_LABEL, error)


async def create(
    http: Http,
    creates: Creates,
    request: CreateSessionRequest,
    observed: ObservedSession | None = None,
    turn: Turn | None = None,
) -> Session:
    """Create a session. If the caller is cancelled meanwhile, learn the session's id all the same, and discard it."""
    open_work = creates.open_work
    http.check_open(is_closing=open_work.is_closing)
    with open_work.under_way():
        return await _create(http, creates, request, observed or ObservedSession(), turn or http.brake.turn())


async def _create(
    http: Http, creates: Creates, request: CreateSessionRequest, observed: ObservedSession, turn: Turn
) -> Session:
    for attempt in itertools.count(1):
        creation = _Creation(http, *creates.label(request), turn)
        try:
            return await _carry_out(http, creation, observed)
        except APIStatusError as error:
            if not creation.refused_for_its_label(error):
                raise
            refusal = error
        except EnclaveError:
            if not (creation.proved_vain and http.retry.retry_lost_creates and attempt < http.retry.attempts):
                raise
            continue
        # Refused, so nothing was made, and a second request is safe. If the server minded our label, it works without
        # it. If it minded something else, it says so again.
        session = await _carry_out(http, _Creation(http, *creates.without_label().label(request), turn), observed)
        creates.stop_labelling(refusal)
        return session
    raise AssertionError("unreachable")


async def _carry_out(http: Http, creation: _Creation, observed: ObservedSession) -> Session:
    seconds = http.settings.timeout.teardown

    async def undo(session: Session) -> None:
        observed.seen(session)
        await discard(http, session.id)
        observed.torn_down = True

    session = await finish_or_undo(
        # To send it again might make a second session. To look for it again makes none.
        BackgroundTask(creation.post, creation.name, again=creation.look),
        undo,
        seconds=seconds,
        leave=lambda: creation.hurry(seconds),
    )
    observed.seen(session)
    return session


async def discard(http: Http, session_id: str) -> None:
    """Tear a session down. One that is gone already counts as torn down."""
    try:
        await _calls.teardown(http, session_id)
    except (ConflictError, NotFoundError):
        # Servers answer so for a session that has gone by itself, but not for that alone.
        if not await _is_gone(http, session_id):
            raise


async def _is_gone(http: Http, session_id: str) -> bool:
    try:
        return (await _calls.get(http, session_id)).has_ended
    except NotFoundError:
        return True
    except EnclaveError:
        return False  # the error of the DELETE says more


class _Creation:
    """One POST, and what follows from its answer or the lack of one."""

    def __init__(self, http: Http, request: CreateSessionRequest, label: str | None, turn: Turn) -> None:
        self._http = http
        self._turn = turn
        self._body = request.to_json()
        self._label = label
        self._delivery = Delivery()
        self._post_scope = anyio.CancelScope()
        self._caller_is_gone = False
        self._reason: EnclaveError | None = None  # why the answer is lost
        self._look_until: float | None = None
        self.proved_vain = False
        """Whether the list has shown for the whole time that the POST made no session."""

    @property
    def name(self) -> str:
        """What is under way, for messages."""
        return "creating a session" + (f" labelled {CREATE_LABEL}={self._label}" if self._label is not None else "")

    def hurry(self, seconds: float) -> None:
        """The caller no longer waits, so `seconds` are left. A third of them is kept for looking."""
        self._caller_is_gone = True
        self._turn.give_up()
        # Before a byte is out there is no session to learn of, and nothing to wait for.
        if self._delivery.may_have_begun:
            self._post_scope.deadline = anyio.current_time() + seconds * 2 / 3
        else:
            self._post_scope.cancel()

    async def post(self) -> Session:
        """Send the request, and give the session that it made."""
        try:
            # Without a deadline until the caller is gone: then some of the time is kept for looking.
            with self._post_scope:
                return decoded(
                    decode_session,
                    await self._http.request(
                        "POST", "/sessions", content=self._body, turn=self._turn, delivery=self._delivery
                    ),
                    "POST /sessions",
                    self._http.settings.credential,
                )
        except EnclaveError as error:
            if not _is_lost(error):
                raise
            reason = error
        else:
            when = "no answer came before its caller's time was over" if self._delivery.may_have_begun else _NOT_SENT
            reason = APIConnectionError(f"POST /sessions: {when}")
        return await self._find(reason)

    async def look(self) -> Session:
        """What to do in the place of `post`, or of `look`, where somebody has cut it short."""
        when = "before its answer was there" if self._delivery.may_have_begun else "before it was sent"
        return await self._find(APIConnectionError(f"POST /sessions: somebody else cancelled the request {when}"))

    def refused_for_its_label(self, error: APIStatusError) -> bool:
        """Whether the server says that it does not take our label, or may mean that."""
        said = f"{error.message} {error.code} {error.body}"
        return self._label is not None and error.status in _REFUSED_STATUSES and "label" in said.lower()

    async def _find(self, reason: EnclaveError) -> Session:
        """The session with our label.

        Raises:
            EnclaveError: `reason`, where there is none, or none can be looked for.
        """
        # If this is cut short, it is begun again. It then goes by the first reason, and has what is left of the time.
        reason = self._reason = self._reason or reason
        if self._label is None or not self._delivery.may_have_begun:
            raise reason
        seconds = self._http.settings.timeout.recover_create
        self._look_until = self._look_until or anyio.current_time() + seconds
        with anyio.CancelScope(deadline=self._look_until):
            for attempt in itertools.count(1):
                session = await self._listed(self._label)
                if session is not None:
                    logger.info("%s - found its session %s by the label", reason, session.id)
                    return session
                await anyio.sleep(_LOOK.wait_before(attempt))
        reason.create_label = self._label
        if self._caller_is_gone:
            logger.warning("%s was cancelled, and it may still come to be: %s", self.name, reason)
        raise reason

    async def _listed(self, label: str) -> Session | None:
        self.proved_vain = False
        try:
            found = await _calls.labelled(self._http, {CREATE_LABEL: label})
        except EnclaveError as error:
            logger.debug("looking for the session labelled %s=%s: %s", CREATE_LABEL, label, error)
            return None
        self.proved_vain = not found
        return found[0] if found else None


def _is_lost(error: EnclaveError) -> bool:
    """Whether the request may have made a session all the same."""
    if isinstance(error, APIStatusError):
        return error.status in _UNSURE_STATUSES
    if isinstance(error, ConnectError):
        return False
    return isinstance(error, APIConnectionError | ProtocolError)
