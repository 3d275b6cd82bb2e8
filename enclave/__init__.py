"""The Python client of the Enclave control plane: run untrusted code in isolated, ephemeral sessions.

Which module holds what, lowest first. Each imports only from those above it:

types/                 the wire's types
errors.py              what can go wrong with a valid call
_log.py                the logger
_routes.py             the paths that take a session id
_observer.py           Observer: the interface of those who want to know what the client does
_observed.py           the one way to call an observer
_loop.py               the adapter to the event loops: which one is running, and what differs between them
_groups.py             what a task group leaves to do
_tasks.py              tasks inside a block, and work that must end
_pace.py               beginning thousands of things at the same moment
transport/             one request and its response
_streams/              a stream of frames, from the socket to the loop body
_calls.py              single requests
_result_type.py        the type that a result is decoded into
_result.py             result(): wait for the end of a session and fetch its result
_create.py             create a session and leave none behind, and tear one down
_session.py            SessionHandle, and the block that holds a session
_sweep.py              sweep(): tear down by label
_outcome.py            what became of one request of a fan-out
_fan_out.py            FanOut: many sessions at once
_request_arguments.py  what run and session are called with
_client.py             EnclaveClient: signatures and documentation
_sync/                 SyncEnclaveClient: the same calls for code without an event loop

At the edges, each an extra. The core imports none of them:

simulator/             a control plane on this machine (extra `simulator`). It imports types only
pytest_plugin/         what the pytest fixtures give (extra `simulator`), declared in the package enclave_pytest
cli/                   the command line (extra `cli`). It imports the public names
mcp/                   the command enclave-mcp (extra `mcp`). It imports the public names
ray/                   sessions on a Ray cluster (extra `ray`). It imports the public names
opentelemetry.py       an observer that makes spans (extra `otel`). It imports the public names
"""

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
