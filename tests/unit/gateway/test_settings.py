"""Settings of the gateway: impossible addresses are refused, numbers have ranges, and the documents list all settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from charts.schema import SETTINGS
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.server.settings import PREFIX, StageSettings, load_settings

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


@pytest.mark.parametrize("host", ["localhost:51051", "10.0.0.1:50051", "[::1]:50051"])
def test_host_with_port_refused(host: str) -> None:
    """A host with a port is refused with the remedy."""
    with pytest.raises(InvalidRequestError, match=r"DUBSTAGE_STAGES_HOST: .* has a port: give the host alone") as caught:
        load_settings(GatewaySettings, stages_host=host)
    assert "DUBSTAGE_AUDIO_ENDPOINT=HOST:PORT" in caught.value.message


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("render-node", "render-node:50055"),
        ("10.0.0.1", "10.0.0.1:50055"),
        ("::1", "[::1]:50055"),
        ("[::1]", "[::1]:50055"),
        ("dns:///stages", "dns:///stages:50055"),
    ],
)
def test_host_gets_default_ports(host: str, target: str) -> None:
    """A host without a port gets the default port of each stage."""
    assert load_settings(GatewaySettings, stages_host=host).endpoint("render") == target


def test_an_endpoint_without_a_port_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_FACE_ENDPOINT: 'face-node' is no address with a port"):
        load_settings(GatewaySettings, face_endpoint="face-node")


@pytest.mark.parametrize("kind", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_number_has_a_range(kind: type[StageSettings]) -> None:
    properties = kind.model_json_schema()["properties"]
    numbers = {name: schema for name, schema in properties.items() if schema.get("type") in ("integer", "number")}
    without = [name for name, rule in numbers.items() if "maximum" not in rule or not {"minimum", "exclusiveMinimum"} & rule.keys()]
    assert without == []


@pytest.mark.parametrize("kind", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_setting_is_in_the_reference(kind: type[StageSettings]) -> None:
    known = set(re.findall(r"^\| `(DUBSTAGE_\w+)` \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    assert [name for name in kind.model_fields if f"{PREFIX}{name}".upper() not in known] == []
