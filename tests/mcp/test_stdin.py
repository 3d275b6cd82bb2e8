"""Lines of standard input: however they arrive, to their end, and cancellable while none does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from enclave.mcp import _stdio
from enclave.mcp._stdio import StdinLines
from tests.support import PATIENCE_SECONDS


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    open_ends = [read, write]
    yield read, write
    for descriptor in open_ends:
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == write  # the test closed it


async def test_lines_come_out_whole_however_they_were_cut(pipe) -> None:
    read, write = pipe
    lines = StdinLines(read)
    with anyio.fail_after(PATIENCE_SECONDS):
        for piece in (b"on", b"e\ntw", b"o\n\nthr", b"ee\n\xff\xe2\x82", b"\xac\nunfinished"):
            os.write(write, piece)
        os.close(write)
        assert [line async for line in lines] == ["one", "two", "", "three", "\ufffd€"]


async def test_each_line_comes_as_soon_as_it_is_there(pipe) -> None:
    read, write = pipe
    lines = StdinLines(read)
    with anyio.fail_after(PATIENCE_SECONDS):
        os.write(write, b"first\nsec")
        assert await anext(lines) == "first"
        with anyio.move_on_after(0.01) as scope:
            await anext(lines)
        assert scope.cancelled_caught
        os.write(write, b"ond\n")
        assert await anext(lines) == "second"


async def test_files_and_the_null_device_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    file.write_bytes(b"one\ntwo\n")
    for path, expected in ((file, ["one", "two"]), (Path(os.devnull), [])):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with anyio.fail_after(PATIENCE_SECONDS):
                assert [line async for line in StdinLines(descriptor)] == expected
        finally:
            os.close(descriptor)


async def test_a_line_beyond_all_bounds_ends_the_input_and_is_logged(pipe, monkeypatch, caplog) -> None:
    monkeypatch.setattr(_stdio, "MAX_MESSAGE_BYTES", 100)
    read, write = pipe
    os.write(write, b"one\n" + b"x" * 101)
    with anyio.fail_after(PATIENCE_SECONDS):
        assert [line async for line in StdinLines(read)] == ["one"]
    assert "exceeds 100 bytes" in caplog.text
