"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_NOT_GIVEN_AWAY = range(10_000, 32_768)
"""The kernel takes ports of connections, and of servers that ask for any port, from 32768 on."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses, and that no other process gets by chance before the test uses the port."""
    # Not the generator that pytest seeds: processes that test side by side must not choose the same ports.
    choose = random.SystemRandom().choice
    while True:
        port = choose(_NOT_GIVEN_AWAY)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
