"""The console: who is let in, and what a real browser shows."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from enclave import AuditEvent, AuditFrame, StderrFrame, StdoutFrame
from enclave.pytest_plugin import LiveSimulator
from enclave.simulator import Simulator
from tests.simulator.conftest import NO_TLS
from tests.support import PATIENCE_SECONDS
from tests.support.browser import Page, browser_page

FILES = ["/", "/console.css", "/console.js", "/api.js", "/detail.js", "/list.js", "/text.js"]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
def page(tmp_path, enclave_simulator):
    """The console in a browser, opened by the link that the simulator prints."""
    with browser_page(tmp_path / "profile") as page:
        page.open(enclave_simulator.simulator.console_url)
        page.until("document.getElementById('status').textContent.includes('session')")
        yield page


def create_scripted(simulator: LiveSimulator, count: int) -> None:
    headers = {"authorization": f"Bearer {simulator.api_key}"}
    with httpx.Client(base_url=simulator.base_url, headers=headers, verify=NO_TLS, timeout=PATIENCE_SECONDS) as client:
        for _ in range(count):
            simulator.script()
            assert client.post("/sessions", json={"code": "scripted"}).status_code == 201


def run(page: Page, code: str) -> None:
    page.evaluate(f"document.getElementById('code').value = {json.dumps(code)}; document.getElementById('run').click()")
    page.until("!document.getElementById('run').disabled && !document.getElementById('detail').hidden")


def text(element_id: str) -> str:
    return f"document.getElementById('{element_id}').textContent"


def output(page: Page, stream: str) -> str:
    """What is shown of a stream. A line may come in two frames."""
    return page.evaluate(
        f"[...document.querySelectorAll('#output .{stream}')].map((piece) => piece.textContent).join('')"
    )


def rows(page: Page) -> list[list[str]]:
    return page.evaluate(
        "[...document.querySelectorAll('#rows tr')]"
        ".map((row) => [...row.children].slice(0, 3).map((cell) => cell.textContent))"
    )


@pytest.fixture(scope="module")
def http():
    with httpx.Client(verify=NO_TLS, timeout=PATIENCE_SECONDS) as client:
        yield client


# Who is let in


@pytest.mark.parametrize("path", FILES)
def test_every_file_forbids_scripts_and_requests_of_elsewhere(enclave_simulator, http, path):
    answer = http.get(enclave_simulator.base_url + path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(https?:)?//[a-z]", answer.text.replace("http://www.w3.org/2000/svg", "").replace("// ", ""))


@pytest.mark.parametrize("path", ["/", "/healthz", "/sessions"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.0.2.1", "localhost.evil.example", "[", ""])
def test_a_name_that_was_rebound_to_this_machine_is_refused(enclave_simulator, http, path, host):
    headers = {"host": host, "authorization": f"Bearer {enclave_simulator.api_key}"}
    answer = http.get(enclave_simulator.base_url + path, headers=headers)
    assert (answer.status_code, answer.json()["message"].split(":")[0]) == (403, "host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8088"])
def test_every_name_of_this_machine_is_let_in(enclave_simulator, http, host):
    assert http.get(f"{enclave_simulator.base_url}/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused(enclave_simulator, http, origin):
    headers = {"origin": origin, "authorization": f"Bearer {enclave_simulator.api_key}"}
    answer = http.post(f"{enclave_simulator.base_url}/sessions", headers=headers, json={"code": "pass"})
    assert (answer.status_code, enclave_simulator.phases) == (403, {})


async def test_a_simulator_that_is_served_to_others_takes_every_name_and_still_no_other_origin():
    async with (
        Simulator().serve(host="0.0.0.0", allow_remote=True) as simulator,
        httpx.AsyncClient(base_url=simulator.base_url.replace("0.0.0.0", "127.0.0.1")) as client,
    ):
        assert (await client.get("/healthz", headers={"host": "simulator:8088"})).status_code == 200
        own = {"host": "simulator:8088", "origin": "http://simulator:8088"}
        assert (await client.get("/healthz", headers=own)).status_code == 200
        other = {"host": "simulator:8088", "origin": "http://evil.example"}
        assert (await client.get("/healthz", headers=other)).status_code == 403


# What a browser shows


@pytest.mark.browser
def test_a_browser_runs_code_and_shows_output_result_and_denied_egress(enclave_simulator, page):
    code = (
        "import socket, sys\n"
        "try: socket.create_connection(('203.0.113.9', 80))\n"
        "except OSError: print('denied', file=sys.stderr)\n"
        f"print({HOSTILE!r} + '\\x1b[31m')\n"
        "enclave.result({'total': 285})\n"
    )
    run(page, code)
    page.until(f"{text('result')}.includes('285') && document.querySelector('.denied')")
    assert output(page, "stderr") == "denied\n"
    assert output(page, "stdout") == f"{HOSTILE}^[[31m\n"
    assert page.evaluate("document.querySelector('#output img, #output script')") is None
    assert "203.0.113.9" in page.evaluate("document.querySelector('.denied').textContent")
    page.until(f"{text('facts')}.includes('succeeded') && {text('facts')}.includes('Exit code')")
    assert page.errors == []


@pytest.mark.browser
def test_what_an_open_page_asks_by_itself_is_not_logged(enclave_simulator, page, caplog):
    with caplog.at_level("INFO", logger="enclave.simulator.requests"):
        asked = len(enclave_simulator.requests)
        run(page, "print(1)")
        page.until(f"{text('output')}.includes('1')")
    polls = [request for request in list(enclave_simulator.requests)[asked:] if request.path == "/sessions"]
    assert [request.method for request in polls].count("GET") >= 1
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("POST /sessions 201") for line in lines)
    assert not any(line.startswith("GET /sessions 200") for line in lines)


@pytest.mark.browser
def test_the_key_stays_in_the_tab_and_a_reload_goes_on_where_it_was(enclave_simulator, page):
    script = enclave_simulator.script(hold=True)
    script.push(StdoutFrame("first\n"))
    run(page, "scripted")
    page.until(f"{text('output')} === 'first\\n'")
    assert enclave_simulator.api_key not in page.evaluate("location.href")
    assert page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
    page.reload()
    page.until(f"{text('output')} === 'first\\n'")
    script.push(StderrFrame("second\n"))
    page.until(f"{text('output')} === 'first\\nsecond\\n'")
    assert page.evaluate("document.querySelector('#rows tr').getAttribute('aria-current')") == "true"
    page.evaluate("document.getElementById('tear-down').click()")
    page.until(f"{text('facts')}.includes('torn_down') && {text('trail')}.includes('session_torn_down')")
    assert list(enclave_simulator.phases.values()) == ["torn_down"]
    assert page.errors == []


@pytest.mark.browser
def test_a_key_that_is_not_known_is_asked_for_again(enclave_simulator, tmp_path):
    with browser_page(tmp_path / "profile") as page:
        page.open(f"{enclave_simulator.base_url}/#key=ek_other_0123456789")
        page.until(f"{text('status')}.includes('does not know this key')")
        page.evaluate(
            f"document.getElementById('key').value = {json.dumps(enclave_simulator.api_key)};"
            "document.querySelector('#key-form button').click()"
        )
        page.until(f"{text('status')} === '0 sessions, 0 live'")


@pytest.mark.browser
def test_a_request_that_is_refused_says_why(page):
    page.evaluate("document.getElementById('memoryMb').value = '99999999'")
    page.evaluate("document.getElementById('run').click()")
    page.until(f"{text('run-error')}.includes('memoryMb')")
    assert page.evaluate("document.getElementById('detail').hidden")


@pytest.mark.browser
def test_the_box_runs_node_with_limits_and_allowed_networks(page):
    page.evaluate("document.getElementById('language').value = 'node'")
    page.evaluate("document.getElementById('wallClockMs').value = '60000'")
    page.evaluate("document.getElementById('allow').value = '203.0.113.0/24, 198.51.100.7/32'")
    run(page, "console.log(process.versions.node)")
    page.until(f"{text('facts')}.includes('succeeded')")
    facts = page.evaluate(text("facts"))
    for shown in ("node", "wallClockMs 60000", "203.0.113.0/24", "198.51.100.7/32"):
        assert shown in facts
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", output(page, "stdout"))
    [[_, phase, language]] = rows(page)
    assert (phase, language) == ("succeeded", "node")
    assert page.evaluate("document.querySelector('#rows rect').getBoundingClientRect().width") > 0
    assert re.fullmatch(r"\d+ s", page.evaluate("document.querySelector('#rows .number').textContent"))


@pytest.mark.browser
def test_a_limit_given_in_the_box_is_held(page):
    page.evaluate("document.getElementById('wallClockMs').value = '300'")
    run(page, "while True: pass")
    page.until(f"{text('facts')}.includes('killed') && {text('facts')}.includes('wall_clock_exceeded')")


@pytest.mark.browser
def test_killed_is_shown_with_its_reason(enclave_simulator, page):
    enclave_simulator.script(kill_reason="memory_exceeded")
    run(page, "scripted")
    page.until(f"{text('facts')}.includes('killed') && {text('facts')}.includes('memory_exceeded')")
    assert rows(page)[0][1:] == ["killed", "python"]


@pytest.mark.browser
def test_many_sessions_are_bounded_rows_and_the_keyboard_moves_among_them(enclave_simulator, page):
    create_scripted(enclave_simulator, 505)
    page.until("document.querySelectorAll('#rows tr').length === 500")
    page.until(f"{text('status')}.startsWith('505 sessions')")
    assert page.evaluate(text("rows-note")) == "5 older sessions are not shown."
    newest_first = list(enclave_simulator.phases)[::-1]
    assert [row[0] for row in rows(page)] == newest_first[:500]
    tab_stops = "[...document.querySelectorAll('#rows button')].filter((button) => button.tabIndex === 0).length"
    assert page.evaluate(tab_stops) == 1
    page.evaluate("document.querySelector('#rows button').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.press(key)
    page.until(f"{text('detail-title')} === {json.dumps(newest_first[1])}")
    page.press("End")
    assert page.evaluate("document.activeElement.textContent") == newest_first[499]


@pytest.mark.browser
def test_a_flood_of_output_is_bounded_text_drawn_ten_times_a_second_at_most(enclave_simulator, page):
    # Every line is a read of its own, as far as the browser goes.
    page.evaluate(
        "window.draws = 0; window.began = performance.now();"
        "new MutationObserver(() => draws++).observe(document.getElementById('output'), {childList: true})"
    )
    run(page, "for n in range(60_000): print(f'line {n:06}')\nenclave.result('done')")
    page.until(f"{text('output')}.endsWith('line 059999\\n') && {text('result')}.includes('done')")
    assert page.evaluate(f"{text('output')}.length") < 250_000
    assert page.evaluate("document.getElementById('output').firstChild.textContent") == "Older output is not shown.\n"
    draws, seconds = page.evaluate("[draws, (performance.now() - began) / 1000]")
    assert 0 < draws <= 10 * seconds + 1
    assert page.errors == []


@pytest.mark.browser
def test_a_long_trail_is_bounded_and_says_how_much_is_left_out(enclave_simulator, page):
    event = AuditEvent(type="egress_denied", detail={"host": HOSTILE})
    enclave_simulator.script([AuditFrame(event)] * 600)
    run(page, "scripted")
    page.until(f"{text('trail-note')}.includes('more entries are not shown')")
    assert page.evaluate("document.querySelectorAll('#trail tr').length") == 500
    assert page.evaluate("document.querySelector('#trail img')") is None


CONTRAST = """(() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const weak = [];
  for (const node of document.querySelectorAll("body *")) {
    const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!hasText || !node.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) weak.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return weak;
})()"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_it_can_be_read_on_every_screen_and_by_a_screen_reader(enclave_simulator, page, scheme, width):
    page.show_as(width=width, height=900, scheme=scheme)
    for phase in ({}, {"exit_code": 3}, {"kill_reason": "cpu_exceeded"}, {"hold": True}):
        enclave_simulator.script([StdoutFrame("out\n"), StderrFrame("err\n")], **phase)
        run(page, "scripted")
    page.until(f"{text('output')} === 'out\\nerr\\n' && document.querySelectorAll('#rows tr').length === 4")
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    found = page.accessible()
    controls = [name for role, name in found if role in ("button", "textbox", "combobox", "spinbutton", "region")]
    assert len(controls) > 12
    assert all(controls)
    assert {"Run code", "Sessions", "Output", "Result"} <= {name for role, name in found if role == "heading"}
