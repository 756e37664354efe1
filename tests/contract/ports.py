"""Ports for servers that tests start."""

import atexit
import random
import socket
from typing import Final

_NOT_GIVEN_AWAY: Final = range(10_000, 32_768)
"""The kernel takes ports of connections, and of servers that ask for any port, from 32768 on."""

# Not the generator that pytest seeds: processes that test side by side must not choose the same ports.
_choose: Final = random.SystemRandom().choice


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses, and that no other caller gets, in this process or in another that tests."""
    while True:
        port = _choose(_NOT_GIVEN_AWAY)
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            held.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        # The UDP port of the same number stays open until the process ends.
        atexit.register(held.close)
        return port
