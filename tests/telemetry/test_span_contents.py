"""What spans never show, what they show only where that was asked for, and what the docs say of it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import anyio
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from enclave import (
    BadRequestError,
    EnclaveClient,
    ResultTypeError,
    RetryPolicy,
    StdoutFrame,
    WorkloadFailed,
)
from enclave.opentelemetry import MAX_CONTENT_BYTES, OpenTelemetryObserver
from enclave.simulator import Simulator
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.spans import Tracing, attributes

ROOT = Path(__file__).parent.parent.parent


def client_of(sim: Simulator, tracing: Tracing, *, retry: RetryPolicy | None = NO_WAITS, **options) -> EnclaveClient:
    observer = OpenTelemetryObserver(tracing.provider, **options)
    return EnclaveClient(sim.base_url, api_key=sim.api_key, retry=retry, observer=observer)


CODE = """
import sys
print("MARKER-output")
print("MARKER-errors", file=sys.stderr)
enclave.result({"answer": "MARKER-value"})
# MARKER-code
"""


async def test_no_code_output_label_value_message_or_credential_is_in_any_span(sim, tracing, caplog):
    api_key = sim.api_key
    sim.faults.respond(503, method="DELETE", body=b'{"message": "MARKER-body"}')
    sim.faults.inject(b"data: MARKER-malformed\n\n", after_frames=1)
    with anyio.fail_after(PATIENCE_SECONDS), caplog.at_level(logging.CRITICAL, "enclave"):
        async with client_of(sim, tracing) as client:
            with pytest.raises(ResultTypeError, match="list"):
                async with client.session(CODE, labels={"MARKER-name": "MARKER-label"}) as session:
                    await session.result(list[int])
            async with client.session("print('MARKER-last'); raise SystemExit(7)") as session:
                async with session.stream() as frames:
                    async for _ in frames:
                        pass
                with pytest.raises(WorkloadFailed):
                    (await session.result()).raise_for_exit()
            sim.faults.respond(400, body=b'{"message": "MARKER-refused"}')
            with pytest.raises(BadRequestError, match="MARKER-refused"):
                await client.list()
    dump = tracing.dump()
    assert len(tracing.spans) > 10
    assert "MARKER" not in dump
    assert api_key not in dump
    assert api_key.split("_", 2)[2] not in dump
    assert "uthorization" not in dump


async def test_code_and_messages_are_there_where_they_were_asked_for_within_a_bound(sim, tracing):
    sim.faults.respond(400, method="GET", path="/sessions", body=b'{"message": "MARKER-refused"}')
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing, capture_content=True) as client:
            with pytest.raises(BadRequestError):
                await client.list()
            sim.script(hold=True)
            with pytest.raises(RuntimeError):
                async with client.session("# MARKER-code\n" + "é" * 5000):
                    raise RuntimeError("MARKER-" + "ü" * 5000)
            sim.script([StdoutFrame("MARKER-output")], result="MARKER-value")
            async with client.session("y", labels={"a": "MARKER-label"}) as session:
                await session.result()
    span, _ = tracing.named("enclave.session")
    code = attributes(span)["enclave.session.code"]
    assert code.startswith("# MARKER-code\néé")
    assert MAX_CONTENT_BYTES - 2 <= len(code.encode()) <= MAX_CONTENT_BYTES
    assert span.status.description.startswith("MARKER-üü")
    assert len(span.status.description.encode()) <= MAX_CONTENT_BYTES
    assert "MARKER-refused" in tracing.one("GET /sessions").status.description
    dump = tracing.dump()
    assert not [text for text in ("MARKER-output", "MARKER-value", "MARKER-label", sim.api_key) if text in dump]


def test_the_page_names_every_attribute_and_the_bound():
    page = (ROOT / "docs" / "telemetry.md").read_text()
    source = (ROOT / "enclave" / "opentelemetry.py").read_text()
    names = set(re.findall(r'"((?:enclave|http|url|server|error)\.[a-z_.]+)"', source))
    assert len(names) > 20
    missing = {name for name in names if f"`{name}`" not in page and f"`.{name.rpartition('.')[2]}`" not in page}
    assert not missing
    assert f"{MAX_CONTENT_BYTES} bytes" in page
