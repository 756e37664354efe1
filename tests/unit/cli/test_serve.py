from __future__ import annotations

import socket

import pytest

from gateway.cli.serve import MODULES, check_ports, ports_of
from services.common.errors import InvalidRequest
from services.common.settings import DEFAULT_PORTS


def test_every_server_has_its_default_port() -> None:
    assert ports_of({}) == DEFAULT_PORTS
    assert set(MODULES) == set(DEFAULT_PORTS)


def test_a_port_can_be_chosen_for_each_server() -> None:
    assert ports_of({"DUBSTAGE_FACE_PORT": "7000", "DUBSTAGE_MOTION_PORT": ""})["face"] == 7000


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "50052"])
def test_what_is_no_free_port_number_is_refused_with_its_variable(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"DUBSTAGE_(AUDIO|FACE)_PORT") as caught:
        ports_of({"DUBSTAGE_AUDIO_PORT": text})
    assert caught.value.field in ("DUBSTAGE_AUDIO_PORT", "DUBSTAGE_FACE_PORT")


def test_a_taken_port_is_refused_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequest, match=rf"render server cannot listen on 127\.0\.0\.1:{port}") as caught:
            check_ports("127.0.0.1", {"render": port})
    assert "DUBSTAGE_RENDER_PORT" in caught.value.message
