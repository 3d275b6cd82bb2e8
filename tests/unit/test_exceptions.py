"""No foreign exception gets past the boundary at which it becomes one of ours."""

from __future__ import annotations

import inspect

import anyio
import httptools
import httpx
import pytest

from enclave import (
    APIConnectionError,
    APITimeoutError,
    CertificateError,
    ConnectError,
    ConnectTimeoutError,
    EnclaveError,
)
from enclave.transport._exceptions import EXCEPTION_MAP, describe, mapped, raise_mapped
from enclave.transport._httpx_transport import HTTPX_EXCEPTION_MAP
from enclave.transport.http11._callbacks import Callbacks
from enclave.transport.http11._parser import ResponseParser

ALL_ROWS = (*HTTPX_EXCEPTION_MAP, *EXCEPTION_MAP)

REQUEST = httpx.Request("GET", "http://127.0.0.1:1/")
# Classes that no transport lets out, with the part of anyio that raises them.
NOT_OF_TRANSPORTS = {
    "BrokenWorkerInterpreter": "to_interpreter",
    "BrokenWorkerIntepreter": "to_interpreter, sic: the older spelling",
    "BrokenWorkerProcess": "to_process",
    "DelimiterNotFound": "buffered streams",
    "FutureAlreadyFinished": "futures",
    "FutureCancelled": "futures",
    "FutureFailed": "futures",
    "FutureNotFinished": "futures",
    "NoEventLoopError": "calls outside an event loop",
    "RunFinishedError": "from_thread",
    "TaskCancelled": "task handles",
    "TaskFailed": "task handles",
    "TaskNotFinished": "task handles",
    "TypedAttributeLookupError": "extra() of an attribute that a stream does not have",
    "WouldBlock": "the nowait calls of memory streams",
}


def exceptions_of(module) -> list[type[BaseException]]:
    # By name: anyio loads what it exports when it is asked for.
    classes = {value for name in dir(module) if inspect.isclass(value := getattr(module, name))}
    return sorted((cls for cls in classes if issubclass(cls, Exception)), key=lambda cls: cls.__name__)


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(child) for child in cls.__subclasses__()))


def instance_of(cls: type[Exception]) -> Exception:
    if issubclass(cls, httpx.HTTPStatusError):
        return cls("text", request=REQUEST, response=httpx.Response(500))
    for arguments in (("text",), ("text", b""), (1, "text"), ()):
        try:
            return cls(*arguments)
        except TypeError:
            continue
    return cls.__new__(cls)


HTTPX = {cls for cls in exceptions_of(httpx) if not issubclass(cls, Warning)}
HTTPX |= {cls for cls in subclasses(httpx.HTTPError) if cls.__module__.startswith("httpx")}
ANYIO = [cls for cls in exceptions_of(anyio) if cls.__name__ not in NOT_OF_TRANSPORTS]
# Sorted, since the processes of a parallel run must collect the tests in one order.
SYSTEM = sorted(
    (cls for cls in subclasses(OSError) if cls.__module__ in ("builtins", "socket", "ssl", "select")),
    key=lambda cls: f"{cls.__module__}.{cls.__name__}",
)
FOREIGN = sorted({*HTTPX, *ANYIO, *SYSTEM}, key=lambda cls: f"{cls.__module__}.{cls.__name__}")


@pytest.mark.parametrize("connecting", [True, False])
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_foreign_exception_becomes_one_of_ours(foreign, connecting):
    error = mapped(instance_of(foreign), "host:1", connecting=connecting, rows=ALL_ROWS)
    assert isinstance(error, EnclaveError)
    assert "host:1: " in str(error) or isinstance(error, CertificateError)
    assert error.__context__ is None
    assert error.__traceback__ is None


@pytest.mark.parametrize("foreign", [*ANYIO, *SYSTEM], ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_what_fails_while_a_connection_is_made_is_a_connect_error_and_later_it_is_not(foreign):
    if foreign is anyio.BusyResourceError:
        return  # two tasks read one response: a mistake, and no failure of the network
    assert isinstance(mapped(instance_of(foreign), "x", connecting=True), ConnectError)
    later = mapped(instance_of(foreign), "x", connecting=False)
    assert isinstance(later, APIConnectionError)
    assert isinstance(later, ConnectError) == isinstance(later, CertificateError)


@pytest.mark.parametrize("connecting", [True, False])
def test_a_timeout_stays_one(connecting):
    error = mapped(TimeoutError("late"), "x", connecting=connecting)
    assert type(error) is (ConnectTimeoutError if connecting else APITimeoutError)
    assert mapped(APITimeoutError("ours"), "x", connecting=connecting) is None


def test_no_row_hides_a_later_one():
    for index, (foreign, _, _) in enumerate(ALL_ROWS):
        assert not [earlier for earlier, _, _ in ALL_ROWS[:index] if issubclass(foreign, earlier)]


def test_the_parser_catches_whatever_httptools_raises():
    classes = {*exceptions_of(httptools), *exceptions_of(httptools.parser.errors)}
    assert httptools.HttpParserError in classes
    for cls in classes:
        parser = ResponseParser(Callbacks(max_header_bytes=100))
        parser.llhttp = type("Llhttp", (), {"feed_data": lambda _self, _data, cls=cls: raise_(instance_of(cls))})()
        with pytest.raises(APIConnectionError, match=r"is not HTTP|switched to a protocol"):
            parser.feed(b"x")


def raise_(error: Exception) -> None:
    raise error


BUGS = [KeyError("x"), TypeError("x"), AssertionError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_not_dressed_up_as_a_failure_of_the_network(bug):
    assert mapped(bug, "x", connecting=False, rows=ALL_ROWS) is None
    with pytest.raises(type(bug)) as caught:
        raise_mapped(bug, "x", connecting=False, rows=ALL_ROWS)
    assert caught.value is bug


def test_what_is_raised_leads_back_to_the_systems_error_alone_and_that_is_bare():
    def fail() -> None:
        try:
            raise ConnectionResetError(104, "Connection reset by peer")
        except OSError as error:
            raise anyio.BrokenResourceError from error

    with pytest.raises(APIConnectionError) as caught:
        try:
            fail()
        except anyio.BrokenResourceError as error:
            raise_mapped(error, "reading", connecting=False)
    assert str(caught.value) == "reading: [Errno 104] Connection reset by peer (ConnectionResetError)"
    assert caught.value.__context__ is None
    cause = caught.value.__cause__
    assert isinstance(cause, ConnectionResetError)
    assert (cause.__traceback__, cause.__cause__, cause.__context__) == (None, None, None)


def test_the_text_comes_from_the_cause_where_the_error_itself_is_empty():
    error = anyio.BrokenResourceError()
    assert describe(error) == "BrokenResourceError"
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert describe(error) == "[Errno 104] Connection reset by peer (ConnectionResetError)"
    error.__cause__ = ExceptionGroup("attempts", [OSError("one"), OSError("two"), OSError("one")])
    assert describe(error) == "one (OSError); two (OSError)"
