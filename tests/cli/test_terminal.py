"""What a person sees, on a pseudo-terminal."""

from __future__ import annotations

import json
import re

import pytest

from enclave import AuditEvent, AuditFrame, AuditType, StderrFrame, StdoutFrame

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp\rover\n"
SHOWN = "\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\u202egnp\\rover\n"
DENIED = AuditFrame(AuditEvent(type=AuditType.EGRESS_DENIED, detail={"host": "evil\x1b[1m.example\n2"}))


def styled(text: str) -> str:
    """Without the styles that are ours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_person_sees_output_phases_denied_egress_and_the_result(command, simulator) -> None:
    simulator.script([StdoutFrame("out\n"), StderrFrame("err\n"), DENIED, StdoutFrame("tail")], result={"a": "\x9b"})
    done = command.run("run", "-c", "pass", terminal="out err")
    session = done.screen.split()[2].partition("\x1b")[0]
    assert styled(done.screen).splitlines() == [
        f"enclave: session {session}",
        "enclave: pending",
        "enclave: running",
        "out",
        "err",
        "enclave: egress denied: evil\\x1b[1m.example\\n2",
        "tail",
        "enclave: succeeded",
        'enclave: result: {"a":"\\u009b"}',
    ]


def test_piped_output_stays_exact_while_a_person_watches(watched, simulator) -> None:
    simulator.script([StdoutFrame(HOSTILE), DENIED, StdoutFrame("no line end")], result=1)
    done = watched("run", "-c", "pass", terminal="err")
    assert done.out == HOSTILE + "no line end"
    assert "egress denied" in done.screen


def test_control_sequences_are_shown_on_a_terminal(watched, simulator) -> None:
    simulator.script([StdoutFrame(HOSTILE), StderrFrame(HOSTILE), StdoutFrame("cut\r"), StdoutFrame("\nhere\r")])
    done = watched("run", "-c", "pass", terminal="out err", NO_COLOR="1")
    assert SHOWN + SHOWN + "cut\r\nhere\\r\nenclave: succeeded\n" in done.screen
    assert not set(done.screen) & {"\x1b", "\x9b", "\u202e", "\x07"}


def test_control_sequences_are_obeyed_when_asked_for(watched, simulator) -> None:
    simulator.script([StdoutFrame("\x1b[31mred\x1b[0m\n")])
    assert "\x1b[31mred\x1b[0m\n" in watched("run", "-c", "pass", "--raw", terminal="out").screen


def test_only_standard_output_being_a_terminal_shows_nothing_but_the_output(watched, simulator) -> None:
    simulator.script([StdoutFrame("out\n"), StderrFrame("err\x1b\n"), DENIED], result=1)
    done = watched("run", "-c", "pass", terminal="out")
    assert (done.screen, done.err) == ("out\n", "err\x1b\n")


def test_what_a_server_says_in_an_error_is_harmless_and_one_line(watched, simulator) -> None:
    body = json.dumps({"message": "no\x1b[2J\n\x9bway\u202e"}, ensure_ascii=False).encode()
    simulator.faults.respond(400, method="GET", body=body)
    done = watched("ls", terminal="err", NO_COLOR="1")
    assert done.code == 1
    assert done.screen.count("\n") == 1
    assert not set(done.screen) & {"\x1b", "\x9b", "\u202e"}


def test_tables_show_hostile_labels_and_no_markup(watched, simulator, cli) -> None:
    simulator.script(exit_code=4)
    session = cli("run", "--detach", "-c", "1", "--label", "x=[red]a[/red]\x1b[31m\n:boom:\u202e").out.strip()
    cli("result", session)
    table = watched("ls", terminal="out", COLUMNS="150")
    rows = [styled(line) for line in table.screen.splitlines() if session in line]
    assert len(rows) == 1
    assert "x=[red]a[/red]\\x1b[31m\\n:boom:\\u202e" in rows[0]
    assert {"failed", "4", "python"} <= set(rows[0].split())
    shown = styled(watched("show", session, terminal="out").screen)
    assert "x=[red]a[/red]\\x1b[31m\\n:boom:\\u202e" in shown
    assert "memory-mb=512" in shown
    assert "deny_all" in shown
    assert cli("rm", session).code == 0


def test_a_trail_is_a_table_and_its_details_are_harmless(watched, simulator, cli) -> None:
    entry = {"ts": "2026-01-02T03:04:05Z", "type": "egress\x1bdenied", "detail": {"host": "\u202e\x9b"}}
    simulator.faults.respond(200, method="GET", body=json.dumps([entry], ensure_ascii=False).encode())
    shown = styled(watched("audit", "s-1", terminal="out", TZ="UTC").screen)
    assert "egress\\x1bdenied" in shown
    assert '{"host": "\\u202e\\x9b"}' in shown
    assert "2026-01-02 03:04:05" in shown


def test_json_on_a_terminal_is_indented_and_harmless(watched, simulator) -> None:
    simulator.faults.respond(200, method="GET", body=b'[{"id":"s\\u001b\xc2\x9b","phase":"running"}]')
    done = watched("ls", "--json", terminal="out")
    assert '\n    "id": "s\\u001b\\u009b"' in done.screen


def test_health_tells_a_person(watched, simulator) -> None:
    simulator.faults.respond(200, body=b'{"ok":true,"backend":"docker","backendHealthy":false}')
    done = watched("health", terminal="out err")
    assert done.code == 1
    assert re.search(r"backend healthy\s+no", styled(done.screen))


def test_nothing_to_list_is_said(watched, simulator) -> None:
    done = watched("ls", "--label", "no=such", terminal="out err")
    assert (done.code, styled(done.screen)) == (0, "enclave: no sessions\n")


def test_removal_is_told_to_a_person(watched, simulator, cli) -> None:
    simulator.script()
    session = cli("run", "--detach", "-c", "1").out.strip()
    done = watched("rm", session, "nope\x1b", terminal="out err")
    assert done.code == 1
    assert styled(done.screen).startswith(f"removed {session}\nenclave: nope\\x1b: ")


@pytest.mark.parametrize(("terminal", "bar"), [("err", True), ("out err", False), ("", False)])
def test_a_map_has_a_progress_bar_where_it_disturbs_nothing(watched, simulator, tmp_path, terminal, bar) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('"1"\n\n"2"\n')
    simulator.script()
    simulator.script(exit_code=1)
    done = watched("map", str(path), "--max-concurrency", "1", terminal=terminal)
    assert done.code == 1
    assert ("2/2" in done.screen) is bar
    assert ("1 failed" in styled(done.screen)) is bar
    assert len([line for line in (done.out + done.screen).splitlines() if line.startswith('{"index"')]) == 2


def sessions_of(*changes: dict) -> bytes:
    common = {"phase": "running", "createdAt": "2026-01-02T03:04:05Z"}
    return json.dumps([{"id": f"s-{n}"} | common | change for n, change in enumerate(changes)]).encode()


@pytest.mark.parametrize(
    ("options", "rows", "more"),
    [([], 20, "299 more"), (["--limit", "300"], 300, "19 more"), (["--phase", "killed"], 1, None)],
)
def test_a_table_has_the_newest_sessions_and_says_how_many_more_there_are(watched, simulator, options, rows, more):
    simulator.faults.respond(200, method="GET", body=sessions_of(*[{}] * 318, {"phase": "killed"}))
    shown = styled(watched("ls", *options, terminal="out err").screen).splitlines()
    table = [line for line in shown if line.startswith("s-")]
    assert len(table) == rows
    assert more is None or shown[-1].startswith(f"enclave: {more}")
    assert more is not None or not shown[-1].startswith("enclave:")


@pytest.mark.parametrize("columns", ["0", "-1", "wide", ""])
def test_a_width_that_makes_no_sense_is_not_taken_from_the_environment(watched, simulator, columns) -> None:
    simulator.faults.respond(200, method="GET", body=sessions_of({"labels": {"a": "b"}}))
    heading, row = styled(watched("ls", terminal="out", COLUMNS=columns).screen).splitlines()
    assert (heading.split()[0], row.split()[:2], row.split()[-1]) == ("ID", ["s-0", "running"], "a=b")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_times_at_the_ends_of_the_calendar_are_shown_or_left_out(watched, simulator, zone) -> None:
    never, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
    session = json.loads(sessions_of({"startedAt": never, "finishedAt": last}))[0]
    simulator.faults.respond(200, method="GET", body=json.dumps(session).encode())
    shown = styled(watched("show", "s-0", terminal="out", TZ=zone).screen)
    assert ("started" in shown, "finished  9999-12-31" in shown) == (False, True)
    trail = [{"ts": never, "type": "session_created"}, {"ts": last, "type": "workload_exited"}]
    simulator.faults.clear()
    simulator.faults.respond(200, method="GET", body=json.dumps(trail).encode())
    lines = [line.split() for line in styled(watched("audit", "s-0", terminal="out", TZ=zone).screen).splitlines()]
    assert lines[1] == ["-", "session_created"]
    assert (lines[2][0], lines[2][-1]) == ("9999-12-31", "workload_exited")


def test_a_session_whose_age_is_not_known_is_never_old_enough(cli, simulator) -> None:
    simulator.faults.respond(200, method="GET", body=sessions_of({"createdAt": "0001-01-01T00:00:00Z"}))
    assert cli("ls", "--older-than", "1h").out == "[]\n"


@pytest.mark.parametrize(
    ("options", "environment", "colored"),
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        ([], {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
    ],
)
def test_colours_are_as_the_option_the_environment_and_the_terminal_say(
    watched, simulator, options, environment, colored
) -> None:
    simulator.faults.respond(200, times=2, method="GET", body=sessions_of({"phase": "failed"}))
    table = watched(*options, "ls", terminal="out", **environment).screen
    assert ("\x1b[31mfailed" in table) is colored
    assert ("\x1b" in table) is colored
    assert ("\x1b[1;31menclave:" in watched(*options, "show", "nope", terminal="err", **environment).screen) is colored


def test_phases_have_their_colours_and_a_pipe_has_none(watched, cli, simulator) -> None:
    simulator.script()
    assert "\x1b[32msucceeded" in watched("run", "-c", "1", terminal="err").screen
    assert cli("--color", "always", "show", "nope").err.startswith("\x1b[1;31menclave:")
    assert not cli("show", "nope").err.startswith("\x1b")


def test_an_exit_code_that_is_not_0_is_red(watched, cli, simulator) -> None:
    simulator.script(exit_code=4)
    failed = cli("run", "--detach", "-c", "1").out.strip()
    simulator.script()
    done = cli("run", "--detach", "-c", "1").out.strip()
    for session in (failed, done):
        cli("result", session)
        cli("rm", session)
    listed = watched("ls", terminal="out", COLUMNS="150").screen
    rows = {session: line for line in listed.splitlines() for session in (failed, done) if session in line}
    assert "\x1b[31m4 " in rows[failed]
    assert "\x1b[31m" not in rows[done]
    assert "\x1b[31m4" in watched("show", failed, terminal="out").screen


def test_the_detail_of_a_trail_breaks_between_its_parts(watched, simulator) -> None:
    detail = {"backend": "simulator", "isolation": {"user": False, "network": True, "process": True}}
    entry = {"ts": "2026-01-02T03:04:05Z", "type": "sandbox_started", "detail": detail}
    simulator.faults.respond(200, method="GET", body=json.dumps([entry]).encode())
    shown = styled(watched("audit", "s-1", terminal="out", COLUMNS="80").screen)
    words = shown.split()
    assert words[words.index('{"backend":') :] == json.dumps(detail).split()


def test_shown_escapes_come_with_a_hint_and_harmless_output_without(watched, simulator) -> None:
    simulator.script([StdoutFrame("\x1b[31mred\n")])
    hint = "enclave: control characters of the output are shown as escapes. --raw obeys them instead\n"
    assert styled(watched("run", "-c", "1", terminal="out err").screen).endswith(f"enclave: succeeded\n{hint}")
    simulator.script([StdoutFrame("plain\n")])
    assert "--raw" not in watched("run", "-c", "1", terminal="out err").screen


def test_a_map_has_an_estimate_of_the_time_left(watched, simulator, tmp_path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('"enclave.result(1)"\n')
    assert "ETA" in styled(watched("map", str(path), terminal="err").screen)


def test_help_is_as_wide_as_the_terminal_and_no_line_is_cut(watched) -> None:
    narrow, wide = (watched("--help", terminal="out", COLUMNS=columns) for columns in ("80", "140"))
    lines = (narrow.out + wide.out + narrow.screen + wide.screen).splitlines()
    assert not [line for line in lines if line.endswith("...") and "Usage" not in line]
    assert max(map(len, (wide.out + wide.screen).splitlines())) > 90
    assert max(map(len, (narrow.out + narrow.screen).splitlines())) <= 80


def test_labels_that_the_sdk_made_for_itself_are_not_in_a_table(watched, cli, simulator) -> None:
    labels = {"enclave-sdk.create": "0123", "a": "b"}
    simulator.faults.respond(200, times=2, method="GET", body=sessions_of({"labels": labels}))
    assert styled(watched("ls", terminal="out").screen).split()[-1] == "a=b"
    assert json.loads(cli("ls").out)[0]["labels"] == labels
