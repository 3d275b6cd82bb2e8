"""Bytes to and from the control plane. The only place that imports httpx. Imports types and errors.

_sse.py            SSEDecoder: the event stream by the WHATWG rules, without I/O
_frames.py         one event's data to one frame
_plain.py          which stretches of a stream can be decoded at once
_frame_decoder.py  FrameDecoder: a connection's bytes to batches of frames, fast where it can be, exact everywhere
_position.py       how far a stream has come, and what proves a replay to be of the same session
"""

from ._sse import DEFAULT_MAX_EVENT_BYTES, SSEDecoder

__all__ = ["DEFAULT_MAX_EVENT_BYTES", "SSEDecoder"]
