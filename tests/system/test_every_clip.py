"""`dub` on all real footage, the first seconds of long clips: every frame and pts is kept, and the right frames are dubbed."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from tests.system.dubbing import SPEECH, Dubber, first_seconds, frame_seconds

CLIPS = Path(os.environ.get("DUBSTAGE_CLIPS", Path(__file__).parents[2].parent / "shared" / "clips"))

MOST_S = 1.3
"""The beginning of a longer clip is dubbed. Later parts of some clips (silence, cuts, an empty picture) have tests of their own."""
ALWAYS = ("vr_face1", "d10_50fps_no_audio")
"""Clips that `make test` dubs: a variable frame rate, and 50 frames/s without sound. All encodings and turned frames go through
decoder, compositing and encoder in test_media_exactness. Covered and lost faces, several speakers, late sound and silence have
tests of their own."""


def rows() -> list[dict[str, str]]:
    """Rows of the catalogue below video/ and derived/; one that skips where there are no clips."""
    try:
        with (CLIPS / "catalogue.csv").open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if row["file"].startswith(("video/", "derived/"))]
    except FileNotFoundError:
        return [{"file": "video/hp_31.mp4", "seconds": "0", "audio": "", "expected": ""}]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=stem, marks=[] if stem in ALWAYS else pytest.mark.long)
        for row in rows()
        for stem in [Path(row["file"]).stem]
    ],
)
def test_every_clip_keeps_frames_and_pts(row: dict[str, str], clips, dubber: Dubber, tmp_path: Path) -> None:
    """Every frame and PTS is kept and what the catalogue expects is dubbed."""
    footage = clips.path(row["file"])
    if float(row["seconds"]) > MOST_S:
        footage = first_seconds(footage, tmp_path / footage.name, MOST_S)
    output = tmp_path / f"dub{footage.suffix}"
    request = DubRequest(footage=footage, speech=SPEECH if row["audio"] == "none" else None, output=output, method="dubstage")
    outcome = dubber(request)

    assert frame_seconds(output) == frame_seconds(footage)
    before, after = probe(footage).video, probe(output).video
    assert (after.pixel.name, after.orientation.upright_size) == (before.pixel.name, before.orientation.upright_size)

    rendered = outcome.plan.rendered()
    if "dub all frames" in row["expected"] or row["expected"].startswith(("dub", "new speech: dub")):
        assert rendered.mean() >= 0.98, outcome.plan.counts()
    areas = outcome.facts.mask_area_px
    np.testing.assert_array_equal(areas > 0, rendered)
    assert areas.max() <= before.width * before.height
