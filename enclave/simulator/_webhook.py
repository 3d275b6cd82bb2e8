"""The POST to a session's `webhookUrl` when the session has finished. There is one attempt, bounded in time.

The product does not document the body. This one is ours:

    {"type": "session.finished", "sessionId": "s-…", "orgId": "…", "phase": "succeeded", "killReason": null,
     "labels": {…}, "result": {"exitCode": 0, "json": …, "stdout": "…", "stderr": "…", "durationMs": 12.5}}

The audit trail says how it went, as `webhook_delivered` or `webhook_failed`. Neither changes the session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from enclave.types import SessionPhase

from ._session import SimulatedSession

WEBHOOK_SECONDS = 10.0
HEADERS = {"content-type": "application/json", "user-agent": "enclave-simulator"}

logger = logging.getLogger(__name__)


class _Finished(msgspec.Struct, rename="camel", kw_only=True):
    type: str = "session.finished"
    session_id: str
    org_id: str
    phase: SessionPhase
    kill_reason: str | None
    labels: Mapping[str, str]
    result: Any


async def deliver(session: SimulatedSession) -> None:
    """POST the outcome of a finished session, and record how that went. Raises nothing but cancellation."""
    url = session.request.webhook_url
    if url is None or session.result is None:
        return
    import httpx  # noqa: PLC0415 - slow to load, and few sessions have a webhook

    body = _Finished(
        session_id=session.id,
        org_id=session.org_id,
        phase=session.phase,
        kill_reason=session.kill_reason,
        labels=session.request.labels or {},
        result=session.result,
    )
    try:
        with anyio.fail_after(WEBHOOK_SECONDS):
            status = await _post(url, msgspec.json.encode(body))
    except TimeoutError:
        _note_failure(session, "no answer in time")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        _note_failure(session, f"{type(error).__name__}: {error}")
    else:
        if httpx.codes.is_success(status):
            session.record("webhook_delivered", {"status": status})
        else:
            _note_failure(session, f"answered {status}")


def _note_failure(session: SimulatedSession, problem: str) -> None:
    logger.warning("webhook of session %s failed: %s", session.id, problem)
    session.record("webhook_failed", {"error": problem})


async def _post(url: str, body: bytes) -> int:
    import httpx  # noqa: PLC0415 - see deliver

    # The proxies of the environment are not for webhooks, most of which stay on this machine. Certificates are loaded
    # for https alone, because that takes a tenth of a second, and the event loop stands still meanwhile.
    needs_certificates = httpx.URL(url).scheme == "https"
    async with (
        httpx.AsyncClient(timeout=None, trust_env=False, verify=needs_certificates) as client,  # noqa: S113, see deliver
        client.stream("POST", url, content=body, headers=HEADERS) as response,
    ):
        return response.status_code  # the body is left unread, however long it is
