"""A dub keeps the slow expression of the person in the footage, and shuts the lips where nobody speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest, Expression
from gateway.pipeline.records import EXPRESSION_RECORD
from services.common.array_types import Float32
from services.common.face.landmarks import lip_width, mouth_opening
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, cut, sha256, track, write_wav

SECONDS = 2.6
END_S = 4.88
"""End of the clip, in whose last seconds the woman begins to smile."""


def film(dubber: Dubber, footage: Path, speech: Path, expression: Expression) -> Path:
    output = footage.with_name(f"{expression}.mkv")
    dubber(DubRequest(footage=footage, speech=speech, output=output, method="ugc", codec="ffv1", expression=expression))
    return output


def mouths(path: Path) -> Float32:
    """Mouth of the only face of every frame, head space."""
    return np.stack([frame.faces[0].mouth_landmarks for frame in track(path)])


def slow_width(path: Path) -> Float32:
    """Width of the lips, averages of one second."""
    return np.convolve(lip_width(mouths(path)), np.full(25, 0.04), mode="valid").astype(np.float32)


@pytest.fixture
def woman(clips: Any, tmp_path: Path) -> Path:
    return cut(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mkv", END_S - SECONDS, END_S)


@pytest.fixture
def man_without_sound(carphone: Path, tmp_path: Path) -> Path:
    return cut(carphone, tmp_path / "footage.mkv", 1.0, 1.0 + SECONDS)


def test_a_dub_that_is_run_again_finds_the_expression_and_gives_the_same_bytes(woman: Path, dubber: Dubber, tmp_path: Path) -> None:
    request = DubRequest(footage=woman, speech=SPEECH, output=tmp_path / "dub.mkv", method="ugc", enrol=UNPERSONALIZED)
    made: list[tuple[str, bytes]] = []
    for _ in range(2):
        job = DubJob(request, dubber.host.stages, dubber.store, dubber.jobs)
        steps: list[str] = []
        dubber.host.run(job.run(lambda step, done, total, steps=steps: steps.append(step)))  # type: ignore[misc]
        assert job.folder is not None
        assert not list(job.folder.glob(".*"))
        made.append((sha256(request.output), (job.folder / "expression.bin").read_bytes()))
        assert ("expression" in steps) == (len(made) == 1)
    job.discard()
    assert made[0] == made[1]
    assert len(made[0][1]) == round(SECONDS * 25) * EXPRESSION_RECORD.itemsize


@pytest.mark.parametrize(("footage", "share"), [("woman", 0.6), ("man_without_sound", 0.9)])
def test_over_a_second_the_lips_are_as_wide_as_in_the_footage(footage: str, share: float, request: Any, dubber: Dubber) -> None:
    source = request.getfixturevalue(footage)
    real = slow_width(source)
    kept, neutral = (np.abs(slow_width(film(dubber, source, SPEECH, how)) - real).mean() for how in ("keep", "neutral"))
    assert kept < share * neutral


def test_a_smile_shows_in_silence_on_shut_lips(woman: Path, dubber: Dubber, tmp_path: Path) -> None:
    silence = write_wav(tmp_path / "silence.wav", np.zeros(int(SECONDS * 16000)), 16000)
    seen = mouths(film(dubber, woman, silence, "keep"))
    assert np.percentile(mouth_opening(seen), 90) < 1.5
    width = lip_width(seen)
    assert width[-20:-10].mean() > width[10:20].mean() + 4.0
