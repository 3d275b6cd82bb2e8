"""A stream of frames, whole: from a connection's bytes to the loop body. Imports transport, types and errors.

A byte goes down this list and never back:
_source.py     EventSource: one connection of an event stream
_decoder.py    FrameDecoder: a connection's bytes to batches of frames, fast where it can be, exact everywhere
_plain.py      which stretches of a stream can be decoded at once
_frames.py     one event's data to one frame
_position.py   how far a stream has come, and what proves a replay to be of the same session
_warnings.py   what the log says of frames that cannot be read
_reader.py     StreamReader: the task behind a stream, which connects again where a connection breaks
_buffer.py     FrameBuffer: batches on their way from the reader to the consumer
_stream.py     FrameStream: the context manager and iterator that callers hold
"""

from ._stream import DEFAULT_MAX_BUFFERED_BYTES, FrameBatches, FrameStream

__all__ = ["DEFAULT_MAX_BUFFERED_BYTES", "FrameBatches", "FrameStream"]
