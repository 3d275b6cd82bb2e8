"""The names that callers rely on: complete, sorted, documented, and cheap to import."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
import types as python_types
import typing
from importlib.util import find_spec
from pathlib import Path

import pytest

import enclave
from enclave import errors, types

PACKAGE = Path(enclave.__file__).parent
CLASSES = [name for name in enclave.__all__ if inspect.isclass(getattr(enclave, name))]
# Public in their modules, for the package's own use.
INTERNAL = {
    *("BackgroundTask", "Creates", "Progress", "ResultQuery", "SessionBlock", "Sweep", "TaskState", "Wakeup"),
    *("Connection", "EventIds", "FrameBuffer", "FrameDecoder", "History", "HistoryState", "IdState"),
    *("Dropped", "HistoryMismatch", "Series", "Shape", "StreamReader", "UnknownFrameLog", "UnprovenContinuation"),
    *("Guard", "OpenBlock", "OpenWork", "OwnedTask"),
    *("Observing", "ObservedRequest", "ObservedSession", "ObservedStream"),
    *(
        "Block",
        "Blocking",
        "Call",
        "CallersInput",
        "Driver",
        "EventLoop",
        "Held",
        "IteratedBlock",
        "Slots",
        "SyncSessionBlock",
        "Work",
    ),
}


@pytest.mark.parametrize("module", [enclave, errors, types, enclave.transport], ids=lambda module: module.__name__)
def test_a_modules_names_are_sorted_and_exist(module):
    # The root has the names of the errors and the types after its own, each in its own order.
    shared = set(errors.__all__) | set(types.__all__) if module is enclave else set()
    names = [name for name in module.__all__ if name not in shared]
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_every_error_and_type_stands_in_the_root():
    assert set(errors.__all__) | set(types.__all__) <= set(enclave.__all__)
    defined = {name for name, value in vars(errors).items() if _is_exception(value) and not name.startswith("_")}
    assert defined == set(errors.__all__)


def _is_exception(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def test_every_public_class_of_the_core_stands_in_the_root():
    found = set()
    for path in [*PACKAGE.glob("_*.py"), *PACKAGE.glob("_streams/_*.py"), *PACKAGE.glob("_sync/_*.py")]:
        tree = ast.parse(path.read_text())
        found |= {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert found - INTERNAL <= set(enclave.__all__)


def test_the_fixed_names_are_there():
    client = {"run", "session", "attach", "get", "list", "result", "audit", "teardown", "health", "stream", "fan_out"}
    assert client | {"aclose"} <= set(dir(enclave.EnclaveClient))
    assert {"id", "phase", "last_seen", "refresh", "stream", "result", "audit", "teardown"} <= set(
        dir(enclave.EnclaveClient("http://127.0.0.1:1").attach("x"))
    )
    assert {"batches", "cancel", "resumes", "__aiter__", "__anext__"} <= set(dir(enclave.FrameStream))
    common = {"index", "request", "session_id", "verdict", "duration_seconds"}
    assert common | {"result", "teardown_error"} == set(enclave.Completed.__struct_fields__)
    assert common | {"error"} == set(enclave.Errored.__struct_fields__)
    arguments = inspect.signature(enclave.EnclaveClient).parameters
    assert next(iter(arguments)) == "base_url"
    for name in ("api_key", "token", "transport", "timeout", "retry"):
        assert arguments[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(enclave.transport.SSEDecoder).parameters) == ["max_event_bytes"]


def test_the_transport_lists_what_callers_configure_and_the_decoder_and_nothing_of_its_own():
    bounds = {name for name in dir(enclave.transport) if name.startswith("DEFAULT_MAX_")}
    assert len(bounds) == 2
    configured = {"InsecureTransportWarning", "RetryPolicy", "Timeout", "TokenSource"}
    assert set(dir(enclave.transport)) == set(enclave.transport.__all__) == bounds | configured | {"SSEDecoder"}


def test_help_of_the_package_begins_with_a_program_that_runs(enclave_simulator, monkeypatch, capsys):
    monkeypatch.setenv("ENCLAVE_BASE_URL", enclave_simulator.base_url)
    monkeypatch.setenv("ENCLAVE_API_KEY", enclave_simulator.api_key)
    program = textwrap.dedent(enclave.__doc__.partition("::\n")[2].partition("\nThe client finds")[0])
    exec(compile(program, "enclave.__doc__", "exec"), {})
    assert capsys.readouterr().out == "42\n"
    assert enclave_simulator.running_sessions == []


def test_the_names_in_the_help_of_the_package_exist():
    names = re.findall(r"(?<!`)`(?:enclave\.)?(\w+)`", enclave.__doc__)
    places = (enclave, enclave.EnclaveClient, enclave.SessionHandle)
    assert {"EnclaveClient", "fan_out", "ray"} <= set(names)
    for name in names:
        assert any(hasattr(place, name) for place in places) or find_spec(f"enclave.{name}"), name


@pytest.mark.parametrize("call", [enclave.EnclaveClient.run, enclave.EnclaveClient.session])
def test_help_of_a_call_names_each_field_of_a_request(call):
    named = re.findall(r"`(\w+)`", call.__doc__.partition("**fields:")[2])
    assert set(typing.get_type_hints(types.SessionFields)) <= set(named)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_and_method_is_documented(name):
    cls = getattr(enclave, name)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{name}(")  # what dataclasses write by themselves
    for attribute, value in vars(cls).items():
        if attribute.startswith("_") or (not callable(value) and not isinstance(value, property | classmethod)):
            continue
        if isinstance(value, python_types.MemberDescriptorType):
            continue
        assert inspect.getdoc(getattr(cls, attribute)), f"{name}.{attribute}"


def test_every_public_alias_is_one():
    for name in set(enclave.__all__) - set(CLASSES) - {"__version__", "errors", "types"}:
        assert typing.get_args(getattr(enclave, name)), name


@pytest.mark.parametrize("path", sorted((PACKAGE / "types").glob("*.py")), ids=lambda path: path.name)
def test_every_field_of_the_wires_types_is_documented(path):
    for cls in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]:
        if cls.name.startswith("_"):
            continue
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{cls.name}.{ast.unparse(field.target)}"


def test_every_error_stands_in_the_tree_at_the_top_of_its_module():
    lines = errors.__doc__.splitlines()
    for name in errors.__all__:
        (line,) = [line for line in lines if line.lstrip("│├└─ ").split(" ")[0] == name]
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        parents = [cls for cls in getattr(errors, name).__mro__[1:] if cls.__name__ in errors.__all__]
        assert depth <= len(parents)
        above = lines[: lines.index(line)]
        if depth:
            up = [
                other
                for other in above
                if (len(other) - len(other.lstrip("│├└─ "))) // 4 == depth - 1 and other.strip("│ ")
            ]
            assert up[-1].lstrip("│├└─ ").split(" ")[0] in {cls.__name__ for cls in parents}


# No alternative loop, server or tool: what an extra brings must not be paid for by those who do not use it.
FOREIGN = {
    *("trio", "asyncio", "uvloop", "httpx", "httpcore", "h11", "httptools", "ssl", "html"),
    *("starlette", "hypercorn", "typer", "click", "rich", "mcp", "pydantic", "certifi", "opentelemetry"),
}


def modules_after(code: str) -> set[str]:
    code += "; import sys, json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, cwd=PACKAGE.parent)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_no_loop_no_server_and_no_extra():
    modules = modules_after("import enclave")
    assert "enclave.types" in modules
    theirs = modules_after("import anyio")  # older releases of it import ssl
    assert not {module.split(".")[0] for module in modules - theirs} & FOREIGN
    assert not [module for module in modules if module.startswith("enclave.simulator")]


def test_making_a_client_imports_what_it_needs_and_not_httpx():
    theirs = modules_after("pass")  # what measures the coverage of subprocesses imports html
    made = modules_after("import enclave; enclave.EnclaveClient('http://h')") - theirs
    modules = {module.split(".")[0] for module in made}
    assert modules & FOREIGN == {"httptools", "ssl"}
    assert {"anyio", "httptools", "msgspec"} <= modules
    assert not [module for module in modules if module.startswith("enclave.simulator")]
