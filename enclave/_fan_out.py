"""Many sessions at once: `FanOut` gives their outcomes as they come, and takes requests as outcomes are taken.

One task, the feeder, takes requests from the input, never more than `max_concurrency` ahead of the outcomes that were
taken out. So a slow consumer slows the intake. Each request runs in a task of its own, inside a `session` block, so its
session is torn down however the fan-out ends.

A fan-out is complete when the input is through and each of its requests has an outcome. If it ends before that and
nobody asked for it, somebody else has cancelled its tasks, and the consumer is told so.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ._create import Creates
from ._groups import close_unbegun, start_coroutine
from ._loop import Wakeup, cancelled_by_others, uninterrupted
from ._outcome import Completed, Errored, Outcome, RequestLike, verdict_of_error, verdict_of_result
from ._owned_task import cut_short
from ._request_arguments import as_request
from ._session import SessionBlock, SessionHandle
from ._tasks import BackgroundTask
from .errors import UsageError
from .types import CreateSessionRequest, SessionResult

if TYPE_CHECKING:
    from .transport import Http, Lane

T = TypeVar("T")
Requests = Iterable[RequestLike] | AsyncIterable[RequestLike]

DEFAULT_MAX_CONCURRENCY = 16
_CLOSE_INPUT_SECONDS = 10.0


_RIGHT_FORM = (
    "this fan-out is not open. Write 'async with enclave.fan_out(...) as outcomes:', and in that block "
    "'async for outcome in outcomes:'. Or write 'await enclave.map(...)'"
)


class FanOut(Generic[T]):
    """An async context manager and iterator over outcomes, in the order in which the sessions end.

    Leaving the block, by whatever way, cancels what still runs and tears its sessions down.
    """

    def __init__(
        self,
        run: Callable[[RequestLike, Progress[T]], Awaitable[None]],
        requests: Requests,
        *,
        max_concurrency: int,
        fail_fast: bool,
    ) -> None:
        if not isinstance(max_concurrency, int) or isinstance(max_concurrency, bool):
            raise TypeError(f"max_concurrency: expected a whole number, got {type(max_concurrency).__name__}")
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency: expected a whole number from 1, got {max_concurrency!r}")
        if isinstance(requests, str | CreateSessionRequest) or not isinstance(requests, Iterable | AsyncIterable):
            raise TypeError(f"requests: expected an iterable of requests, got {type(requests).__name__}")
        self._run = run
        self._requests = requests
        self._max_concurrency = max_concurrency
        self._fail_fast = fail_fast
        self._outcomes: deque[Outcome[T]] = deque()
        self._in_flight = 0  # taken from the input, and its outcome not yet taken out
        self._taken = 0  # from the input, in all
        self._running = 0  # taken from the input, and without an outcome yet
        self._starting: dict[int, Coroutine[Any, Any, None]] = {}  # before their first step, by index
        self._changed = Wakeup()
        self._input_is_through = False
        self._ended = False
        self._error: BaseException | None = None  # raised once the outcomes are through
        self._close_error: Exception | None = None  # of the input, raised when the block is left
        self._task: BackgroundTask[None] | None = None
        self._state = "new"

    if not TYPE_CHECKING:  # a type checker refuses these by itself

        def __await__(self) -> NoReturn:
            self._check_open()
            raise UsageError(_RIGHT_FORM)

        def __enter__(self) -> NoReturn:
            raise UsageError(_RIGHT_FORM)

        def __exit__(self, *exc_info: object) -> None: ...

    def __repr__(self) -> str:
        return f"<FanOut {self._state} taken={self._taken} running={self._running} waiting={len(self._outcomes)}>"

    @property
    def total(self) -> int | None:
        """How many requests there are. None as long as that is not known, as with an iterator.

        For a progress bar: ``tqdm(outcomes, total=outcomes.total)``.
        """
        if self._input_is_through:
            return self._taken
        return len(self._requests) if isinstance(self._requests, Sized) else None

    @property
    def started(self) -> int:
        """How many requests were taken from the input. Some may still wait for the server to have room."""
        return self._taken

    @property
    def done(self) -> int:
        """How many requests have their outcome, also if nobody has taken that out yet."""
        return self._taken - self._running

    @uninterrupted
    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise UsageError("a fan-out is entered once. Call fan_out() again for another one")
        self._state = "open"
        self._task = BackgroundTask(self._feed, "a fan-out")
        try:
            await self._task.start()
        except BaseException:
            # `__aexit__` is not called for a block that was not entered.
            await self._task.aclose()
            raise
        return self

    @uninterrupted
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._state = "closed"
        if self._task:
            await self._task.aclose()
        self._raise_close_error(exc)

    def _raise_close_error(self, body_error: BaseException | None) -> None:
        error, self._close_error = self._close_error, None
        if error is None:
            return
        if body_error is None:
            raise error
        body_error.add_note(f"closing the fan-out's requests failed as well: {error!r}")

    def __aiter__(self) -> Self:
        self._check_open()
        return self

    async def __anext__(self) -> Outcome[T]:
        """The next outcome.

        Raises:
            Exception: what the input raises, once the outcomes of the requests before it are taken. With ``fail_fast``,
                the first outcome's error, or `teardown_error`, instead of that outcome, and nothing else from then on.
        """
        self._check_open()
        # Also where an outcome waits, or a loop over thousands of them could not be cancelled.
        await checkpoint()
        while not self._outcomes:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._changed.wait()
        # No await from here on: a cancellation between taking the outcome and returning it would lose it.
        outcome = self._outcomes.popleft()
        self._in_flight -= 1
        self._changed.wake()
        if self._fail_fast:
            self._raise_error_of(outcome)
        return outcome

    def _raise_error_of(self, outcome: Outcome[T]) -> None:
        """If the outcome has an error, cancel what still runs, and raise it now and from here on."""
        error = outcome.error if isinstance(outcome, Errored) else outcome.teardown_error
        if error is None:
            return
        self._error = error
        self._ended = True
        self._outcomes.clear()
        if self._task:
            self._task.cancel()
        raise error

    def _check_open(self) -> None:
        if self._state == "new":
            raise UsageError(_RIGHT_FORM)
        if self._state == "closed":
            raise UsageError("this fan-out is closed. Iterate inside its async with block")

    async def _feed(self) -> None:
        try:
            async with anyio.create_task_group() as task_group:
                await self._take_requests(task_group)
        finally:
            close_unbegun(self._starting.values())
            # anyio takes a task that ended in a cancellation for one that was asked to, and quietly ends its siblings.
            # So whether all is done is counted, and not concluded from an end without an error.
            if self._error is None and not (self._input_is_through and self._running == 0):
                self._error = cut_short("a fan-out")
            self._ended = True
            self._changed.wake()

    async def _take_requests(self, task_group: TaskGroup) -> None:
        requests: AsyncIterator[RequestLike] | None = None
        try:
            requests = _as_async(self._requests)
            for index in itertools.count():
                # Counted until an outcome is taken, not until its session ends. So outcomes that wait stop the intake.
                while self._in_flight >= self._max_concurrency:
                    await self._changed.wait()
                request = await anext(requests)
                self._in_flight += 1
                self._taken += 1
                self._running += 1
                # Kept until its first step: a task that is cancelled before that leaves a coroutine to be closed.
                self._starting[index] = self._run_one(index, request)
                start_coroutine(task_group, self._starting[index], "one of a fan-out")
        except StopAsyncIteration:
            self._input_is_through = True
        except BaseException as error:
            if isinstance(error, Exception):
                self._error = error  # the consumer raises it
            elif cancelled_by_others(error):
                self._error = cut_short("a fan-out", error)
            else:
                raise
        finally:
            await self._close(requests)

    async def _close(self, requests: Any) -> None:
        """Close an input that we stopped early, so that what it holds open is not left to the garbage collector."""
        # A block that is left early has cancelled this task, and a generator may have to wait to clean up.
        with anyio.move_on_after(_CLOSE_INPUT_SECONDS, shield=True):
            try:
                if hasattr(requests, "aclose"):
                    await requests.aclose()
                elif hasattr(requests, "close"):
                    requests.close()
            except Exception as error:  # noqa: BLE001 - raised by, or noted on, what leaves the block
                self._close_error = error

    # Under trio Ctrl-C could come between the end of a session's block and its clean-up, and the session would stay.
    @uninterrupted
    async def _run_one(self, index: int, request: RequestLike) -> None:
        del self._starting[index]
        progress = Progress[T]()
        error: Exception | None = None
        try:
            await self._run(request, progress)
        except BaseException as exception:
            if isinstance(exception, Exception):
                error = exception
            elif cancelled_by_others(exception):
                # Left to itself it would end this task and, as anyio has it, all the others, without a word.
                error = cut_short("a session of a fan-out", exception)
            else:
                raise
        # Nothing is awaited between here and the end, so a task that began always leaves its outcome.
        self._running -= 1
        if not self._ended:
            self._outcomes.append(progress.outcome(index, request, error))
        self._changed.wake()


def in_sessions(
    http: Http, creates: Creates, result_type: Any, creates_per_second: float | None
) -> Callable[[RequestLike, Progress[Any]], Awaitable[None]]:
    """How a fan-out runs a request: in a session of its own, whose creates go in a lane of their own.

    Raises:
        TypeError, ValueError: `creates_per_second` is no rate.
    """
    if creates_per_second is not None:
        if isinstance(creates_per_second, bool) or not isinstance(creates_per_second, int | float):
            raise TypeError(f"creates_per_second: expected a number, got {type(creates_per_second).__name__}")
        if not 0 < creates_per_second < math.inf:
            raise ValueError(f"creates_per_second: expected a number above 0, got {creates_per_second!r}")
    lanes: list[Lane] = []

    async def run(request: RequestLike, progress: Progress[Any]) -> None:
        if not lanes:  # a lane belongs to the event loop, and none may run where a fan-out is made
            lanes.append(http.brake.lane(creates_per_second=creates_per_second))
        with lanes[0].turn() as turn:
            async with SessionBlock(http, creates, as_request(request, {}), turn) as session:
                progress.created(session)
                progress.ended(await session.result(result_type))

    return run


class Progress(Generic[T]):
    """How far one request has come, kept where a failure does not lose it."""

    def __init__(self) -> None:
        self._started = anyio.current_time()
        self._ended: float | None = None
        self.session_id: str | None = None
        self.result: SessionResult[T] | None = None

    def created(self, session: SessionHandle) -> None:
        self.session_id = session.id

    def ended(self, result: SessionResult[T]) -> None:
        self.result = result
        self._ended = anyio.current_time()

    def outcome(self, index: int, request: RequestLike, error: Exception | None) -> Outcome[T]:
        """What became of the request, now that its session is left. `error` is what came out of that."""
        seconds = (anyio.current_time() if self._ended is None else self._ended) - self._started
        if self.session_id is not None and self.result is not None:
            return Completed[T](
                index=index,
                request=request,
                session_id=self.session_id,
                result=self.result,
                verdict=verdict_of_result(self.result),
                duration_seconds=seconds,
                teardown_error=error,
            )
        error = error or AssertionError("a session ended with neither a result nor an error")
        return Errored(
            index=index,
            request=request,
            session_id=self.session_id,
            error=error,
            verdict=verdict_of_error(error),
            duration_seconds=seconds,
        )


def _as_async(requests: Requests) -> AsyncIterator[RequestLike]:
    return aiter(requests) if isinstance(requests, AsyncIterable) else _IteratedInLoop(iter(requests))


class _IteratedInLoop:
    """A plain iterator, asked from the event loop, with a checkpoint before each item."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RequestLike:
        await checkpoint()
        try:
            item: RequestLike = next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None
        return item

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if callable(close):
            close()
