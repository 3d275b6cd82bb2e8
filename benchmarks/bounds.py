"""The command `bounds`: time and memory of hostile events, beside those of harmless ones of the same size.

Each row is an event of `--mib` MiB, fed to the decoder in reads of 64 KiB. A repaired one ends in half a surrogate
pair, which takes a second way through the decoder. The target is twice the time and memory of the same text without it.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc

from enclave._streams._decoder import FrameDecoder
from enclave._streams._history import History

READ_BYTES = 65_536
TARGET_RATIO = 2.0
IDS = 256

TEXTS = {
    "plain text": b"abcdefgh",
    "UTF-8": "é😀".encode(),
    "escapes of lines": rb"\n",
    "escaped backslashes": rb"\\",
    "escapes of ASCII": rb"\u0041",
    "surrogate pairs": rb"\ud83d\ude00",
    "all of them": rb"a\n\ud83d\ude00b\\c",
}


def event(piece: bytes, size: int, *, is_broken: bool) -> bytes:
    """An event whose text is a piece again and again, and in the end half a surrogate pair."""
    half = rb"\ud83d" if is_broken else b""
    return b'data: {"kind":"stdout","data":"' + piece * (size // len(piece)) + half + b'"}\n\n'


def decode(data: bytes) -> int:
    """Decode it as a stream does. Give how many frames there were."""
    decoder = FrameDecoder(History(), max_event_bytes=2 * len(data))
    return sum(len(decoder.feed(data[start : start + READ_BYTES])) for start in range(0, len(data), READ_BYTES))


def cost(data: bytes, rounds: int) -> tuple[float, float]:
    """The least CPU seconds of some rounds, and the peak of memory in sizes of the event."""
    seconds = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        if decode(data) != 1:
            raise AssertionError("the event is one frame")
        seconds = min(seconds, time.process_time() - began)
    return seconds, peak_of(data) / len(data)


def peak_of(data: bytes) -> int:
    """The peak of memory while it is decoded, in bytes."""
    tracemalloc.start()
    try:
        decode(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def kept_of_long_ids(id_bytes: int) -> int:
    """Bytes that are kept after `IDS` events with ids of this length, all given out."""
    tracemalloc.start()
    try:
        decoder = FrameDecoder(History(), max_event_bytes=2 * id_bytes)
        for number in range(IDS):
            decoder.feed(b"id: %06d%b\n" % (number, b"x" * id_bytes) + b'data: {"kind":"stdout","data":"x"}\n\n')
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def main(arguments: list[str]) -> int:
    """Exit status 0 if every repair keeps within the target. 1 otherwise."""
    parser = argparse.ArgumentParser("python -m benchmarks bounds", description=__doc__)
    parser.add_argument("--mib", type=int, default=8, help="size of each event, in MiB")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the fastest counts")
    chosen = parser.parse_args(arguments)
    print(f"{'':20} {'sound':>17} {'repaired':>17} {'time':>6} {'memory':>6}")
    is_within = True
    for name, piece in TEXTS.items():
        (sound, repaired) = (
            cost(event(piece, chosen.mib << 20, is_broken=is_broken), chosen.rounds) for is_broken in (False, True)
        )
        ratios = [bad / good for bad, good in zip(repaired, sound, strict=True)]
        cells = [f"{seconds * 1000:6.0f} ms {sizes:5.1f} x" for seconds, sizes in (sound, repaired)]
        print(f"{name:20} {cells[0]:>17} {cells[1]:>17} {ratios[0]:6.2f} {ratios[1]:6.2f}")
        is_within = is_within and max(ratios) <= TARGET_RATIO
    print(f"{IDS} ids of 1 MiB: {kept_of_long_ids(2**20) / 2**20:.1f} MiB are kept")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
