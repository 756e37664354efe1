"""The verdict of a second C2PA reader, encypher-c2pa. It shares no code with c2pa, which dubstage signs and reads with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.provenance.binding import embedded_type, sidecar_of


class SecondVerdict(NamedTuple):
    """Verdict of the second reader: `integrity`, `state` (as C2PA names the states of manifests), and the codes of all failures."""

    integrity: str
    state: str
    failures: list[str]


def second_verdict(video: Path, trusted: bytes) -> SecondVerdict:
    """Return the verdict on a video, or skip the test where the reader is not installed.

    Args:
        trusted: certificates, PEM, of the only authorities that are trusted.
    """
    reader = pytest.importorskip("encypher_c2pa", reason="the package encypher-c2pa is not installed: make setup-dev")
    os.environ["ENCYPHER_C2PA_TELEMETRY"] = "off"
    media_type, sidecar = embedded_type(video), None
    if media_type is None:
        # The reader knows no Matroska. The digest in a sidecar is that of all bytes, whatever their type.
        media_type, sidecar = "video/x-msvideo", sidecar_of(video).read_bytes()
    report = reader.verify(
        video.read_bytes(), media_type, manifest_store=sidecar, trust_pem=trusted.decode("ascii"), no_default_trust=True
    )
    failures = [failure["code"] for failure in report["validation_results"]["failure"]]
    return SecondVerdict(report["integrity"], report["validation_state"], failures)
