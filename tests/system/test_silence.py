"""Where nobody speaks the mouth is shut: in silence, noise and music, and in sound of its own that holds no speech.

What "shut" means was measured with the raw tracker, in crop pixels (the mouth is about 70 wide). On one picture of a shut mouth,
shifted by parts of a pixel and with sensor noise added (40 times each for six people of the clips), it reads 0.1 to 0.4 on average
and up to 1.1; on single dubbed frames in which the lips touch to the eye, up to 3.5, as it follows the shine of lips.
The same people's mouths open to 12 to 40 while they talk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gateway.pipeline.dub import DubRequest
from gateway.pipeline.plan import SILENT
from services.common.landmarks import mouth_opening
from tests.system.dubbing import Dubber, cut, track, write_wav

SHUT_PX = 1.5
SINGLE_FRAME_PX = 4.0
SECONDS = 4


def openings(film: Path) -> npt.NDArray[np.float32]:
    """The opening of the only mouth of every frame, as measured."""
    return np.array([mouth_opening(frame.faces[0].mouth_landmarks) for frame in track(film)])


def noise(_: Any, folder: Path) -> Path:
    return write_wav(folder / "noise.wav", np.random.default_rng(5).normal(0, 0.1, SECONDS * 16000), 16000)


def digital_silence(_: Any, folder: Path) -> Path:
    return write_wav(folder / "silence.wav", np.zeros(SECONDS * 16000), 16000)


def chords(_: Any, folder: Path) -> Path:
    """Four struck chords, a second each, of five overtones a note."""
    seconds = np.arange(SECONDS * 44100) / 44100
    sound = np.zeros_like(seconds)
    for beat, root in enumerate((220.0, 174.6, 130.8, 196.0)):
        struck = np.where((seconds >= beat) & (seconds < beat + 1), np.exp(-1.5 * np.clip(seconds - beat, 0, None)), 0.0)
        for note in (1.0, 1.26, 1.5):
            sound += struck * sum(0.1 / part * np.sin(2 * np.pi * root * note * part * seconds) for part in range(1, 6))
    return write_wav(folder / "chords.wav", sound, 44100)


def recorded_music(clips: Any, _: Path) -> Path:
    return Path(clips.path("video/lp_s18.mp4"))


def assert_shut(opening: npt.NDArray[np.float32]) -> None:
    assert np.median(opening) < SHUT_PX
    assert opening.max() < SINGLE_FRAME_PX


@pytest.mark.parametrize("sound", [digital_silence, noise, chords, recorded_music])
def test_what_is_not_speech_shuts_a_talking_mouth(sound: Any, clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage = cut(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mp4", 0, 3)
    output = tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=footage, speech=sound(clips, tmp_path), output=output))
    assert set(outcome.plan.counts()) == {"SILENT"}
    assert_shut(openings(output))


@pytest.mark.parametrize(
    ("clip", "seconds"),
    [("lp_d9", 3), ("lp_d3", 3), ("lp_d18", 3), ("lp_s18", 2), ("lp_s32", 6)],
    ids=["room-noise", "silence-head-turns", "silence-exercises", "music", "silence-smile"],
)
def test_own_sound_without_speech_shuts_the_mouth(clip: str, seconds: int, clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The smile shows teeth nearly all the time: the little that is seen of a mouth less open is in the whole clip."""
    footage = cut(clips.path(f"video/{clip}.mp4"), tmp_path / "footage.mp4", 0, seconds)
    output = tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=footage, speech=None, output=output))
    assert set(outcome.plan.counts()) == {"SILENT"}
    assert_shut(openings(output))


def test_a_muted_stretch_of_speech_shuts_the_mouth_and_only_there(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """Muted from 5 to 8 s: 1.4 to 4.4 s of the cut. A mouth needs 0.3 s to shut, and opens 0.1 s ahead of the sound."""
    footage = cut(clips.path("derived/d08_audio_silent_5-8s.mp4"), tmp_path / "footage.mp4", 3.6, 8.6)
    output = tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=footage, speech=None, output=output))
    muted = slice(round(25 * 1.4) + 8, round(25 * 4.4) - 3)
    opening = openings(output)
    assert set(outcome.plan.reason[muted]) == {SILENT}
    assert_shut(opening[muted])
    assert np.median(opening[: round(25 * 1.4)]) > 5
