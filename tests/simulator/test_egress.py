"""Egress: denied by default, reported either way, allowed by CIDR or by a granted binding."""

from __future__ import annotations

import socket

import pytest

pytestmark = pytest.mark.anyio

PYTHON_TRY = """
import socket
def attempt(what, *args):
    try:
        what(*args)
    except OSError as error:
        print(type(error).__name__)
    else:
        print("through")
"""


async def test_python_is_denied_every_way_out_and_each_attempt_is_reported(serving):
    code = (
        PYTHON_TRY
        + """
attempt(socket.create_connection, ("169.254.169.254", 80))
attempt(socket.socket().connect, ("203.0.113.1", 80))
attempt(socket.socket(socket.AF_INET6).connect, ("2001:db8::1", 80))
attempt(socket.socket(type=socket.SOCK_DGRAM).sendto, b"x", ("203.0.113.2", 53))
attempt(socket.getaddrinfo, "example.com", 443)
attempt(socket.gethostbyname, "example.org")
"""
    )
    async with serving() as api:
        run = await api.run(code)
        assert run.output().split() == ["PermissionError"] * 6
        hosts = ["169.254.169.254", "203.0.113.1", "2001:db8::1", "203.0.113.2", "example.com", "example.org"]
        assert run.egress() == [("egress_denied", host) for host in hosts]
        streamed = [frame["event"] for frame in run.frames if frame["kind"] == "audit"]
        assert [event for event in streamed if "egress" in event["type"]] == [
            entry for entry in run.audit if "egress" in entry["type"]
        ]


@pytest.mark.parametrize("library", ["urllib", "asyncio", "http"])
async def test_python_libraries_see_an_ordinary_error(serving, library):
    code = {
        "urllib": "import urllib.request, urllib.error\n"
        "try: urllib.request.urlopen('http://example.com')\nexcept urllib.error.URLError as e: print(e.reason.errno)",
        "asyncio": "import asyncio\n"
        "try: asyncio.run(asyncio.open_connection('203.0.113.1', 80))\nexcept PermissionError as e: print(e.errno)",
        "http": "import http.client\n"
        "try: http.client.HTTPConnection('203.0.113.1').request('GET', '/')\nexcept OSError as e: print(e.errno)",
    }[library]
    async with serving() as api:
        run = await api.run(code)
        assert run.output() == "1\n", run.output("stderr")
        assert {type_ for type_, _ in run.egress()} == {"egress_denied"}


async def test_a_child_process_passes_the_hook_and_meets_the_private_network(serving):
    code = """
import subprocess, sys
check = "import socket; s = socket.socket(); s.settimeout(1); s.connect(('127.0.0.1', PORT))"
child = subprocess.run([sys.executable, "-c", check], stderr=subprocess.PIPE)
print(child.stderr.decode().splitlines()[-1] if child.returncode else "through")
"""
    async with serving() as api:
        run = await api.run(code.replace("PORT", str(api.http.base_url.port)))
        isolation = run.audit[1]["detail"]["isolation"]
        assert isolation.keys() == {"user", "pid", "net", "proc"}
        assert run.output() == ("OSError: [Errno 101] Network is unreachable\n" if isolation["net"] else "through\n")


@pytest.mark.parametrize("language", ["python", "node"])
async def test_an_allowlisted_network_passes_and_is_reported_while_others_and_metadata_do_not(serving, language):
    python = (
        PYTHON_TRY
        + """
attempt(socket.create_connection, ("127.0.0.1", PORT))
attempt(socket.create_connection, ("203.0.113.1", 80))
attempt(socket.create_connection, ("169.254.169.254", 80))
attempt(socket.create_connection, ("::ffff:169.254.169.254", 80))
"""
    )
    node = """
const net = require('node:net');
const attempt = (host, port) => new Promise((done) => {
  const socket = net.connect(port, host, () => { console.log('through'); socket.destroy(); done(); });
  socket.on('error', (error) => { console.log(error.code); done(); });
});
(async () => {
  await attempt('127.0.0.1', PORT);
  await attempt('203.0.113.1', 80);
  await attempt('169.254.169.254', 80);
  await attempt('::ffff:169.254.169.254', 80);
})();
"""
    async with serving() as api:
        code = (python if language == "python" else node).replace("PORT", str(api.http.base_url.port))
        policy = {"mode": "allowlist", "allow": ["127.0.0.0/8", "169.254.0.0/16", "::/96", "::ffff:0:0/96"]}
        run = await api.run(code, language=language, egress=policy)
        assert run.output().split()[0] == "through", run.output("stderr")
        assert set(run.output().split()[1:]) <= {"PermissionError", "EACCES"}
        assert run.egress() == [
            ("egress_allowed", "127.0.0.1"),
            ("egress_denied", "203.0.113.1"),
            ("egress_denied", "169.254.169.254"),
            ("egress_denied", "::ffff:169.254.169.254"),
        ]


@pytest.mark.parametrize("language", ["python", "node"])
async def test_a_name_is_resolved_under_an_allowlist_and_its_address_decides(serving, language):
    python = PYTHON_TRY + "attempt(socket.create_connection, ('localhost', PORT))"
    node = """
fetch('http://localhost:PORT/healthz').then((answer) => console.log(answer.ok ? 'through' : answer.status),
  (error) => console.log(error.cause.code));
"""
    async with serving() as api:
        code = (python if language == "python" else node).replace("PORT", str(api.http.base_url.port))
        allowed = await api.run(code, language=language, egress={"mode": "allowlist", "allow": ["127.0.0.1/32"]})
        assert allowed.output() == "through\n", allowed.output("stderr")
        assert ("egress_allowed", "127.0.0.1") in allowed.egress()
        denied = await api.run(code, language=language, egress={"mode": "allowlist", "allow": ["10.0.0.0/8"]})
        assert denied.output() in ("PermissionError\n", "EACCES\n")
        assert ("egress_denied", "127.0.0.1") in denied.egress()


@pytest.mark.parametrize("at", [str, lambda url: url.replace("127.0.0.1", "localhost")], ids=["address", "name"])
@pytest.mark.parametrize("language", ["python", "node"])
async def test_a_granted_binding_is_reachable_although_everything_else_is_denied(serving, language, at):
    python = """
import os, urllib.request
print(urllib.request.urlopen(os.environ["ENCLAVE_SVC_CONTROL"] + "/healthz").status)
"""
    node = "fetch(process.env.ENCLAVE_SVC_CONTROL + '/healthz').then((answer) => console.log(answer.status));"
    code = python if language == "python" else node
    async with serving() as target, serving(service_bindings={"control": at(target.sim.base_url)}) as api:
        run = await api.run(code, language=language, serviceBindings=["control"])
        assert run.output() == "200\n", run.output("stderr")
        assert ("egress_allowed", "127.0.0.1") in run.egress()
        without = await api.run(code, language=language)
        assert without.phase == "failed"


async def test_node_is_denied_every_way_out_and_each_attempt_is_reported(serving):
    code = """
const net = require('node:net'), dns = require('node:dns'), dgram = require('node:dgram'), http = require('node:http');
const say = (error) => console.log(error ? error.code : 'through');
(async () => {
  await new Promise((done) => net.connect(80, '169.254.169.254').on('error', (e) => { say(e); done(); }));
  await new Promise((done) => http.get('http://203.0.113.1/').on('error', (e) => { say(e); done(); }));
  await fetch('http://example.com/').catch((e) => say(e.cause));
  await new Promise((done) => dns.lookup('example.org', (e) => { say(e); done(); }));
  await dns.promises.resolve4('example.net').catch(say);
  await dns.promises.lookup('example.info').catch(say);
  await new Promise((done) => dns.reverse('203.0.113.3', (e) => { say(e); done(); }));
  const socket = dgram.createSocket('udp4');
  await new Promise((done) => socket.send('x', 53, '203.0.113.2', (e) => { say(e); done(); }));
  socket.close();
})();
"""
    async with serving() as api:
        run = await api.run(code, language="node")
        assert run.output().split() == ["EACCES"] * 8, run.output("stderr")
        hosts = [
            *("169.254.169.254", "203.0.113.1", "example.com", "example.org"),
            *("example.net", "example.info", "203.0.113.3", "203.0.113.2"),
        ]
        assert run.egress() == [("egress_denied", host) for host in hosts]


PYTHON_WAYS = {
    "a family that lies": """
class Odd(socket.socket):
    family = property(lambda self: socket.AF_UNIX)
attempt(Odd(socket.AF_INET).connect, ADDRESS)""",
    "the module below socket": "import _socket; attempt(_socket.socket().connect, ADDRESS)",
    "a datagram from below": "import _socket; attempt(_socket.socket(type=2).sendto, b'x', ADDRESS)",
    "a host that lies": """
class Odd(str):
    def lower(self): return '198.51.100.1'
attempt(socket.socket().connect, (Odd(ADDRESS[0]), ADDRESS[1]))""",
    "an address that lies": """
class Odd(tuple):
    def __getitem__(self, index): return ('198.51.100.1', 80)[index]
attempt(socket.socket().connect, Odd(ADDRESS))""",
    "a thread": """
import threading
thread = threading.Thread(target=attempt, args=(socket.socket().connect, ADDRESS))
thread.start(); thread.join()""",
    "a module that was imported again": """
import importlib, sys
del sys.modules["socket"], sys.modules["_socket"]
attempt(importlib.import_module("socket").socket().connect, ADDRESS)""",
}
TRY_IN_A_WORKER = """JSON.stringify("require('node:net').connect(PORT, '127.0.0.1')" +
".on('connect', () => { console.log('through'); process.exit(); }).on('error', (e) => console.log(e.code))")"""
NODE_WAYS = {
    "a binding": """
const { TCP, TCPConnectWrap, constants } = process.binding('tcp_wrap');
console.log(new TCP(constants.SOCKET).connect(new TCPConnectWrap(), '127.0.0.1', PORT) ? 'EACCES' : 'through');""",
    "a worker": f"new (require('worker_threads').Worker)(eval({TRY_IN_A_WORKER}), {{ eval: true }});",
    "a worker with other options": f"""
new (require('worker_threads').Worker)(eval({TRY_IN_A_WORKER}), {{ eval: true, execArgv: [], env: {{}} }});""",
    "a worker whose options change": f"""
let read = false;
const options = {{ eval: true, get execArgv() {{ if (read) return []; read = true; }} }};
new (require('worker_threads').Worker)(eval({TRY_IN_A_WORKER}), options);""",
    "a worker whose options are inherited": f"""
new (require('worker_threads').Worker)(eval({TRY_IN_A_WORKER}), Object.create({{ eval: true, execArgv: [] }}));""",
    "a worker of a worker": f"""
const inner = "new (require('worker_threads').Worker)(" + {TRY_IN_A_WORKER} + ", {{ eval: true }})";
new (require('worker_threads').Worker)(inner, {{ eval: true }});""",
    "an imported worker": f"""
import {{ Worker }} from 'node:worker_threads';
new Worker(eval({TRY_IN_A_WORKER}), {{ eval: true, execArgv: [] }});""",
    "the class below the worker": f"""
const {{ Worker }} = require('worker_threads');
new (Object.getPrototypeOf(class extends Worker {{}}).prototype.constructor)(eval({TRY_IN_A_WORKER}),
  {{ eval: true, execArgv: [] }});""",
    "other name servers": """
try { new (require('dns').Resolver)().setServers(['127.0.0.1:PORT']); console.log('through'); }
catch (error) { console.log('EACCES'); }""",
}


@pytest.mark.parametrize("way", PYTHON_WAYS)
async def test_python_has_no_socket_and_no_thread_that_the_hook_does_not_see(serving, way):
    async with serving() as api:
        url = api.http.base_url
        code = f"{PYTHON_TRY}\nADDRESS = ({url.host!r}, {url.port})\n{PYTHON_WAYS[way]}"
        run = await api.run(code, egress={"mode": "allowlist", "allow": ["198.51.100.0/24"]})
        assert run.output() == "PermissionError\n", run.output("stderr")
        assert run.egress() == [("egress_denied", "127.0.0.1")]


@pytest.mark.parametrize("way", NODE_WAYS)
async def test_node_has_no_binding_and_no_worker_that_the_hook_does_not_see(serving, way):
    async with serving() as api:
        code = NODE_WAYS[way].replace("PORT", str(api.http.base_url.port))
        run = await api.run(code, language="node", egress={"mode": "allowlist", "allow": ["198.51.100.0/24"]})
        assert run.output() == "EACCES\n", run.output("stderr")
        assert run.egress() == [("egress_denied", "127.0.0.1")]


async def test_a_worker_returns_a_result_too(serving):
    code = "new (require('worker_threads').Worker)('enclave.result({ from: 1 })', { eval: true });"
    async with serving() as api:
        assert (await api.run(code, language="node")).result["json"] == {"from": 1}


async def test_what_the_hook_could_not_be_in_is_not_permitted(serving):
    python = """
import importlib.util
for name in ("_interpreters", "_xxsubinterpreters", "_testcapi", "_testinternalcapi"):
    try:
        __import__(name)
    except ImportError as error:
        print(error.name)
# Without the import statement. A Python may lack the module, or have it built in, which no audit event tells of.
spec = importlib.util.find_spec("_testcapi")
if spec is not None and spec.has_location:
    try:
        importlib.util.module_from_spec(spec)
    except ImportError as error:
        assert "is not permitted" in str(error), error
    else:
        print("through")
"""
    node = "try { require('module').register('data:text/javascript,'); } catch (error) { console.log(error.code); }"
    async with serving() as api:
        run = await api.run(python)
        names = ["_interpreters", "_xxsubinterpreters", "_testcapi", "_testinternalcapi"]
        assert run.output().split() == names, run.output("stderr")
        assert (await api.run(node, language="node")).output() == "EACCES\n"


@pytest.mark.parametrize("language", ["python", "node"])
async def test_a_local_socket_of_somebody_else_is_denied_and_one_of_its_own_is_not(serving, tmp_path, language):
    python = """
import os, socket
def attempt(path):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error:
        print(type(error).__name__)
    else:
        print("through")
os.symlink(os.path.dirname(PATH), "link")
server = socket.socket(socket.AF_UNIX); server.bind("own"); server.listen()
for path in (PATH, "link/socket", "\\0abstract", "own"): attempt(path)
"""
    node = """
const fs = require('fs'), net = require('net'), path = require('path');
fs.symlinkSync(path.dirname(PATH), 'link');
const attempt = (name) => new Promise((done) => net.connect(name)
  .on('connect', () => done('through')).on('error', (error) => done(error.code)));
const server = net.createServer((socket) => socket.end()).listen('own', async () => {
  for (const name of [PATH, 'link/socket', '\\0abstract', 'own']) console.log(await attempt(name));
  server.close();
  process.exit();
});
"""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        code = (python if language == "python" else node).replace("PATH", repr(str(tmp_path / "socket")))
        async with serving() as api:
            run = await api.run(code, language=language)
    denied = "PermissionError" if language == "python" else "EACCES"
    assert run.output().split() == [denied, denied, denied, "through"], run.output("stderr")
    hosts = [f"unix:{tmp_path}/socket", "unix:link/socket", "unix:\0abstract"]
    assert run.egress() == [("egress_denied", host) for host in hosts]


async def test_local_sockets_are_not_egress(serving):
    code = """
import asyncio, socket
async def main():
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=left)
    right.send(b"x\\n")
    print((await reader.readline()).decode(), end="")
    writer.close(); right.close()
    await writer.wait_closed()
asyncio.run(main())
"""
    async with serving() as api:
        run = await api.run(code)
        assert (run.output(), run.egress()) == ("x\n", [])
        assert run.phase == "succeeded"
