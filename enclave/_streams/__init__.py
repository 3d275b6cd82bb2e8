"""A stream of frames, whole: from a connection's bytes to the loop body. Imports transport, types and errors.

A byte goes down this list and never back:
_source.py      opens a response that is an event stream
_decoder.py     FrameDecoder: its bytes to frames, in bulk where that can be, event by event everywhere
_plain.py       which stretches of a stream can be decoded in bulk
_frames.py      the JSON of one event, or of many, to frames
_history.py     History: what was received so far, and what proves that a new connection goes on there
_ids.py         EventIds: what the ids of the events can prove
_buffer.py      FrameBuffer: frames on their way from the reader to the consumer
_stream.py      FrameStream: the context manager and iterator that callers hold

Two modules drive it:
_connection.py  Connection: reads one source to its end or to its break, within the timeouts
_reader.py      StreamReader: the task behind a stream, which connects again after a break
_warnings.py    what the log says of frames that cannot be read
"""

from ._stream import DEFAULT_MAX_BUFFERED_BYTES, FrameBatches, FrameStream

__all__ = ["DEFAULT_MAX_BUFFERED_BYTES", "FrameBatches", "FrameStream"]
