from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from enclave import StdoutFrame
from enclave.cli import _map_output
from tests.support import PATIENCE_SECONDS

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def requests(tmp_path):
    """`requests(*lines)` is the path of a file of them."""

    def write(*lines: str) -> str:
        path = tmp_path / "requests.jsonl"
        path.write_text("".join(line + "\n" for line in lines))
        return str(path)

    return write


@pytest.fixture
def output(tmp_path):
    return tmp_path / "results.jsonl"


def lines_of(text: str) -> dict[int, dict]:
    lines = [json.loads(line) for line in text.splitlines()]
    by_index = {line["index"]: line for line in lines}
    assert len(by_index) == len(lines), "an index came twice"
    return by_index


@BACKENDS
def test_results_are_lines_with_index_session_and_result(cli, simulator, requests, backend) -> None:
    path = requests('"enclave.result(1)"', '{"code": "enclave.result(2)", "labels": {"k": "v"}}')
    done = cli("--backend", backend, "map", path)
    assert (done.code, done.err) == (0, "")
    results = lines_of(done.out)
    assert {index: line["result"]["json"] for index, line in results.items()} == {0: 1, 1: 2}
    assert all(simulator.phases[line["sessionId"]] == "torn_down" for line in results.values())


def test_a_failed_workload_a_refused_request_and_a_bad_line_are_told_apart(cli, simulator, requests) -> None:
    simulator.script(exit_code=3)
    path = requests(
        '"raise SystemExit(3)"', "", "nonsense", "[1]", '{"cod": "1"}', '{"code": ""}', '{"code":"1","labels":{"a":1}}'
    )
    done = cli("map", path, "--max-concurrency", "1")
    assert (done.code, done.err) == (1, "")
    results = lines_of(done.out)
    assert results[0]["result"]["exitCode"] == 3
    assert {index: line["error"]["type"] for index, line in results.items() if "error" in line} == {
        2: "BadLine",
        3: "BadLine",
        4: "BadLine",
        5: "BadRequestError",
        6: "BadLine",
    }
    assert "code" in results[4]["error"]["message"]
    assert all(line["sessionId"] is None for index, line in results.items() if index != 0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (r'"print(\"\ud83d\")"', r"\ud83d is half of a character, and the other half is missing"),
        (r'{"code": "x", "labels": {"k\uDC00": "v"}}', r"\udc00 is half of a character, and the other half is missing"),
        (r'{"code": "\ud83d\ude00"', "not JSON: Input data was truncated"),
        (r'["\ud83d", NaN', "not JSON: "),
        ("[" * 2000, "not JSON: "),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_what_is_wrong_with_it(cli, simulator, requests, line, says) -> None:
    done = cli("map", requests("", line))
    assert done.code == 1
    ((index, result),) = lines_of(done.out).items()
    assert index == 1
    assert result["error"]["message"].startswith(f"line 2: {says}")


def test_a_pace_for_creates_spreads_them(cli, simulator, requests) -> None:
    for _ in range(4):
        simulator.script()
    started = time.monotonic()
    done = cli("map", requests(*['"1"'] * 4), "--creates-per-second", "10")
    assert done.code == 0
    assert time.monotonic() - started >= 0.3  # the pace is a bound, so a slow machine only takes longer
    assert len(lines_of(done.out)) == 4


def test_fields_and_limits_that_the_sdk_does_not_know_are_sent(cli, simulator, requests) -> None:
    simulator.script()
    body = {"code": "pass", "limits": {"pids": 7, "gpus": 2}, "gitSource": {"url": "x"}, "__extra__": 1}
    done = cli("map", requests(json.dumps(body)))
    assert done.code == 0
    session = json.loads(cli("show", lines_of(done.out)[0]["sessionId"]).out)
    assert (session["limits"]["pids"], session["limits"]["gpus"]) == (7, 2)


def test_requests_can_come_from_standard_input(cli, simulator) -> None:
    done = cli("map", "-", stdin=b'"enclave.result(5)"')
    assert (done.code, lines_of(done.out)[0]["result"]["json"]) == (0, 5)


@BACKENDS
def test_a_second_run_does_only_what_the_output_lacks(cli, simulator, requests, output, backend) -> None:
    path = requests(*(f'"enclave.result({n})"' for n in range(5)))
    arguments = ("--backend", backend, "map", path, "--output", str(output))
    assert cli(*arguments) == (0, "", "")
    whole = output.read_text()
    kept = whole.splitlines(keepends=True)[:3]
    output.write_text("".join(kept))
    before = len(simulator.phases)
    assert cli(*arguments).code == 0
    assert len(simulator.phases) == before + 2
    assert output.read_text().startswith("".join(kept))
    assert {n: line["result"]["json"] for n, line in lines_of(output.read_text()).items()} == {n: n for n in range(5)}
    assert cli(*arguments).code == 0
    assert len(simulator.phases) == before + 2


@pytest.mark.parametrize("torn_bytes", [1, 5, 40])
def test_a_torn_last_line_is_done_again(cli, simulator, requests, output, torn_bytes) -> None:
    path = requests('"enclave.result(0)"', '"enclave.result(1)"')
    assert cli("map", path, "-o", str(output), "--max-concurrency", "1").code == 0
    first, second = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(first + second[:torn_bytes])
    assert cli("map", path, "-o", str(output)).code == 0
    assert lines_of(output.read_text())[1]["result"]["json"] == 1
    assert output.read_bytes().startswith(first)


@pytest.mark.parametrize(
    "content",
    [
        b"precious",
        b"precious\n",
        b'{"index":0}\nprecious\n',
        b'{"other":1}\n',
        b"\xff\n",
        b'{"index":0,"sessionId":damaged}\n{"index":1,"sessionId":"s-1","verdict":"succeeded"}\n',
    ],
)
def test_a_file_that_is_no_output_of_ours_is_left_as_it_is(cli, simulator, requests, output, content) -> None:
    output.write_bytes(content)
    done = cli("map", requests('"1"'), "-o", str(output))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "Choose another --output" in done.err
    assert output.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"index":',
        b'{"index":7,"other":1}',
        b'{"index":7,"sess',
        b'{"index":0,"sessionId":null,"verdict":"client"}\nprecious',
        b'{"index":0,"sessionId":null,"verdict":"client"}\n{"index":0,"other":',
    ],
)
def test_a_last_line_that_may_be_somebody_elses_is_not_cut_off(cli, simulator, requests, output, content) -> None:
    output.write_bytes(content)
    done = cli("map", requests('"1"'), "-o", str(output))
    assert done.code == 1
    assert f"line {len(content.splitlines())} is no result of `enclave map`. Choose another --output" in done.err
    assert output.read_bytes() == content


@pytest.mark.parametrize(
    "torn", [b'{"index":1,"sessionId":nul', b'{"index":1,"sessionId":"s-1","verdict":"succeeded","result":{"exi']
)
def test_a_first_line_that_is_plainly_ours_is_done_again(cli, simulator, requests, output, torn) -> None:
    output.write_bytes(torn)
    assert cli("map", requests('"enclave.result(0)"'), "-o", str(output)).code == 0
    assert lines_of(output.read_text())[0]["result"]["json"] == 0


def test_a_last_line_without_its_end_is_kept(cli, simulator, requests, output) -> None:
    path = requests('"enclave.result(0)"', '"enclave.result(1)"')
    output.write_bytes(b'{"index":0,"sessionId":"s-old","verdict":"succeeded"}')
    assert cli("map", path, "-o", str(output)).code == 0
    lines = lines_of(output.read_text())
    assert (lines[0]["sessionId"], lines[1]["result"]["json"]) == ("s-old", 1)


def test_failed_requests_are_run_again_when_asked_for(cli, simulator, requests, output, tmp_path) -> None:
    path = requests('"enclave.result(0)"', '"raise SystemExit(1)"', "nonsense", '"enclave.result(3)"')
    link = tmp_path / "link.jsonl"
    output.touch(0o640)
    output.chmod(0o640)
    link.symlink_to(output)
    assert cli("map", path, "-o", str(link)).code == 1
    before = lines_of(output.read_text())
    assert {index for index, line in before.items() if line["verdict"] != "succeeded"} == {1, 2}
    requests('"enclave.result(0)"', '"enclave.result(11)"', '"enclave.result(12)"', '"enclave.result(3)"')
    assert cli("map", path, "-o", str(link), "--retry-failed") == (0, "", "")
    after = lines_of(output.read_text())
    assert {index: line["result"]["json"] for index, line in after.items()} == {0: 0, 1: 11, 2: 12, 3: 3}
    assert (after[0]["sessionId"], after[3]["sessionId"]) == (before[0]["sessionId"], before[3]["sessionId"])
    assert (output.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.jsonl", "requests.jsonl", "results.jsonl"]


@pytest.mark.usefixtures("simulator")
def test_a_line_longer_than_any_of_ours_is_not_taken_for_one_that_was_cut_off(
    cli, requests, output, monkeypatch
) -> None:
    monkeypatch.setattr(_map_output, "MAX_LINE_BYTES", 40)
    content = b'{"index":0,"sessionId":"s-1","verdict":"succeeded"}\n'
    output.write_bytes(content)
    done = cli("map", requests('"1"'), "-o", str(output))
    assert done.code == 1
    assert "line 1 is no result" in done.err
    assert output.read_bytes() == content


@pytest.mark.usefixtures("simulator")
def test_a_file_that_cannot_be_replaced_stays_as_it_is_and_nothing_is_left_beside_it(
    cli, requests, output, tmp_path, monkeypatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    content = b'{"index":0,"sessionId":null,"verdict":"client"}\n'
    output.write_bytes(content)
    path = requests('"1"')
    monkeypatch.setattr(shutil, "copymode", refuse)
    assert cli("map", path, "-o", str(output), "--retry-failed").code == 1
    assert output.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.jsonl", "results.jsonl"]


def test_a_file_without_failures_is_not_replaced(cli, simulator, requests, output) -> None:
    output.write_bytes(b'{"index":0,"sessionId":"s-1","verdict":"succeeded"}\n')
    before = output.stat().st_ino
    assert cli("map", requests('"1"'), "-o", str(output), "--retry-failed").code == 0
    assert output.stat().st_ino == before


def test_a_file_that_is_not_ours_is_not_rewritten_either(cli, simulator, requests, output) -> None:
    content = b'{"index":0,"sessionId":null,"verdict":"client"}\nprecious\n'
    output.write_bytes(content)
    assert cli("map", requests('"1"'), "-o", str(output), "--retry-failed").code == 1
    assert output.read_bytes() == content


@pytest.mark.parametrize("options", [[], ["--retry-failed"]])
def test_two_runs_into_one_file_are_kept_apart(cli, simulator, command, options) -> None:
    (command.directory / "in.jsonl").write_text('"1"\n')
    (command.directory / "out.jsonl").write_bytes(b'{"index":5,"sessionId":null,"verdict":"client"}\n')
    simulator.script([StdoutFrame("x")], hold=True)
    before = len(simulator.phases)
    first = command.start("map", "in.jsonl", "-o", "out.jsonl", *options)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(simulator.phases) == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)  # nothing tells this thread of a new session
    second = command.run("map", "in.jsonl", "-o", "out.jsonl")
    assert (second.code, second.out) == (1, "")
    assert second.err == (
        "enclave: out.jsonl: another `enclave map` writes to it. Wait for it, or choose another --output\n"
    )
    first.signal(signal.SIGINT)
    assert first.wait().code == 130


def test_files_that_start_with_a_byte_order_mark_are_read(cli, simulator, tmp_path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b'\xef\xbb\xbf"enclave.result(1)"\r\n"enclave.result(2)"\r\n')
    done = cli("map", str(path))
    assert (done.code, {line["result"]["json"] for line in lines_of(done.out).values()}) == (0, {1, 2})
    assert cli("map", "-", stdin=path.read_bytes()).code == 0


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_an_input_in_utf_16_is_refused_as_a_whole(cli, simulator, tmp_path, encoding) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes('\ufeff"x"\n"y"\n'.encode(encoding))
    before = len(simulator.phases)
    done = cli("map", str(path))
    assert (done.code, done.out) == (1, "")
    assert "the input is UTF-16. Save it as UTF-8" in done.err
    assert len(simulator.phases) == before


def test_a_dash_for_the_output_is_no_file(cli, simulator, requests, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("map", requests('"x"'), "--output", "-")
    assert done.code == 2
    assert "--output: - is no file" in done.err
    assert not (tmp_path / "-").exists()


def test_a_longer_line_than_can_be_read_is_not_taken_for_a_torn_one(cli, simulator, requests, output, monkeypatch):
    monkeypatch.setattr(_map_output, "MAX_LINE_BYTES", 20)
    content = b'{"index":0,"result":null,"error":{}}\n'
    output.write_bytes(content)
    assert cli("map", requests('"1"'), "-o", str(output)).code == 1
    assert output.read_bytes() == content


def test_an_output_that_is_no_file_is_refused(cli, simulator, requests, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = cli("map", requests('"1"'), "-o", str(tmp_path / "pipe"))
    assert done.code == 1
    assert "not a regular file" in done.err


def test_failures_of_an_earlier_run_count(cli, simulator, requests, output) -> None:
    path = requests('"raise SystemExit(1)"')
    assert cli("map", path, "-o", str(output)).code == 1
    assert cli("map", path, "-o", str(output)).code == 1
    assert len(lines_of(output.read_text())) == 1


def test_what_would_fail_every_request_stops_the_map_and_spoils_no_line(cli, served, requests, output, monkeypatch):
    path = requests(*['"enclave.result(1)"'] * 20)
    monkeypatch.setenv("ENCLAVE_BASE_URL", served.base_url)
    monkeypatch.setenv("ENCLAVE_API_KEY", "ek_wrong_key")
    done = cli("map", path, "-o", str(output), "--max-concurrency", "2")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "Set ENCLAVE_API_KEY" in done.err
    assert output.read_text() == ""


def test_a_session_that_cannot_be_torn_down_keeps_its_result_and_counts_as_failed(cli, simulator, requests) -> None:
    simulator.script(result=1)
    simulator.faults.respond(403, method="DELETE")
    done = cli("map", requests('"1"'))
    assert done.code == 1
    line = lines_of(done.out)[0]
    assert (line["result"]["json"], line["error"]["type"]) == (1, "PermissionDeniedError")
    assert cli("rm", line["sessionId"]).code == 0


def test_a_missing_file_is_one_line(cli, simulator) -> None:
    assert cli("map", "nowhere.jsonl") == (1, "", "enclave: nowhere.jsonl: No such file or directory\n")
