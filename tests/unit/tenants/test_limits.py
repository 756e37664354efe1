from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog.testing

from gateway.tenants.limits import Limits, TenantLimits
from gateway.tenants.quota import FrameMeter
from services.common.errors import InvalidRequestError

TOML = """
[every]
concurrent_dubs = 4
storage_bytes = 1_000_000

[tenants.acme]
concurrent_dubs = 8
live_streams = 0
"""


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_tenant_limits_win(suffix: str, tmp_path: Path) -> None:
    """Limits of a tenant win over those of every tenant."""
    file = tmp_path / f"limits{suffix}"
    in_json = {
        "every": {"concurrent_dubs": 4, "storage_bytes": 1_000_000},
        "tenants": {"acme": {"concurrent_dubs": 8, "live_streams": 0}},
    }
    file.write_text(TOML if suffix == ".toml" else json.dumps(in_json))
    limits = Limits(file)
    assert limits.of("acme") == TenantLimits(concurrent_dubs=8, live_streams=0, storage_bytes=1_000_000)
    assert limits.of("beta") == limits.of("default") == TenantLimits(concurrent_dubs=4, storage_bytes=1_000_000)


def test_without_a_file_no_tenant_has_limits() -> None:
    assert Limits(None).of("acme") == TenantLimits()


def test_changed_counts_damaged_does_not(tmp_path: Path) -> None:
    """A changed file counts, and a damaged file leaves the limits as they were."""
    file = tmp_path / "limits.json"
    file.write_text('{"every": {"live_streams": 1}}')
    limits = Limits(file)
    file.write_text('{"every": {"live_streams": 22}}')
    assert limits.of("acme").live_streams == 22
    with structlog.testing.capture_logs() as lines:
        file.write_text('{"every": {"live_streams": "many"}}')
        assert limits.of("acme").live_streams == 22
        os.unlink(file)
        assert limits.of("acme").live_streams == 22
    assert [line["event"] for line in lines] == ["tenant_limits_unusable"] * 2
    file.write_text('{"every": {"live_streams": 333}}')
    assert limits.of("acme").live_streams == 333


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"every": {"concurent_dubs": 1}}', "every.concurent_dubs"),
        ('{"tenants": {"acme": {"live_streams": -1}}}', "tenants.acme.live_streams"),
        ('{"tenants": {"Acme": {}}}', "no name of a tenant"),
        ("[", "cannot read"),
        ("[]", "is wrong"),
    ],
)
def test_mistake_named_by_place(content: str, says: str, tmp_path: Path) -> None:
    """A file with a mistake is refused by its place."""
    file = tmp_path / "limits.json"
    file.write_text(content)
    with pytest.raises(InvalidRequestError, match=says) as caught:
        Limits(file)
    assert caught.value.field == "DUBSTAGE_TENANT_LIMITS_FILE"


def test_frames_count_for_a_minute() -> None:
    now = 1000.0
    meter = FrameMeter(lambda: now)
    meter.add(100)
    now = 1030.9
    meter.add(50)
    meter.add(50)
    assert meter.last_minute() == 200
    assert meter.wait_s(201) == 0.0
    assert meter.wait_s(200) == 30.0  # the first hundred get old
    assert meter.wait_s(100) == 60.0
    assert meter.wait_s(0) == 60.0
    now = 1060.0
    assert meter.last_minute() == 100
    now = 1090.0
    assert meter.last_minute() == 0
