"""How sessions, results, outcomes and lists of them show themselves: short lines, and tables in a notebook."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from enclave import (
    AuditEvent,
    AuditFrame,
    AuditType,
    Completed,
    CreateSessionRequest,
    EgressPolicy,
    EndFrame,
    Errored,
    KillReason,
    Listing,
    ResultFrame,
    Session,
    SessionLimits,
    SessionPhase,
    SessionResult,
    StderrFrame,
    StdoutFrame,
    SweepResult,
    UnknownFrame,
    Verdict,
)
from enclave._create import CREATE_LABEL

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "\" onmouseover=alert(1) x='",
    "&lt;b&gt; <!-- -->",
    "\x1b[2J\x00\x07\x9b",
    "\u202eright to left\u2066\u200f",
    "javascript:alert(1)",
    "$$\\href{javascript:alert(1)}{x}$$",
]
LONG = "<b>" * 200_000


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def session(text: str = "s-1") -> Session:
    return Session(
        id=text,
        phase=SessionPhase.SUCCEEDED,
        org_id=text,
        language=text,
        labels={text: text},
        created_at=NOON,
        limits=SessionLimits(memory_mb=256),
        extra={text: [text]},
    )


def result(text: str = "said", value: Any = 7) -> SessionResult[Any]:
    return SessionResult(
        exit_code=0, value=value, stdout=text, stderr=text, duration_ms=12.5, phase=SessionPhase.SUCCEEDED
    )


def completed(text: str = "said", value: Any = 7, index: int = 0) -> Completed[Any]:
    return Completed(
        index=index,
        request=CreateSessionRequest(code="print(1)", labels={"a": "b"}),
        session_id="s-1",
        result=result(text, value),
        verdict=Verdict.SUCCEEDED,
        duration_seconds=0.12345,
        teardown_error=RuntimeError(text),
    )


def errored(text: str = "said") -> Errored:
    return Errored(
        index=1,
        request=text,
        session_id=None,
        error=RuntimeError(text),
        verdict=Verdict.INFRASTRUCTURE,
        duration_seconds=1.0,
    )


def event(text: str = "example.org") -> AuditEvent:
    return AuditEvent(type=AuditType(text), ts=NOON, session_id=text, detail={"host": text}, extra={text: text})


def sweep(text: str = "s-1") -> SweepResult:
    return SweepResult([text], {text: RuntimeError(text)})


MAKERS = [session, result, completed, errored, event, sweep]


class Page(HTMLParser):
    """The rows of a page's table, and all its tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data
        else:
            self.text += data


def page(shown: Any) -> Page:
    html = shown._repr_html_()
    assert isinstance(html, str)
    return Page(html)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_acts_on_the_page_or_on_the_terminal(make, text):
    for shown in (make(text), Listing([make(text)])):
        table = page(shown)
        assert table.tags <= {"p", "table", "tbody", "tr", "th", "td"}
        assert table.attributes <= {"scope", "style"}
        for cell in (cell for row in table.rows for cell in row):
            assert cell.replace("\n", "").isprintable()
        assert repr(shown).isprintable()


def test_half_an_emoji_in_an_error_of_somebody_elses_is_shown_escaped():
    assert ["error", "RuntimeError('\\ud83d')"] in page(errored("\ud83d")).rows
    assert "\\ud83d" in page(result("\ud83d")).rows[3][1]


def test_what_is_escaped_reads_as_it_was_written():
    for text in HOSTILE[:4]:
        assert ["stdout", text] in page(result(text)).rows
        assert text in page(Listing([result(text)])).rows[1]


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_shown_is_short_however_much_there_is(make):
    assert len(repr(make(LONG))) < 700
    assert len(repr(Listing([make(LONG)] * 1000))) < 20_000
    assert len(make(LONG)._repr_html_()) < 100_000
    assert len(Listing([make(LONG)] * 1000)._repr_html_()) < 500_000


@pytest.mark.parametrize(
    "value", [LONG, LONG.encode(), [LONG] * 1000, {LONG: LONG}, list(range(10**6)), deep(900), 10**4000, (1,) * 10**6]
)
def test_a_value_is_shown_up_to_a_bound(value):
    assert len(repr(completed(value=value))) < 300
    assert len(repr(result(value=value))) < 300
    (cell,) = [row[1] for row in page(result(value=value)).rows if row[0] == "value"]
    assert len(cell) < 2100


def test_a_nested_value_is_shown_to_a_depth():
    assert f"value={'[' * 20}…{']' * 20}, " in repr(result(value=deep(30)))
    nested: Any = 1
    for _ in range(25):
        nested = {"": nested}
    (cell,) = [row[1] for row in page(result(value=nested)).rows if row[0] == "value"]
    assert cell == "{'': " * 20 + "…" + "}" * 20


def test_a_text_as_long_as_the_bound_is_shown_whole_and_a_longer_one_says_what_is_left_out():
    assert ["stdout", "x" * 2000] in page(result("x" * 2000)).rows
    assert ["stdout", "x" * 2000 + "… and 1 more"] in page(result("x" * 2001)).rows


def test_a_large_value_costs_no_more_than_what_is_shown_of_it():
    class Costly(list[int]):
        pass

    seen = 0

    class Number(int):
        def __repr__(self) -> str:
            nonlocal seen
            seen += 1
            return "1"

    repr(result(value=[Number(1)] * 10_000))
    assert 0 < seen < 100


def test_lines_say_what_matters_and_leave_out_what_is_not_there():
    assert repr(session()) == (
        "Session(id='s-1', phase='succeeded', language='s-1', labels={'s-1': 's-1'}, "
        "created_at=2026-01-02 12:00:00+00:00)"
    )
    assert repr(Session(id="s-1")) == "Session(id='s-1')"
    assert repr(result()) == (
        "SessionResult(ended_as='succeeded', exit_code=0, value=7, stdout='said', stderr='said', duration_ms=12.5)"
    )
    killed = SessionResult[Any](phase=SessionPhase.KILLED, kill_reason=KillReason.MEMORY_EXCEEDED)
    assert repr(killed) == "SessionResult(ended_as='killed', kill_reason='memory_exceeded')"
    assert repr(AuditEvent(type=AuditType.EGRESS_DENIED, detail={"host": "x"})) == (
        "AuditEvent(type='egress_denied', detail={'host': 'x'})"
    )
    assert repr(sweep()) == "<SweepResult 1 swept ['s-1'], 1 failed {'s-1': RuntimeError('s-1')}>"
    assert repr(SweepResult([], {})) == "<SweepResult 0 swept [], 0 failed>"


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (StdoutFrame("hi\n"), "StdoutFrame(data='hi\\n')"),
        (StderrFrame("x" * 1000), f"StderrFrame(data='{'x' * 99}…)"),
        (EndFrame(), "EndFrame()"),
        (UnknownFrame("new", b"{}"), "UnknownFrame(kind='new', raw=b'{}')"),
        (ResultFrame(SessionResult(exit_code=3)), "ResultFrame(result=SessionResult(ended_as='failed', exit_code=3))"),
        (
            AuditFrame(AuditEvent(detail={"host": "example.org", "why": "x" * 50})),
            f"AuditFrame(event=AuditEvent(detail={{'host': 'example.org', 'why': '{'x' * 50}'}}))",
        ),
        (EgressPolicy.allowlist("10.0.0.0/8"), "EgressPolicy(mode='allowlist', allow=('10.0.0.0/8',))"),
        (SessionLimits(pids=3), "SessionLimits(pids=3)"),
        (CreateSessionRequest(code="x"), "CreateSessionRequest(code='x')"),
    ],
)
def test_the_other_types_show_their_fields(shown, line):
    assert repr(shown) == line


def test_a_session_alone_shows_all_that_is_known_of_it():
    assert page(session()).rows == [
        ["id", "s-1"],
        ["phase", "succeeded"],
        ["language", "s-1"],
        ["labels", "{'s-1': 's-1'}"],
        ["created_at", "2026-01-02 12:00:00+00:00"],
        ["org_id", "s-1"],
        ["limits", "SessionLimits(memory_mb=256)"],
        ["extra", "{'s-1': ['s-1']}"],
    ]


def test_the_labels_of_the_sdks_own_show_only_where_a_session_is_shown_alone():
    labelled = Session(id="s-1", labels={CREATE_LABEL: "x", "team": "a"})
    assert repr(labelled) == "Session(id='s-1', labels={'team': 'a'})"
    assert page(Listing([labelled])).rows == [["id", "labels"], ["s-1", "{'team': 'a'}"]]
    assert ["labels", f"{{'{CREATE_LABEL}': 'x', 'team': 'a'}}"] in page(labelled).rows


def test_an_outcome_alone_shows_its_output_and_its_request():
    assert page(completed()).rows == [
        ["index", "0"],
        ["verdict", "succeeded"],
        ["session_id", "s-1"],
        ["duration_seconds", "0.123"],
        ["exit_code", "0"],
        ["value", "7"],
        ["teardown_error", "RuntimeError('said')"],
        ["stdout", "said"],
        ["stderr", "said"],
        ["request", "CreateSessionRequest(code='print(1)', labels={'a': 'b'})"],
    ]
    assert ["error", "RuntimeError('said')"] in page(errored()).rows


def test_outcomes_of_both_kinds_share_a_table_that_is_counted_by_their_verdicts():
    table = page(Listing([completed(), errored(), completed(index=2)]))
    assert table.text == "3 in all, 2 succeeded, 1 infrastructure"
    head = ["index", "verdict", "session_id", "duration_seconds", "exit_code", "value", "teardown_error", "error"]
    assert table.rows[0] == head
    assert table.rows[2] == ["1", "infrastructure", "", "1.0", "", "", "", "RuntimeError('said')"]


def test_of_a_long_list_the_first_items_are_shown_and_all_are_counted():
    many = Listing(completed(index=index) for index in range(1234))
    table = page(many)
    assert table.text == "1,234 in all, 1,234 succeeded, the first 50 shown"
    assert len(table.rows) == 51
    lines = repr(many).splitlines()
    assert len(lines) == 21
    assert lines[-1] == " … 1,214 more]"


def test_what_a_sweep_has_done_is_a_table_of_ids():
    assert page(sweep()).rows == [["swept", "1\ns-1"], ["failed", "1\ns-1: RuntimeError('s-1')"]]


def test_a_listing_is_a_list():
    listing = Listing([session(), session("s-2")])
    assert listing == [session(), session("s-2")]
    assert isinstance(listing[0], Session)
    assert isinstance(listing[:1], Listing)
    assert page(listing[1:]).rows[1][0] == "s-2"
    loaded = pickle.loads(pickle.dumps(listing))
    assert (type(loaded), loaded) == (Listing, listing)
    assert repr(Listing([1, "a"])) == "[1,\n 'a']"
    assert repr(Listing()) == "[]"


@pytest.mark.parametrize("items", [[], [1, 2], [session(), "no session"]])
def test_a_list_of_anything_else_has_no_table_and_so_shows_its_lines(items):
    assert Listing(items)._repr_html_() is None
