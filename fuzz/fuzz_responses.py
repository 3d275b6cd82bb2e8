# ruff: noqa: INP001 - a script
"""Coverage-guided fuzzing of everything that decodes bytes of a server.

`make fuzz`, or with libFuzzer's options::

    mkdir -p .fuzz
    python fuzz/fuzz_responses.py -max_total_time=60 .fuzz fuzz/seeds tests/hostile/corpus

New inputs go to the first directory. What must hold stands in `tests/support/oracles.py`, which the property
tests use too. An input that breaks it is written to ``crash-*``: give what breaks a name that says what it is, and add
it to the corpus (its first five bytes choose the call, and are no part of it), which a test replays.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["enclave"]):
    from tests.support.oracles import (
        CALLS,
        CannedTransport,
        check_decoders_agree,
        check_response_is_understood_or_refused,
    )

STATUSES = (200, 201, 204, 302, 400, 404, 409, 429, 503)
CONTENT_TYPES = ("application/json", "text/event-stream", "text/html", "")
ENCODINGS = ("", "gzip", "deflate", "br")
NAMES = tuple(CALLS)
DECODERS_ALONE = 128
RUNNER = asyncio.Runner()  # one event loop for all inputs: making one takes longer than an input


def fuzz_one(data: bytes) -> None:
    """The first bytes choose the call and the head of the response, or the decoders alone; the rest is the body."""
    head, body = data[:5].ljust(5, b"\0"), data[5:]
    if head[4] >= DECODERS_ALONE:
        return check_decoders_agree(body)
    headers = {
        "content-type": CONTENT_TYPES[head[1] % len(CONTENT_TYPES)],
        "content-encoding": ENCODINGS[head[2] % len(ENCODINGS)],
    }
    transport = CannedTransport(STATUSES[head[3] % len(STATUSES)], headers, body, 1 + head[4])
    return RUNNER.run(check_response_is_understood_or_refused(NAMES[head[0] % len(NAMES)], transport))


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
