"""Figures of the appearance of a mouth, on real footage: planted faults alarm, the own video does not. Strips of an evaluation."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.reports.appearance import OwnMouth, mouth_appearance, skin_light
from research.evaluation.planted_faults import FAULTS, MouthClip, detections, mouths_of_video
from research.stage_host import StageHost
from tests.system.dubbing import cut

SEEN = {
    ("gold teeth (b*)", "tint_alarms"): 0.8,
    ("grey veil (opacity)", "tint_alarms"): 0.5,
    ("grey veil (opacity)", "low_contrast"): 0.3,
    ("second nostrils (darkness)", "nostril_alarms"): 0.8,
    ("blurred inside (px)", "low_contrast"): 0.6,
    ("clothing moved (px)", "clothing_moved"): 0.8,
}
"""Least share of alarms with the third of the five strengths or a stronger one."""


@pytest.fixture(scope="module")
def clip(clips: Any, host: StageHost, tmp_path_factory: pytest.TempPathFactory) -> MouthClip:
    """A woman who speaks for nearly five seconds, close."""
    path = cut(clips.path("video/vr_face5.mp4"), tmp_path_factory.mktemp("appearance") / "clip.mkv", 0.0, 4.6)
    return host.run(mouths_of_video(host.stages, path))


@pytest.mark.long
def test_planted_faults_are_seen(clip: MouthClip) -> None:
    found = detections(clip)
    assert {fault for fault, _ in found} == set(FAULTS)
    for (fault, name), rows in found.items():
        figures = np.nanmean(np.array(rows), axis=0)
        if (fault, name) in SEEN:
            assert figures[0] <= 0.2, (name, "in the real video")
            assert max(figures[3:]) >= SEEN[fault, name], (fault, name)
            assert figures[5] >= figures[1] - 0.01, (fault, name, "a stronger fault is seen better")
    popping, seam, jump = (
        np.nanmean(np.array(found[key]), axis=0)
        for key in (("popping (share)", "popping"), ("soft seam (px)", "seam_sharpness"), ("lighter lips (share)", "lip_jump"))
    )
    assert popping[5] > 1.5 * popping[0]
    assert seam[5] < 0.7 * seam[0] or np.isnan(seam).all(), "shut lips are rare"
    assert jump[5] > 1.3 * jump[0]


def test_own_frames_do_not_alarm(clip: MouthClip) -> None:
    seen = mouth_appearance(clip.boxes, clip.points, skin_light(clip.boxes, clip.points))
    own = OwnMouth.of(seen)
    assert np.nanmean(own.tinted(seen)) <= 0.05
    assert np.nanmean(own.shaded(seen)) <= 0.05
    assert np.nanmean(own.dull(seen)) == pytest.approx(0.1, abs=0.02)


@pytest.mark.long
def test_evaluation_writes_strips(clips: Any, forked_dubstage: Any, tmp_path: Path) -> None:
    """One command writes a strip of each variant, the same frames of the real video in each."""
    clip = cut(clips.path("video/vr_face5.mp4"), tmp_path / "clip.mkv", 0.0, 4.0)
    variants = ("mean_mouth", "oracle_full")
    options = ("--no-personalize", "--variants", ",".join(variants), "--strips", tmp_path / "strips")
    done = forked_dubstage("evaluate", clip, *options, timeout=400)
    assert done.returncode == 0, done.stderr
    paths = sorted((tmp_path / "strips").iterdir())
    assert [path.name for path in paths] == [f"00_clip_mkv_{name}.png" for name in variants]
    assert all(str(path) in done.stdout for path in paths)
    still, moved = (np.asarray(cv2.imread(str(path))) for path in paths)
    rows = np.array_split(np.arange(len(still)), 6)
    for number, row in enumerate(rows):
        same = (still[row[4:-4]] == moved[row[4:-4]]).all()
        assert same == (number % 2 == 0), "the real video is the same, the dub is not"
