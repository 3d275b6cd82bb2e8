"""A simulator and a raw HTTP client, never the SDK's own, so that these tests judge the simulator alone."""

from __future__ import annotations

import json
import os
import re
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import h11
import httpx
import psutil
import pytest

from enclave.simulator import Simulator
from tests.support import PATIENCE_SECONDS

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would load every root certificate, for each client


def parse_events(body: bytes) -> list[dict[str, str]]:
    """All complete events of a whole SSE body, by the WHATWG rules: one dict of fields each."""
    events = []
    fields: dict[str, str] = {}
    for line in re.split(r"\r\n|\r|\n", body.decode().removeprefix("\ufeff")):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if "data" in fields:
                events.append(fields)
            fields = {}
        elif name == "data" and "data" in fields:
            fields["data"] += "\n" + value
        elif name:
            fields[name] = value
    return events


class Api:
    """What the tests ask of a simulator."""

    def __init__(self, sim: Simulator, http: httpx.AsyncClient) -> None:
        self.sim = sim
        self.http = http

    async def create(self, code: str = "pass", **fields: Any) -> dict[str, Any]:
        response = await self.http.post("/sessions", json={"code": code, **fields})
        assert response.status_code == 201, response.text
        return response.json()

    async def events(self, session_id: str, **headers: str) -> list[dict[str, str]]:
        """The whole stream, to its end."""
        response = await self.http.get(f"/sessions/{session_id}/stream", headers=headers)
        assert response.status_code == 200, response.text
        return parse_events(response.content)

    async def frames(self, session_id: str, **headers: str) -> list[dict[str, Any]]:
        return [json.loads(event["data"]) for event in await self.events(session_id, **headers)]

    async def run(self, code: str, **fields: Any) -> Run:
        """Create a session and wait for its end."""
        with anyio.fail_after(PATIENCE_SECONDS):
            session = await self.create(code, **fields)
            frames = await self.frames(session["id"])
            session = (await self.http.get(f"/sessions/{session['id']}")).json()
            audit = (await self.http.get(f"/sessions/{session['id']}/audit")).json()
        return Run(session, frames, audit)

    async def gives_users(self) -> bool:
        """Whether workloads have a user id of their own."""
        run = await self.run("import os; print(os.geteuid())")
        return int(run.output()) != os.geteuid()

    @asynccontextmanager
    async def open_stream(self, session_id: str, **headers: str) -> AsyncIterator[LiveStream]:
        """A live stream over a socket of its own. httpx leaves generators behind unless it is read to the end."""
        url = self.http.base_url
        async with await anyio.connect_tcp(url.host, url.port) as socket:
            stream = LiveStream(socket)
            await stream.request(f"/sessions/{session_id}/stream", {**self.http.headers, **headers})
            yield stream


class LiveStream:
    """One response, read as it comes."""

    def __init__(self, socket: anyio.abc.SocketStream) -> None:
        self._socket = socket
        self._http = h11.Connection(h11.CLIENT)
        self._unread = b""

    async def request(self, path: str, headers: dict[str, str]) -> None:
        request = h11.Request(method="GET", target=path, headers=list(({"host": "localhost"} | headers).items()))
        await self._socket.send(self._http.send(request) + self._http.send(h11.EndOfMessage()))
        response = await self._event()
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}

    async def read(self) -> bytes:
        """Some bytes of the body, or none at its orderly end.

        Raises:
            h11.RemoteProtocolError: the connection closed before that.
        """
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                self._http.receive_data(await self._socket.receive())
            except anyio.EndOfStream:
                self._http.receive_data(b"")
        return event

    def __aiter__(self) -> LiveStream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while b"\n\n" not in self._unread:
            data = await self.read()
            if not data:
                raise StopAsyncIteration
            self._unread += data
        event, _, self._unread = self._unread.partition(b"\n\n")
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
        return json.loads(fields[b"data"]) if b"data" in fields else await anext(self)


class Run:
    """A session that has ended."""

    def __init__(self, session: dict[str, Any], frames: list[dict[str, Any]], audit: list[dict[str, Any]]) -> None:
        self.session = session
        self.id: str = session["id"]
        self.phase: str = session["phase"]
        self.result: dict[str, Any] = session.get("result", {})
        self.frames = frames
        self.audit = audit

    @property
    def trail(self) -> list[str]:
        return [entry["type"] for entry in self.audit]

    @property
    def isolation(self) -> dict[str, bool]:
        """Which namespaces it had."""
        return self.audit[1]["detail"]["isolation"]

    def output(self, kind: str = "stdout") -> str:
        return "".join(frame["data"] for frame in self.frames if frame["kind"] == kind)

    def egress(self) -> list[tuple[str, str]]:
        return [(entry["type"], entry["detail"]["host"]) for entry in self.audit if "egress" in entry["type"]]


def _leftovers(session_id: str) -> list[str]:
    """What is left of a session's workload: processes that carry its id, and directories."""
    found = [str(path) for path in Path(tempfile.gettempdir()).glob(f"enclave-simulator-*/{session_id}")]
    for process in psutil.process_iter():
        try:
            if process.environ().get("ENCLAVE_SESSION_ID") == session_id:
                found.append(repr(process))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@asynccontextmanager
async def _serving(**options: Any) -> AsyncIterator[Api]:
    async with Simulator(**options).serve() as sim:
        headers = {"authorization": f"Bearer {sim.api_key}"}
        async with httpx.AsyncClient(
            base_url=sim.base_url, headers=headers, timeout=PATIENCE_SECONDS, verify=NO_TLS
        ) as http:
            yield Api(sim, http)


@pytest.fixture
def serving():
    """`async with serving(**options_of_Simulator) as api:`."""
    return _serving


@pytest.fixture
def nothing_left():
    """`nothing_left(session_id)` fails if a process or a directory is left of the session."""

    def check(session_id: str) -> None:
        assert _leftovers(session_id) == []

    return check


@pytest.fixture
def leftovers():
    """`leftovers(session_id)` lists them."""
    return _leftovers
