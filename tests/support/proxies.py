"""nginx and HAProxy as ordinary processes, with TLS in front, for tests that read streams through them.

Their listening sockets are made here and handed down. So each port is free, and a connection that comes before the
program is ready waits in the socket's queue.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import trustme

DRAIN_SECONDS = 1
"""How long open streams go on after a reload before the proxy cuts them."""
STOP_SECONDS = 10
MAX_CONNECTIONS_WAITING = 1024

Program = Literal["nginx", "haproxy"]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One way to set up a proxy."""

    program: Program
    port: int
    """Where the upstream listens on this machine."""
    http: str = "1.1"
    """What nginx speaks to the upstream. HAProxy speaks what its client does."""
    buffering: bool = False
    gzip: bool = False
    """Whether streams are compressed, although our client asks for none of it."""

    def __str__(self) -> str:
        options = [name for name in ("buffering", "gzip") if getattr(self, name)]
        return " ".join([self.program, f"HTTP/{self.http}", *options])


class Proxy:
    """A running program, and where it serves each site."""

    def __init__(self, process: subprocess.Popen[bytes], reload_signal: signal.Signals, urls: dict[Site, str]) -> None:
        self.urls = urls
        self._process = process
        self._reload_signal = reload_signal

    def reload(self) -> None:
        """Put new workers in the place of the old ones, which cut their streams `DRAIN_SECONDS` later."""
        self._process.send_signal(self._reload_signal)


def missing_programs() -> list[str]:
    """Which of the two programs are not installed."""
    return [program for program in ("nginx", "haproxy") if _path_of(program) is None]


def _path_of(program: str) -> str | None:
    # Debian keeps both where the PATH of an ordinary user does not lead.
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


@contextlib.contextmanager
def serve(
    program: Program, sites: Sequence[Site], folder: Path, ca: trustme.CA, *, silence_seconds: int
) -> Iterator[Proxy]:
    """Run a program that serves these sites, and closes a stream that is silent for so long.

    Whatever the program writes goes to `folder`.
    """
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / f"{program}.pem")
    with contextlib.ExitStack() as stack:
        listeners = {
            site: stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=MAX_CONNECTIONS_WAITING))
            for site in sites
        }
        urls = {site: f"https://127.0.0.1:{_port(listener)}" for site, listener in listeners.items()}
        if program == "nginx":
            process, reload_signal = _start_nginx(listeners, folder, silence_seconds), signal.SIGHUP
        else:
            process, reload_signal = _start_haproxy(listeners, folder, silence_seconds), signal.SIGUSR2
    try:
        yield Proxy(process, reload_signal, urls)
    finally:
        has_ended = process.poll() is not None
        _stop(process)
        if has_ended:
            raise RuntimeError(f"{program} has ended: {(folder / f'{program}.log').read_text()}")


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


_Listeners = dict[Site, socket.socket]


def _start(
    program: Program, arguments: list[str], listeners: _Listeners, folder: Path, **environment: str
) -> subprocess.Popen[bytes]:
    with (folder / f"{program}.log").open("wb") as log:
        return subprocess.Popen(
            [_path_of(program) or program, *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            pass_fds=[listener.fileno() for listener in listeners.values()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that its workers can be killed with it
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # nobody of its session is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _start_nginx(listeners: _Listeners, folder: Path, silence_seconds: int) -> subprocess.Popen[bytes]:
    servers = [_nginx_servers(site, _port(listener)) for site, listener in listeners.items()]
    config = f"""
        daemon off;
        {"user root;" if os.geteuid() == 0 else ""}  # the workers write to a folder of this user's
        worker_processes 1;
        worker_shutdown_timeout {DRAIN_SECONDS}s;
        pid nginx.pid;
        error_log stderr info;
        events {{ worker_connections 1024; }}
        http {{
            access_log nginx-access.log;
            client_body_temp_path temporary; proxy_temp_path temporary; fastcgi_temp_path temporary;
            uwsgi_temp_path temporary; scgi_temp_path temporary;
            ssl_certificate nginx.pem;
            ssl_certificate_key nginx.pem;
            proxy_read_timeout {silence_seconds}s;
            proxy_ignore_headers X-Accel-Buffering;  # the server asks for no buffering; here it comes all the same
            gzip on;
            gzip_proxied any;
            gzip_types text/event-stream;
            {"".join(servers)}
        }}
    """
    (folder / "nginx.conf").write_text(config)
    # This variable is how nginx hands its sockets to a newer nginx that takes its place.
    inherited = "".join(f"{listener.fileno()};" for listener in listeners.values())
    return _start("nginx", ["-p", f"{folder}/", "-c", "nginx.conf"], listeners, folder, NGINX=inherited)


def _nginx_servers(site: Site, port: int) -> str:
    location = f"""
        location / {{
            proxy_pass http://127.0.0.1:{site.port};
            proxy_http_version {site.http};
            proxy_set_header Connection "";
            proxy_buffering {"on" if site.buffering else "off"};
        }}
    """
    if not site.gzip:
        return f"server {{ listen 127.0.0.1:{port} ssl; {location} }}"
    # nginx compresses only where the client asks for it. So one server asks in the client's place, another compresses.
    return f"""
        server {{ listen 127.0.0.1:{port} ssl; location / {{
            proxy_pass http://unix:gzip-{port}.sock:;
            proxy_http_version 1.1;
            proxy_set_header Accept-Encoding gzip;
            proxy_buffering off;
            proxy_read_timeout 1h;  # the other one closes silent streams
        }} }}
        server {{ listen unix:gzip-{port}.sock; {location} }}
    """


def _start_haproxy(listeners: _Listeners, folder: Path, silence_seconds: int) -> subprocess.Popen[bytes]:
    config = f"""
global
    hard-stop-after {DRAIN_SECONDS}s
    nbthread 1
defaults
    mode http
    timeout connect {silence_seconds}s
    timeout client {silence_seconds}s
    timeout server {silence_seconds}s
    retries 0
    option abortonclose
{"".join(_haproxy_section(site, listener.fileno()) for site, listener in listeners.items())}
"""
    (folder / "haproxy.cfg").write_text(config)
    return _start("haproxy", ["-W", "-f", "haproxy.cfg"], listeners, folder)


def _haproxy_section(site: Site, descriptor: int) -> str:
    gzip = """
    http-request set-header Accept-Encoding gzip
    compression algo gzip
    compression type text/event-stream
"""
    return f"""
listen site-{descriptor}
    bind fd@{descriptor} ssl crt haproxy.pem
    {gzip if site.gzip else ""}
    server upstream 127.0.0.1:{site.port} pool-max-conn 0
"""
