"""The blocking client: every call of the async one without `await`, for code that runs in no event loop.

Nothing of the protocol is in here. Each class holds an object of the async client's and calls its methods on an event
loop in a thread of its own, which the first call makes. What lives where, lowest first:

_words.py    the words of the async client, as they read for the blocking one
_loop.py     EventLoop: the thread, and how work gets to it. The one module that knows asyncio
_work.py     Call and Held: one coroutine that a thread waits for, and one block that a task holds open
_driver.py   Driver: which loop a client uses, in this process, and what ends it
_mirror.py   the methods of an async class, signatures and documentation included, as blocking ones
_block.py    Block: an async context manager as a plain one, also to iterate over
_stream.py   SyncFrameStream and SyncFrameBatches
_fan_out.py  SyncFanOut, and its input, which is taken in the threads of callers
_session.py  SyncSessionHandle, and the block that holds a session
_client.py   SyncEnclaveClient

Ctrl-C is raised in the thread that waits. The wait then cancels what it waited for, and goes on until that has cleaned
up. A second Ctrl-C ends the wait at once, and the loop's thread cleans up without it.
"""

from ._client import SyncEnclaveClient
from ._fan_out import SyncFanOut
from ._session import SyncSessionHandle
from ._stream import SyncFrameBatches, SyncFrameStream

__all__ = ["SyncEnclaveClient", "SyncFanOut", "SyncFrameBatches", "SyncFrameStream", "SyncSessionHandle"]
