"""Text from outside, made safe for a terminal: control characters are shown, not obeyed. No I/O."""

from __future__ import annotations

import re

# C0 and C1 controls and DEL; the marks, embeddings, overrides and isolates of bidirectional text; the separators and
# annotations that some terminals act on. Tab and line feed stay, and a carriage return in front of a line feed.
_ACTED_ON = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb"
_IN_TEXT = re.compile(rf"[{_ACTED_ON}]|\r(?!\n)")
_IN_LINE = re.compile(rf"[{_ACTED_ON}\t\r\n]")
_IN_JSON = re.compile(rf"[{_ACTED_ON}\r]")
_SHORT = {"\t": r"\t", "\r": r"\r", "\n": r"\n"}


def _shown(match: re.Match[str]) -> str:
    char = match[0]
    return _SHORT.get(char) or (f"\\x{ord(char):02x}" if char <= "\xff" else f"\\u{ord(char):04x}")


def _shown_in_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def one_line(text: object) -> str:
    """An object's text on one line, every control character shown as an escape."""
    return _IN_LINE.sub(_shown, str(text))


def safe_json(document: str) -> str:
    """The same JSON, with the control characters that JSON permits in strings written as escapes."""
    return _IN_JSON.sub(_shown_in_json, document)


class VisibleText:
    """Shows the control characters of text that comes in pieces: a line end may be cut between CR and LF."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The next piece. A carriage return at its end waits for what follows it."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return _IN_TEXT.sub(_shown, text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What was held back."""
        text, self._held = self._held, ""
        return _IN_TEXT.sub(_shown, text)
