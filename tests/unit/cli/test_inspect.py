"""Tests of what `dubstage inspect` says of a watermark."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.cli.inspect import WatermarkResult, watermark_lines
from gateway.provenance.verdict import ManifestState, Standing
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import PUBLIC, Payload

MARK = Finding(
    log10_chance=-40.0,
    soft=np.ones(64),
    payload=Payload.of_message(0x8C933F43C),
    version=PUBLIC,
    own=True,
    agreeing=63,
    spans=((0.0, 20.08),),
    log10_forged=0.0,
)
SENTENCES = [
    (Standing.THIS_VIDEO, ManifestState.TRUSTED, "of this video. It fits the signed manifest"),
    (
        Standing.CLUE,
        ManifestState.VALID,
        "of this installation. This is a clue, no proof: the signer of the manifest is unknown",
    ),
]


@pytest.mark.parametrize(("standing", "state", "said"), SENTENCES)
def test_a_line_has_one_fact(standing: Standing, state: ManifestState, said: str) -> None:
    assert watermark_lines(WatermarkResult(MARK, standing, state)) == [
        f"watermark: {MARK.payload}, {said}",
        "certainty: 63 of 64 bits were read without an error; 1 of 10^40 videos without a watermark shows as much by chance",
        "watermarked: 0.0 s to 20.1 s",
    ]
