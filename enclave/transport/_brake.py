"""The brake on creates: what a client does when the server refuses to make more sessions. Without I/O.

A refusal is an answer of 429 or 503 to a create. It holds all creates of the client, as long as the server's
``Retry-After`` says. Then creates come back step by step: first one, and with each that gets through one more at once.

::

    OPEN ──── a refusal ────> HELD ──── its time is over ────> EASING
                               ^                                 │
                               └─────────── a refusal ───────────┘

The sessions of a fan-out end by themselves. So there a refusal also tells for how many sessions the server has room:
for those that the fan-outs hold at that moment. A create of a fan-out then waits until one of them has ended. Now and
then one create is a trial, sent although all the known room is taken. A trial that is refused costs a hold, so the next
one comes only after `_TRIAL_HOLDS` times that hold, and twice as late with each further refusal.

Creates wait in lanes: one for each fan-out, and one for all others. Only the first in a lane looks at the time and at
the brake, so what a create costs does not grow with the number of those that wait.
"""

from __future__ import annotations

import enum
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import anyio

from enclave._loop import Wakeup
from enclave.errors import APIStatusError, ConnectError, EnclaveError

from ._retry import RetryPolicy, is_refusal

T = TypeVar("T")

_TRIAL_HOLDS = 10.0
_LONGEST_TRIAL_WAIT_SECONDS = 300.0
# Which part of a Retry-After is added to it at most, for a policy whose jitter is 1. Never less than was asked for.
_ADDED_JITTER = 0.2
# A timer that fires this late does not slow the pace down.
_TIMER_SLACK_SECONDS = 0.02


class Brake:
    """What all creates of a client in one event loop share."""

    def __init__(self) -> None:
        self._others = Lane(self, ends=False)
        self._lanes: set[Lane] = set()  # those in which somebody waits
        self._at_once: float = math.inf  # how many creates may be under way. Any number as long as the brake is open
        self._under_way = 0
        self._hold_began = self._held_until = -math.inf
        self._hold_seconds = 0.0
        self._holds = 0  # since a create got through
        self._last_success = -math.inf
        self._room: int | None = None  # for how many sessions of fan-outs, as far as is known
        self._taken = 0  # of that room: their sessions, and their creates under way
        self._sessions = 0  # of fan-outs
        self._trial: Turn | None = None
        self._next_trial = -math.inf
        self._trial_wait = 0.0

    def lane(self, *, creates_per_second: float | None = None) -> Lane:
        """A lane for the creates of one fan-out, whose sessions end by themselves."""
        return Lane(self, ends=True, gap_seconds=0.0 if creates_per_second is None else 1 / creates_per_second)

    def turn(self) -> Turn:
        """The turn of a create that belongs to no fan-out."""
        return Turn(self._others)

    @property
    def hold_seconds_left(self) -> float:
        """How long creates are held from now on."""
        return max(0.0, self._held_until - anyio.current_time())

    def opens_at(self, turn: Turn) -> float:
        """When this create may go: a time that has come already, one to wait for, or never unless others end."""
        if self._under_way >= self._at_once:
            return math.inf
        return max(self._held_until, turn.lane.next_time, self._room_at(turn))

    def _room_at(self, turn: Turn) -> float:
        if not self._is_full(turn):
            return -math.inf
        # While one trial is under way there is no time to wait for: its answer wakes all who wait.
        return self._next_trial if self._trial is None else math.inf

    def _is_full(self, turn: Turn) -> bool:
        return turn.lane.ends and self._room is not None and self._taken >= self._room

    def sent(self, turn: Turn) -> None:
        """A create goes out."""
        if self._is_full(turn):
            self._trial = turn
        self._under_way += 1
        self._taken += turn.lane.ends

    def answered(self, turn: Turn, error: BaseException | None, policy: RetryPolicy) -> None:
        """A create is over. It made a session, was refused, or failed in another way."""
        self._under_way -= 1
        was_trial = self._trial is turn
        if was_trial:
            self._trial = None
        if error is None:
            self._succeeded(turn, was_trial=was_trial)
        else:
            self._taken -= turn.lane.ends
            if is_refusal(error):
                self._refused(turn, error, policy)
        self.wake()

    def ended(self) -> None:
        """A session of a fan-out is gone."""
        self._sessions -= 1
        self._taken -= 1
        self.wake()

    def _succeeded(self, turn: Turn, *, was_trial: bool) -> None:
        self._last_success = anyio.current_time()
        self._holds = 0
        # Each create that gets through is replaced by two. So a server that has room again is soon asked at full speed.
        self._at_once += 1
        if not turn.lane.ends:
            return
        self._sessions += 1
        # Those that were sent before a refusal and are answered after it took their room before it.
        if self._room is not None or turn.sent_at <= self._hold_began:
            self._room = max(self._room or 0, self._sessions)
        if was_trial:
            self._next_trial, self._trial_wait = -math.inf, 0.0

    def _refused(self, turn: Turn, error: APIStatusError, policy: RetryPolicy) -> None:
        now = anyio.current_time()
        is_first = turn.sent_at > self._hold_began  # the others of its burst say nothing new
        if is_first:
            self._holds += 1
            self._hold_began, self._hold_seconds = now, 0.0
        seconds = policy.wait_before(self._holds, error)
        if error.retry_after_seconds is not None:
            seconds *= 1 + _ADDED_JITTER * policy.jitter * random.random()  # noqa: S311 - spreads load, keeps no secret
        self._held_until = max(self._held_until, now + seconds)
        self._hold_seconds = max(self._hold_seconds, seconds)
        self._at_once = 1
        if turn.lane.ends:
            # Without a session of ours the server is not full because of us, and its room is not known.
            self._room = self._sessions or None
            if is_first:
                self._trial_wait *= 2
            self._trial_wait = max(self._trial_wait, _TRIAL_HOLDS * self._hold_seconds)
            self._next_trial = self._held_until + min(self._trial_wait, _LONGEST_TRIAL_WAIT_SECONDS)

    def has_progressed(self, since: float) -> bool:
        """Whether creating has gone on since then, or will by itself, as sessions of fan-outs end."""
        return self._sessions > 0 or self._last_success >= since

    def arrived(self, lane: Lane) -> None:
        """Somebody waits in this lane."""
        self._lanes.add(lane)

    def left(self, lane: Lane) -> None:
        """Somebody has left this lane."""
        if lane.first is None:
            self._lanes.discard(lane)
        else:
            lane.first.wakeup.wake()

    def wake(self) -> None:
        """Let the first in each lane look again."""
        for lane in self._lanes:
            if lane.first is not None:
                lane.first.wakeup.wake()


class Lane:
    """Creates that go in the order in which they came, `gap_seconds` apart."""

    def __init__(self, brake: Brake, *, ends: bool, gap_seconds: float = 0.0) -> None:
        self.brake = brake
        self.ends = ends
        """Whether the sessions end by themselves, so that a create may wait for that."""
        self.next_time = -math.inf
        """Before which no create may go."""
        self._gap_seconds = gap_seconds
        self._waiting: deque[Turn] = deque()

    @property
    def first(self) -> Turn | None:
        """Who has waited the longest."""
        return self._waiting[0] if self._waiting else None

    def turn(self) -> Turn:
        """The turn of one more create. Leave its block when its session has ended."""
        return Turn(self)

    def opens_at(self, turn: Turn) -> float:
        """When this turn comes. Never, as long as others wait before it."""
        return self.brake.opens_at(turn) if self.first is turn else math.inf

    def join(self, turn: Turn) -> None:
        """Wait behind all others."""
        self._waiting.append(turn)
        self.brake.arrived(self)

    def leave(self, turn: Turn) -> None:
        """Wait no longer."""
        self._waiting.remove(turn)
        self.brake.left(self)

    def sent(self) -> None:
        """A create goes out, and the next one has to keep its distance."""
        now = anyio.current_time()
        is_late = now - self.next_time > _TIMER_SLACK_SECONDS
        self.next_time = (now if is_late else self.next_time) + self._gap_seconds


class TurnState(enum.Enum):
    """Where a create stands with the brake.

    ::

        IDLE ──> WAITING ──> SENT ──┬── made a session of a fan-out ──> HOLDING ──> IDLE
          ^                         │                                       its block is left
          └─────────────────────────┘
             refused, failed, or a session of others
    """

    IDLE = enum.auto()
    WAITING = enum.auto()
    SENT = enum.auto()
    HOLDING = enum.auto()


class Turn:
    """One create's way past the brake, and then its session's place among those of a fan-out."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.wakeup = Wakeup()
        self.state = TurnState.IDLE
        self.sent_at = -math.inf
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The session is gone, if there was one, and its place is free."""
        if self.state is TurnState.HOLDING:
            self.state = TurnState.IDLE
            self.lane.brake.ended()

    async def take(
        self,
        call: Callable[[], Awaitable[T | EnclaveError]],
        policy: RetryPolicy,
        started: float,
        failure: EnclaveError | None,
    ) -> T | EnclaveError:
        """Wait for the turn, then make the call. Give what it gives.

        The policy's time since `started` bounds the wait. When it is over, a first try is made all the same. Another
        try is not: then this gives the `failure` of the one before.

        Raises:
            ConnectError: it was given up meanwhile. And what the call raises.
        """
        self.__exit__(None, None, None)  # an earlier create of this turn was given up with its session
        # Without retries nobody waits here, for such a caller wants to see the refusal.
        if policy.attempts > 1 and not await self._has_come(policy, started) and failure is not None:
            return failure
        self.state, self.sent_at = TurnState.SENT, anyio.current_time()
        self.lane.sent()
        self.lane.brake.sent(self)
        try:
            answer = await call()
        except BaseException as error:
            self._over(error, policy)
            raise
        self._over(answer if isinstance(answer, EnclaveError) else None, policy)
        return answer

    async def _has_come(self, policy: RetryPolicy, started: float) -> bool:
        self.state = TurnState.WAITING
        self.lane.join(self)
        try:
            return await self._wait(started, math.inf if policy.total_seconds is None else policy.total_seconds)
        finally:
            self.state = TurnState.IDLE
            self.lane.leave(self)

    async def _wait(self, started: float, seconds: float) -> bool:
        while not self._given_up:
            now = anyio.current_time()
            opens_at = self.lane.opens_at(self)
            if opens_at <= now:
                return True
            if now >= started + seconds:
                if not self.has_progressed(started):
                    return False
                started = now
            # Whatever may bring the time forward wakes this turn. Then everything is looked at again.
            with anyio.CancelScope(deadline=min(opens_at, started + seconds)):
                await self.wakeup.wait()
        raise ConnectError("POST /sessions: not sent, because its caller no longer waits")

    def _over(self, error: BaseException | None, policy: RetryPolicy) -> None:
        made_one = error is None and self.lane.ends
        self.state = TurnState.HOLDING if made_one else TurnState.IDLE
        self.lane.brake.answered(self, error, policy)

    def has_progressed(self, since: float) -> bool:
        """Whether a refusal says no more than that it was not yet this create's turn."""
        return self.lane.ends and self.lane.brake.has_progressed(since)

    @property
    def hold_seconds_left(self) -> float:
        """How long it waits at least."""
        return self.lane.brake.hold_seconds_left

    def give_up(self) -> None:
        """Wait no longer. What was sent goes on."""
        self._given_up = True
        self.wakeup.wake()
