"""The POST to a session's `webhookUrl` when it finished. One attempt over h11 and anyio, bounded in time.

The body (the product's is not documented, this one is ours):

    {"type": "session.finished", "sessionId": "s-…", "orgId": "…", "phase": "succeeded", "killReason": null,
     "labels": {…}, "result": {"exitCode": 0, "json": …, "stdout": "…", "stderr": "…", "durationMs": 12.5}}

A failure is logged and goes into the trail as `webhook_failed`; success is `webhook_delivered`. Neither changes the
session. Redirects are not followed.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any
from urllib.parse import urlsplit

import anyio
import h11
import msgspec

from ._session import SimulatedSession

WEBHOOK_SECONDS = 10.0
READ_BYTES = 65_536

logger = logging.getLogger(__name__)


async def deliver(session: SimulatedSession) -> None:
    """POST the outcome of a finished session and record how that went. Raises nothing but cancellation."""
    if session.request.webhook_url is None or session.result is None:
        return
    problem = "no answer in time"
    status = None
    with anyio.move_on_after(WEBHOOK_SECONDS):
        try:
            status = await _post(session.request.webhook_url, _body(session))
            problem = "" if 200 <= status < 300 else f"answered {status}"  # noqa: PLR2004 - the 2xx range
        except (OSError, ValueError, h11.ProtocolError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            problem = f"{type(error).__name__}: {error}"
    if problem:
        logger.warning("webhook of session %s failed: %s", session.id, problem)
        session.record("webhook_failed", {"error": problem})
    else:
        session.record("webhook_delivered", {"status": status})


def _body(session: SimulatedSession) -> bytes:
    document: dict[str, Any] = {
        "type": "session.finished",
        "sessionId": session.id,
        "orgId": session.org_id,
        "phase": session.phase.value,
        "killReason": session.kill_reason,
        "labels": session.request.labels,
        "result": session.result,
    }
    return msgspec.json.encode(document)


async def _post(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    host = parts.hostname or ""
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    stream = await (
        anyio.connect_tcp(host, port, ssl_context=tls, tls_hostname=host) if tls else anyio.connect_tcp(host, port)
    )
    connection = h11.Connection(h11.CLIENT)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [
        ("host", parts.netloc.rpartition("@")[2]),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("user-agent", "enclave-simulator"),
        ("connection", "close"),
    ]
    request = h11.Request(method="POST", target=target, headers=headers)
    events = [request, h11.Data(data=body), h11.EndOfMessage()]
    async with stream:
        await stream.send(b"".join(connection.send(event) or b"" for event in events))
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive(READ_BYTES))
