"""In which order the addresses of a name are tried."""

from __future__ import annotations

import socket

from enclave.transport.http11._race import in_turns
from enclave.transport.http11._resolver import Address


def test_the_families_take_turns_and_the_system_chooses_the_first():
    v4 = [Address(socket.AF_INET, (f"192.0.2.{number}", 80)) for number in range(4)]
    v6 = [Address(socket.AF_INET6, (f"2001:db8::{number}", 80, 0, 0)) for number in range(2)]
    assert in_turns([*v6, *v4]) == [v6[0], v4[0], v6[1], v4[1], v4[2], v4[3]]
    assert in_turns([*v4, *v6]) == [v4[0], v6[0], v4[1], v6[1], v4[2], v4[3]]
    assert in_turns(v4) == v4
