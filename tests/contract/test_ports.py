"""Ports of tests: one caller each, in every process that tests."""

import subprocess
import sys

import pytest

from tests.contract import ports


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [ports.free_port(), ports.free_port()]
    drawn = iter(given)
    monkeypatch.setattr(ports, "_choose", lambda _: next(drawn))
    with pytest.raises(StopIteration):
        ports.free_port()


def test_ports_differ_between_processes() -> None:
    port = ports.free_port()
    draw = f"from tests.contract import ports; drawn = iter([{port}]); ports._choose = lambda _: next(drawn); ports.free_port()"
    second = subprocess.run([sys.executable, "-c", draw], capture_output=True, text=True, check=False)
    assert "StopIteration" in second.stderr
