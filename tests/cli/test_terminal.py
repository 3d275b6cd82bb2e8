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
    done = watched("ls", terminal="err")
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
    assert '{"host":"\\u202e\\x9b"}' in shown
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
