"""`dub` on all real footage, the first seconds of long clips: every frame and pts is kept, and the right frames are dubbed."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from gateway.media.probe import probe
from gateway.pipeline.dub_request import DubRequest
from tests.system.dubbing import SPEECH, Dubber, first_seconds

CLIPS = Path(os.environ.get("DUBSTAGE_CLIPS", Path(__file__).parents[2].parent / "shared" / "clips"))

MOST_S = 4.0
"""Of a longer clip, the beginning is dubbed."""
LONGER_S = {"vr_face1": 8.0, "fr_short_hamilton_clip": 8.0, "d05_face_leaves_frame": 7.5, "d08_audio_silent_5-8s": 6.5}
"""Clips that show later what is special about them: pauses of the camera, cuts, an empty picture, silence."""


def rows() -> list[dict[str, str]]:
    """Rows of the catalogue below video/ and derived/; one that skips where there are no clips."""
    try:
        with (CLIPS / "catalogue.csv").open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if row["file"].startswith(("video/", "derived/"))]
    except FileNotFoundError:
        return [{"file": "video/hp_31.mp4", "seconds": "0", "audio": "", "expected": ""}]


@pytest.mark.parametrize("row", rows(), ids=lambda row: Path(row["file"]).stem)
def test_every_frame_and_pts_is_kept_and_what_the_catalogue_expects_is_dubbed(
    row: dict[str, str], clips, dubber: Dubber, tmp_path: Path
) -> None:
    footage = clips.path(row["file"])
    most_s = LONGER_S.get(footage.stem, MOST_S)
    if float(row["seconds"]) > most_s:
        footage = first_seconds(footage, tmp_path / footage.name, most_s)
    output = tmp_path / f"dub{footage.suffix}"
    request = DubRequest(footage=footage, speech=SPEECH if row["audio"] == "none" else None, output=output, method="ugc")
    outcome = dubber(request)

    before, after = probe(footage).video, probe(output).video
    times = [[int(pts) * video.time_base for pts in video.pts] for video in (before, after)]
    assert times[0] == times[1]
    assert (after.pixel.name, after.orientation.upright_size) == (before.pixel.name, before.orientation.upright_size)

    rendered = outcome.plan.rendered()
    if "dub all frames" in row["expected"] or row["expected"].startswith(("dub", "new speech: dub")):
        assert rendered.mean() >= 0.98, outcome.plan.counts()
    areas = outcome.facts.mask_area_px
    assert set(areas) == set(np.nonzero(rendered)[0].tolist())
    assert max(areas.values(), default=0) <= before.width * before.height
