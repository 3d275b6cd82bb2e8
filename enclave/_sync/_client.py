"""`SyncEnclaveClient`: the calls of `EnclaveClient` for code that runs in no event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import anyio

from enclave._client import EnclaveClient
from enclave._session import SessionBlock, SessionHandle
from enclave.transport import Secret
from enclave.types import Listing

from ._driver import Driver, reworded
from ._fan_out import fanning_out
from ._mirror import Blocking, blocking, blocking_to, giving, like, parts_of
from ._session import SyncSessionBlock, SyncSessionHandle
from ._stream import SyncFrameStream

P = ParamSpec("P")
T = TypeVar("T")

_UNDO_SECONDS = 30.0
"""How long tearing down a session may take whose creator was interrupted before it had the handle."""


def _made_like(
    init: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    return cast("Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]", like(init))


def _mapping(method: Callable[Concatenate[Any, P], Awaitable[T]]) -> Callable[Concatenate[Any, P], T]:
    @like(method)
    def call(self: SyncEnclaveClient, /, *args: Any, **options: Any) -> Any:
        with self.fan_out(*args, **options) as outcomes:
            return Listing(sorted(outcomes, key=lambda outcome: outcome.index))

    return cast("Callable[Concatenate[Any, P], T]", call)


def _sharing(client: EnclaveClient, driver: Driver) -> SyncEnclaveClient:
    other = object.__new__(SyncEnclaveClient)
    cast("Any", Blocking).__init__(other, client, driver)
    return other


def _session_block(
    block: AbstractAsyncContextManager[SessionHandle, None], driver: Driver
) -> AbstractContextManager[SyncSessionHandle, None]:
    return SyncSessionBlock(cast("SessionBlock", block), driver)


def _made_from(arguments: Secret) -> EnclaveClient:
    return EnclaveClient(*cast("Any", arguments.reveal())[0], **cast("Any", arguments.reveal())[1])


async def _tear_down(session: SyncSessionHandle) -> None:
    handle, _ = parts_of(session)
    with anyio.fail_after(_UNDO_SECONDS):
        await handle.teardown()


class SyncEnclaveClient(Blocking[EnclaveClient]):
    """A client of one control plane whose calls block: `EnclaveClient` for scripts, views, tasks and notebooks.

    ::

        with SyncEnclaveClient() as enclave:
            with enclave.session("print('hello')") as session:
                result = session.result()

    It takes the arguments of `EnclaveClient`, and has its calls, which take, give and raise the same. Any number of
    threads may share it, and a thread in which an event loop runs may use it too. Its first call makes a thread with an
    event loop, in which all work is done. It is closed by its ``with`` or by `close`.

    Ctrl-C cancels the call that waits, and is raised when that has cleaned up: what ``session`` and ``fan_out`` hold is
    torn down. The same goes for whatever a signal handler raises.

    A forked child makes connections of its own with its first call, and leaves sessions alone that its parent holds.

    Raises:
        ConfigurationError: there is no base URL, or an argument cannot be used. The message names it.
    """

    @_made_like(EnclaveClient.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        can_move = options.get("transport") is None
        # As in the async one: a traceback that shows local variables must not show these.
        arguments = Secret((args, options))
        del args, options
        client = _made_from(arguments)
        super().__init__(client, Driver(client, can_move=can_move))

    @property
    def base_url(self) -> str:
        """Where the control plane is."""
        return self._async.base_url

    def __enter__(self) -> Self:
        with reworded():
            self._async._http.check_open()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one of us
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, leave every block that is open, and end the thread of the event loop.

        Harmless when called twice. Other calls raise `UsageError` then.
        """
        self._driver.close()

    with_options = giving(_sharing, EnclaveClient.with_options)

    # Holding a session

    run = blocking_to(SyncSessionHandle, EnclaveClient.run, undo=_tear_down)
    session = giving(_session_block, EnclaveClient.session)
    attach = giving(SyncSessionHandle, EnclaveClient.attach)
    stream = giving(SyncFrameStream, EnclaveClient.stream)
    fan_out = fanning_out(EnclaveClient.fan_out)
    map = _mapping(EnclaveClient.map)

    # Single calls

    get = blocking(EnclaveClient.get)
    list = blocking(EnclaveClient.list)
    audit = blocking(EnclaveClient.audit)
    teardown = blocking(EnclaveClient.teardown)
    health = blocking(EnclaveClient.health)
    sweep = blocking(EnclaveClient.sweep)
    request = blocking(EnclaveClient.request)
    result = blocking(EnclaveClient.result)
