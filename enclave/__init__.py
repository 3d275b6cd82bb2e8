"""The Python client of the Enclave control plane: run untrusted code in isolated, ephemeral sessions.

::

    import anyio
    from enclave import EnclaveClient

    async def main() -> None:
        async with EnclaveClient() as enclave, enclave.session("enclave.result(6 * 7)") as session:
            result = await session.result(int)
            print(result.value)

    anyio.run(main)

The client finds the control plane by ``ENCLAVE_BASE_URL`` and its key in ``ENCLAVE_API_KEY``. The command
``enclave simulator`` serves one on this machine (``pip install 'enclave-sdk[cli,simulator]'``).

- `EnclaveClient` has the calls: `session` and `run` for one program, `fan_out` and `map` for many.
- `SessionHandle` is one session: `stream` gives its live output, `result` its result.
- `SyncEnclaveClient` is the same for code without an event loop.
- `SessionLimits` and `EgressPolicy` say what a program may use and connect to.
- `enclave.types` has all that comes over the wire, and `enclave.errors` draws the tree of what can go wrong.
- With an extra each: `enclave.simulator`, with fixtures for pytest, `enclave.opentelemetry` and `enclave.ray`.

The guides and the reference are in the folder ``docs`` of the source.
"""

# Which module holds what, and which may import which, stands in docs/architecture.md.
from typing import TYPE_CHECKING, Any

from . import errors, types
from ._client import EnclaveClient
from ._fan_out import FanOut
from ._observer import Observer, RequestObservation, SessionObservation, StreamObservation
from ._outcome import Completed, Errored, Outcome, Verdict
from ._session import SessionHandle
from ._streams import FrameBatches, FrameStream
from ._sweep import SweepResult
from ._version import __version__
from .errors import *  # noqa: F403 - its __all__ says what is public
from .transport import InsecureTransportWarning, RetryPolicy, Timeout
from .types import *  # noqa: F403 - its __all__ says what is public

if TYPE_CHECKING:
    from ._sync import SyncEnclaveClient, SyncFanOut, SyncFrameBatches, SyncFrameStream, SyncSessionHandle

__all__ = [
    "Completed",
    "EnclaveClient",
    "Errored",
    "FanOut",
    "FrameBatches",
    "FrameStream",
    "InsecureTransportWarning",
    "Observer",
    "Outcome",
    "RequestObservation",
    "RetryPolicy",
    "SessionHandle",
    "SessionObservation",
    "StreamObservation",
    "SweepResult",
    "SyncEnclaveClient",
    "SyncFanOut",
    "SyncFrameBatches",
    "SyncFrameStream",
    "SyncSessionHandle",
    "Timeout",
    "Verdict",
    "__version__",
    "errors",
    "types",
]
__all__ += errors.__all__
__all__ += types.__all__


def __getattr__(name: str) -> Any:
    # The blocking client brings in asyncio, which the async one may do without. It does so when it is imported, and not
    # with its first call: in a handler of `atexit` asyncio can be imported no more.
    if name.startswith("Sync") and name in __all__:
        from . import _sync  # noqa: PLC0415 - as above

        return getattr(_sync, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
