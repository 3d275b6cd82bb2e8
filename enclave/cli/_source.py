"""The program that `enclave run` runs, and its language. Blocks; done before there is an event loop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from ._errors import BadUsage, CommandError

MAX_SOURCE_BYTES = 64 * 1024 * 1024
_LANGUAGES = {".py": "python", ".js": "node", ".mjs": "node", ".cjs": "node"}


def program(file: str | None, code: str | None, language: str | None) -> tuple[str, str | None]:
    """Source text and language; the language is None where the server's default will do.

    Raises:
        BadUsage: not exactly one of `file` and `code`, or a file whose suffix tells no language.
        CommandError: it is too large, or no text. OSError: it cannot be read.
    """
    if (file is None) == (code is None):
        raise BadUsage("run: give a FILE, or - for standard input, or -c CODE")
    if code is not None:
        return _checked(code), language
    if file is None or file == "-":
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - closed by whoever started us
            raise CommandError("standard input is closed; name a file instead")
        return _text("standard input", _bounded("standard input", sys.stdin.buffer)), language
    language = language or _inferred(file)
    with Path(file).open("rb") as opened:
        return _text(file, _bounded(file, opened)), language


def _inferred(file: str) -> str | None:
    suffix = Path(file).suffix.lower()
    if suffix and suffix not in _LANGUAGES:
        known = ", ".join(_LANGUAGES)
        raise BadUsage(f"{file}: the suffix tells no language ({known}); pass --language")
    return _LANGUAGES.get(suffix)


def _bounded(name: str, file: BinaryIO) -> bytes:
    source = file.read(MAX_SOURCE_BYTES + 1)
    if len(source) > MAX_SOURCE_BYTES:
        raise CommandError(f"{name}: larger than {MAX_SOURCE_BYTES} bytes, which no server takes as a program")
    return source


def _text(name: str, source: bytes) -> str:
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{name}: not UTF-8 at byte {error.start}; convert it, or pass the right file") from None


def _checked(code: str) -> str:
    try:
        code.encode()
    except UnicodeEncodeError:
        raise BadUsage("-c: not UTF-8; put the code into a file") from None
    return code
