"""Runs a Python workload: `python -I -u python_runner.py <file>`, in the workload's own process.

It uses the standard library only. It gives the program a global `enclave`, and denies network access that the policy
does not allow, in every thread and however a socket is made. Then it stands aside: the program is `__main__`, its
tracebacks show no frame of this file, and its exit code is its own. The hook keeps honest programs in bounds. Native
code and child processes do not pass through it.
"""

from __future__ import annotations

import _socket
import builtins
import json
import os
import sys
import threading
import types

TYPE_CHECKING = False  # as in `typing`, whose import would cost every workload 5 ms
if TYPE_CHECKING:
    import ipaddress
    import socket
    from typing import Any

METADATA = "169.254.169.254"
METADATA_NAMES = {"metadata", "metadata.google.internal", "instance-data"}
INTERPRETERS = {"_interpreters", "_xxsubinterpreters", "_testcapi", "_testinternalcapi"}
"""The modules that can make another interpreter in this process."""
REPORT_LOCK = threading.RLock()

# They are bound here, so that a program which replaces them does not replace ours.
_write = os.write
_encode = json.dumps


def report(document: dict[str, Any]) -> None:
    """Write one report line to standard output. Thanks to the NUL it may follow half a line of the program's."""
    rest = b"\0__ENCLAVE__ " + _encode(document, allow_nan=False).encode() + b"\n"
    with REPORT_LOCK:
        while rest:
            rest = rest[_write(1, rest) :]


def result(value: Any) -> None:
    """Return `value`, any JSON value, from the session. The last call counts.

    Raises:
        TypeError: the value holds something that JSON cannot express.
        ValueError: it holds NaN or an infinity, or contains itself.
    """
    report({"t": "result", "json": value})


class Egress:
    """Decides on addresses, and reports each decision."""

    def __init__(self, policy: dict[str, Any], directory: str) -> None:
        self._networks = [_network(cidr) for cidr in policy["allow"]]
        self._services = {(str(host), int(port)) for host, port in policy["services"]}
        self._deny_all = policy["mode"] == "deny_all"
        self._directory = os.path.realpath(directory)  # pathlib would cost 5 ms

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """The hook for `sys.addaudithook`. Raises PermissionError for what is denied."""
        # This hook would not be in another interpreter of the process, and only a new one could be.
        if event == "import" and args[0] in INTERPRETERS:
            raise ImportError("another interpreter in this process is not permitted", name=args[0])
        if not event.startswith("socket."):
            return
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            if args[1] is not None:
                self._check_address(args[0], args[1])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            self._check_name(args[0])
        elif event == "socket.getnameinfo":
            self._check_name(args[0][0])

    def _check_address(self, sock: socket.socket, address: Any) -> None:
        family = _family(sock)
        if family in (_socket.AF_INET, _socket.AF_INET6):
            host, port = _parts(address)[:2]
            host = _text(host)
            self._settle(host, allowed=(host, port) in self._services or self._permits(host))
        elif family == getattr(_socket, "AF_UNIX", None):
            self._check_path(os.fsdecode(address))
        elif family != getattr(_socket, "AF_NETLINK", None):  # the kernel is no network
            self._settle(f"address family {family}", allowed=False)

    def _check_path(self, path: str) -> None:
        is_abstract = path.startswith("\0")
        if is_abstract or not os.path.realpath(path).startswith(self._directory + os.sep):
            self._settle(f"unix:{path}", allowed=False)

    def _check_name(self, name: Any) -> None:
        host = _text(name)
        if not host or any(host == service for service, _ in self._services):
            return
        # Under an allowlist a name may be resolved: the connection to its address is what is decided.
        if self._deny_all or host == METADATA or host in METADATA_NAMES:
            self._settle(host, allowed=False)

    def _permits(self, host: str) -> bool:
        if self._deny_all:
            return False
        try:
            address = _address(host.partition("%")[0])
        except ValueError:
            # A name, which the C library would resolve. Only an address can be decided.
            return False
        return str(address) != METADATA and any(address in network for network in self._networks)

    def _settle(self, host: str, *, allowed: bool) -> None:
        report({"t": "egress", "host": host, "ok": allowed})
        if not allowed:
            raise PermissionError(1, f"egress to {host} is denied by the session's policy")


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    import ipaddress  # noqa: PLC0415 - only an allowlist needs it

    return ipaddress.ip_network(cidr)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    import ipaddress  # noqa: PLC0415 - only an allowlist needs it

    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _family(sock: socket.socket) -> int:
    """What the class below all others says, because a program may give a subclass that says otherwise."""
    for base in reversed(type(sock).__mro__):
        member = vars(base).get("family")
        if type(member) is types.MemberDescriptorType:
            family: int = member.__get__(sock)
            return family
    return -1


def _parts(address: tuple[Any, ...]) -> tuple[Any, ...]:
    base: Any = tuple  # whatever a subclass may answer
    plain: tuple[Any, ...] = base.__add__(address, ())
    return plain


def _text(host: Any) -> str:
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("ascii", "replace").lower()
    # A subclass of str may answer anything else.
    return str.lower(host) if isinstance(host, str) else ""


def install(path: str) -> types.ModuleType:
    """Prepare the interpreter. Returns the program's empty `__main__`."""
    enclave = types.ModuleType("enclave", "The global `enclave` of a workload.")
    vars(enclave)["result"] = result
    sys.modules["enclave"] = enclave  # `import enclave` inside a workload means this one
    builtins.__dict__["enclave"] = enclave
    main = types.ModuleType("__main__")
    vars(main).update(__file__=path, __builtins__=builtins)
    sys.modules["__main__"] = main
    sys.argv[:] = [path]
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - pathlib would cost 5 ms
    policy = json.loads(os.environ.pop("ENCLAVE_RUNNER_POLICY"))
    sys.addaudithook(Egress(policy, os.getcwd()).audit)  # noqa: PTH109 - pathlib would cost 5 ms
    return main


def run(path: str) -> None:
    """Run the program. It returns, or leaves by SystemExit, as the program does."""
    main = install(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib would cost 5 ms
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), vars(main))  # noqa: S102
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the interpreter's own last resort, without the frame of this one
        traceback = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    else:
        return
    sys.exit(code)


if __name__ == "__main__":
    run(sys.argv[1])
