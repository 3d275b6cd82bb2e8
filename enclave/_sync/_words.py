"""The words of the async client, as they read for the blocking one: in documentation, signatures and messages."""

from __future__ import annotations

import re

_MIRRORED = "EnclaveClient|SessionHandle|FrameStream|FrameBatches|FanOut"
_WORDS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\basync (with|for|context manager)\b", r"\1"),
        (r"\b([Aa])n (context manager)\b", r"\1 \2"),
        (r"\bawait ", ""),
        (rf"\b([Aa])n (?=(?:{_MIRRORED})\b)", r"\1 "),
        (rf"\b(?=(?:{_MIRRORED})\b)", "Sync"),
        (r"\bAbstractAsyncContextManager\b", "AbstractContextManager"),
        (r"\bAn async iterator\b", "An iterator"),
        (r"\baclose\b", "close"),
        (r"\b__a(enter|exit|iter|next)__", r"__\1__"),
        (r"\bany task\b", "any thread"),
        (r"\bany number of tasks\b", "any number of threads"),
        (r"\bTasks may\b", "Threads may"),
    )
]


def in_blocking_words(text: str) -> str:
    """A text of the async client's, as it reads for the blocking one."""
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    return text
