"""`EventLoop`: an event loop in a thread of its own, and how other threads give it work and wait for that.

Work goes there as a callback of the loop, and word comes back through a queue that one thread waits on. anyio's portal
would make a cancel scope, a task of a group and a future for each call besides, which costs twice as much.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar

from enclave._loop import Wakeup
from enclave.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")

# What the thread of a loop would import with its first call and its first stream. A child that is forked at that moment
# would wait for ever for the lock of a half-imported module.
for _name in ("anyio._backends._asyncio", "enclave.transport.http11._asyncio_stream", "enclave._streams._reader"):
    import_module(_name)

Errand = Callable[[], None] | None
"""What the loop asks of a thread that waits: something to do, or None where the wait is over."""
Mail = SimpleQueue[Errand]
Task = asyncio.Task[None]
Cancelled = asyncio.CancelledError

# A thread waits in pieces, and Python calls signal handlers between them. On Windows no signal ends a wait for a lock.
# Elsewhere one does, unless it arrives in the moment before the wait begins, or in another thread.
_PIECE_SECONDS = 0.1 if sys.platform == "win32" else 1.0
_CLOSED = "this SyncEnclaveClient is closed: make a new one"
_OWN_THREAD = (
    "this call would wait for itself: it was made on the client's own event loop, by an observer, a token callable or "
    "an async iterable of requests. Use an EnclaveClient there"
)

_ONE_THREAD = (
    "gevent has replaced threads by greenlets, so all clients would run in one thread, where only one can. Share one "
    "SyncEnclaveClient, with with_options() where timeouts differ, or close the other one first"
)


def closed() -> UsageError:
    """The error for a call that came too late."""
    return UsageError(_CLOSED)


class Work(Protocol):
    """What is under way on a loop, and ends before the loop does."""

    def end(self) -> None:
        """Have it end soon: called on the loop."""
        ...


class EventLoop:
    """An event loop that runs until `close`.

    Its thread is a daemon, so a program may end without closing its clients, and what is under way then is ended from a
    handler of `atexit`. An interpreter that ends starts no thread any more. A loop that is made then runs in the thread
    that waits, as long as that waits.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.calls: set[Work] = set()
        """What threads wait for. Changed on the loop alone."""
        self.blocks: set[Work] = set()
        """What tasks hold open. Changed on the loop alone."""
        self.closing = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_ThreadForEach())
        self._one_ended = Wakeup()
        self._spawned: set[Task] = set()  # the loop itself holds tasks weakly
        # Not a plain lock: a finalizer may run, and post, in the middle of a post of the same thread.
        self._gate = threading.RLock()
        self._takes_work = True
        self._is_refused = False
        started: Mail = SimpleQueue()
        self._thread: threading.Thread | None = threading.Thread(
            target=self._run, args=(started,), name="enclave", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
        else:
            started.get()
        if self._is_refused:
            raise UsageError(_ONE_THREAD)

    # For any thread

    def check_thread(self) -> None:
        """Refuse to wait in the thread that would be waited for.

        Raises:
            UsageError: the caller is on this loop.
        """
        here = self._loop.is_running() if self._thread is None else threading.current_thread() is self._thread
        if here:
            raise UsageError(_OWN_THREAD)

    def post(self, callback: Callable[..., object], *args: object, context: Context | None = None) -> None:
        """Have the loop call something.

        Raises:
            UsageError: the client is closed.
        """
        # What was let in here is called, also if the loop is closed next, so nobody waits for it in vain.
        with self._gate:
            if not self._takes_work:
                raise closed()
            self._loop.call_soon_threadsafe(callback, *args, context=context)

    def wait(self, mail: Mail, seconds: float | None = None) -> None:
        """Run the errands that the loop sends, until it says that the wait is over.

        Raises:
            TimeoutError: it sent nothing for so many seconds.
        """
        while (errand := self._receive(mail, seconds)) is not None:
            errand()

    def _receive(self, mail: Mail, seconds: float | None) -> Errand:
        if self._thread is None:
            while mail.empty():
                self._loop.run_forever()  # until `tell` stops it
        while True:
            try:
                return mail.get(timeout=_PIECE_SECONDS if seconds is None else seconds)
            except Empty:
                if seconds is not None:
                    raise TimeoutError(f"not done within {seconds:g} s") from None

    def end_work(self, then: Callable[[], None]) -> Mail:
        """Have all blocks left, all calls cancelled, and then this called. Gives where it is said that it is done."""
        mail: Mail = SimpleQueue()
        self.post(self._spawn, self._end_all, then, mail)
        return mail

    def close(self, aclose: Callable[[], Awaitable[None]]) -> None:
        """End all work, close the client's connections with `aclose`, and end the loop."""
        self.check_thread()
        self.wait(self.close_soon(aclose))
        if self._thread is None:
            self._finish()
        else:
            self._thread.join()

    def close_soon(self, aclose: Callable[[], Awaitable[None]]) -> Mail:
        """The same without waiting. Gives where it will be said that this is done."""
        mail: Mail = SimpleQueue()
        self.post(self._spawn, self._close, aclose, mail)
        return mail

    # On the loop

    def start(self, coroutine: Coroutine[Any, Any, None], context: Context | None = None) -> Task:
        """Run a coroutine as a task, in this very context."""
        return self._loop.create_task(coroutine, context=context)

    def tell(self, mail: Mail, errand: Errand = None) -> None:
        """Send an errand to a thread that waits, or word that its wait is over."""
        mail.put(errand)
        if self._thread is None:
            self._loop.stop()

    def has_ended(self, work: Work) -> None:
        """Note that a call or a block is through."""
        self.calls.discard(work)
        self.blocks.discard(work)
        self._one_ended.wake()

    def _spawn(self, function: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> None:
        task = self.start(function(*args, **kwargs))
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    async def _end_all(self, then: Callable[[], None], mail: Mail) -> None:
        try:
            await self._end(self.blocks)
            await self._end(self.calls)
            then()
            await asyncio.sleep(0)  # it closes sockets in the next turn
        finally:
            self.tell(mail)

    async def _close(self, aclose: Callable[[], Awaitable[None]], mail: Mail) -> None:
        self.closing = True
        try:
            await self._end(self.blocks)
            await aclose()
            await self._end(self.calls)
        finally:
            with self._gate:
                self._takes_work = False
            self._loop.stop()
            self.tell(mail)

    async def _end(self, work: set[Work]) -> None:
        for one in list(work):
            one.end()
        while work:  # what they tear down has deadlines of its own
            await self._one_ended.wait()

    # The thread

    def _run(self, started: Mail) -> None:
        # Where gevent has replaced threads by greenlets, another client's loop may be running in this very thread.
        if _a_loop_is_running():
            self._is_refused = True
            self._loop.close()
            started.put(None)
            return
        self._loop.call_soon(started.put, None)
        try:
            self._loop.run_forever()
        finally:
            self._finish()

    def _finish(self) -> None:
        # This also calls what was posted in the last moment.
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def _a_loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _ThreadForEach(ThreadPoolExecutor):
    """Runs each function in a thread that ends with it: the look-ups of names by a transport of httpx's.

    The threads of a pool would stay, and the interpreter would wait for them at its exit. Nor does a pool take work
    after that, while a client may be used in handlers of `atexit`. There the loop may as well wait for the function.
    """

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread of its own."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                future.set_exception(error)

        try:
            threading.Thread(target=run, name="enclave look-up", daemon=True).start()
        except RuntimeError:
            run()
        return future
