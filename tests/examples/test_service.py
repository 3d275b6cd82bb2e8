"""The web service relays frames to whoever posted the code, and no session outlives the request it came with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.browser import browser_page

pytest.importorskip("uvicorn", reason="the service's example needs uvicorn")

pytestmark = pytest.mark.guides
ROOT = Path(__file__).parent.parent.parent
TIMEOUT_SECONDS = 60.0
ENDLESS = "import time\nprint('up', flush=True)\ntime.sleep(600)"


class Service:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def phases(self) -> list[str]:
        return [session["phase"] for session in httpx.get(f"{self.url}sessions", timeout=TIMEOUT_SECONDS).json()]

    def wait_for(self, *phases: str) -> None:
        """Each look is a round trip, so this ends within a few of them."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (seen := self.phases()) != list(phases):
            assert time.monotonic() < deadline, seen

    def stop(self) -> str:
        """Ask it to stop. Gives what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=TIMEOUT_SECONDS)
        assert self.process.returncode in (0, -signal.SIGTERM)
        return errors


@pytest.fixture
def service() -> Iterator[Service]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ENCLAVE_")}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "examples/service_starlette.py", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as process:
        try:
            yield Service(process, process.stdout.readline().strip())
        finally:
            process.kill()


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict]]:
    """The events of a response, each with its name."""
    while name := next(lines, ""):
        data = next(lines)
        assert (name[:7], data[:6], next(lines)) == ("event: ", "data: ", "")
        yield name[7:], json.loads(data[6:])


def posting(service: Service, code: str, **fields: str):
    return httpx.stream("POST", f"{service.url}run", json={"code": code, **fields}, timeout=TIMEOUT_SECONDS)


def test_frames_are_relayed_while_the_code_runs_and_end_with_its_result(service, tmp_path) -> None:
    seen = tmp_path / "seen"
    wait = f"while not pathlib.Path({str(seen)!r}).exists():\n    time.sleep(0.01)"
    with posting(service, f"import pathlib, time\nprint('one')\n{wait}\nenclave.result({{'n': 1}})") as response:
        assert response.headers["content-type"] == "text/event-stream"
        relayed = events(response.iter_lines())
        assert next(relayed)[0] == "session"
        frames = []
        for name, frame in relayed:
            assert name == "frame"
            frames.append(frame)
            if frame["kind"] == "stdout" and not seen.exists():
                assert service.phases() == ["running"]
                seen.touch()
    assert "".join(frame["data"] for frame in frames if frame["kind"] == "stdout") == "one\n"
    assert [frame["result"]["json"] for frame in frames if frame["kind"] == "result"] == [{"n": 1}]
    assert frames[-1]["kind"] == "end"
    assert service.phases() == ["torn_down"]
    assert service.stop() == ""


def test_a_client_that_leaves_has_its_session_torn_down(service) -> None:
    with posting(service, ENDLESS) as response:
        relayed = events(response.iter_lines())
        while "up" not in next(relayed)[1].get("data", ""):
            pass
        assert service.phases() == ["running"]
    service.wait_for("torn_down")
    assert service.stop() == ""


def test_a_service_that_stops_ends_its_runs_first_and_in_good_order(service) -> None:
    with posting(service, ENDLESS) as response:
        relayed = events(response.iter_lines())
        while "up" not in next(relayed)[1].get("data", ""):
            pass
        service.process.send_signal(signal.SIGTERM)
        assert "end" not in [frame.get("kind") for _, frame in relayed]
    assert service.stop() == ""


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"code": "print(1)"}', "text/plain", 415),
        (b'{"code": 1}', "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"code": "print(1)", "limits": {"memoryMb": 99999}}', "application/json", 400),
        (b'{"code": "' + b"x" * 300_000 + b'"}', "application/json", 413),
    ],
)
def test_what_is_no_program_is_refused_and_no_session_is_made(service, body, content_type, status) -> None:
    response = httpx.post(
        f"{service.url}run", content=body, headers={"content-type": content_type}, timeout=TIMEOUT_SECONDS
    )
    assert (response.status_code, response.json()["message"] != "") == (status, True)
    assert service.phases() == []


def test_a_service_that_is_busy_says_when_to_come_back(service) -> None:
    with ExitStack() as running:
        streams = [events(running.enter_context(posting(service, ENDLESS)).iter_lines()) for _ in range(8)]
        assert [next(relayed)[0] for relayed in streams] == ["session"] * 8
        refused = httpx.post(f"{service.url}run", json={"code": ENDLESS}, timeout=TIMEOUT_SECONDS)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    service.wait_for(*["torn_down"] * 8)


@pytest.mark.browser
def test_a_browser_shows_output_and_result_and_its_stop_button_tears_down(service, tmp_path) -> None:
    markup = "<img src=x onerror=alert(1)>"
    hostile = f"print({markup!r})\nenclave.result({{'n': 285}})"
    with browser_page(tmp_path / "profile") as page:
        page.open(service.url)
        page.evaluate(f"document.forms[0].code.value = {json.dumps(hostile)}; document.forms[0].start.click()")
        page.until("document.querySelector('pre').dataset.ended")
        # A line may come in two frames.
        pieces = "[...document.querySelectorAll('pre .stdout')].map((piece) => piece.textContent)"
        assert "".join(page.evaluate(pieces)) == f"{markup}\n"
        assert page.evaluate("document.querySelector('pre .result').textContent") == 'result: {"n":285}\n'
        assert page.evaluate("document.querySelector('pre img')") is None
        assert page.evaluate("document.querySelector('[role=status]').textContent") == "succeeded"

        page.until("!document.forms[0].start.disabled")  # the button comes back a moment after the last frame
        page.evaluate(f"document.forms[0].code.value = {json.dumps(ENDLESS)}; document.forms[0].start.click()")
        page.until("document.querySelector('pre .stdout')?.textContent.startsWith('up')")
        assert service.phases() == ["running", "torn_down"]
        page.evaluate("document.forms[0].stop.click()")
        page.until("document.querySelector('[role=status]').textContent === 'stopped'")
        service.wait_for("torn_down", "torn_down")
    assert service.stop() == ""
