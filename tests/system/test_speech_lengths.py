"""Speech that is longer or shorter than the footage, and sound of any rate and number of channels."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.audio.resampler import AudioResampler

from gateway.dub.analyse.frame_plan import DUBBED, SILENT
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.sound.speech import extract_features, motion_frames_for
from gateway.dub.state.records import FEATURE_RECORD, RecordFile
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from research.stage_host import StageHost
from services.common.face.landmarks import mouth_opening
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, cut, track, write_wav

SINGLE_FRAME_PX = 4.0
"""See test_silence."""
FOOTAGE_S = 2.08


def demo_speech(rate: int, seconds: float) -> npt.NDArray[np.float64]:
    """The beginning of the demo's speech as float [T] at a rate."""
    resampler = AudioResampler(format="flt", layout="mono", rate=rate)
    with av.open(str(SPEECH)) as sound:
        parts = [part.to_ndarray()[0] for frame in sound.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)[: int(seconds * rate)].astype(np.float64)


def _openings(video: Path) -> npt.NDArray[np.float64]:
    """The mouth's opening in every frame, pixels."""
    return np.array([mouth_opening(frame.faces[0].mouth_landmarks) for frame in track(video)])


@pytest.fixture(scope="module")
def footage(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut(clips.path("video/vr_face5.mp4"), tmp_path_factory.mktemp("footage") / "footage.mp4", 0, FOOTAGE_S)


@pytest.fixture(scope="module")
def dubbed(footage: Path, dubber: Dubber) -> Iterator[DubOutcome]:
    """The footage with the demo's speech, which is longer. What the dub learned of the person stays as long as its job."""
    output = footage.with_name("dub.mp4")
    request = DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", enrol=UNPERSONALIZED)
    job = DubJob(request, dubber.host.stages, dubber.store, footage.with_name("jobs"))
    yield dubber.host.run(job.run(lambda *_: None))
    job.discard()


@pytest.mark.long
def test_longer_speech_is_cut(footage: Path, dubbed: DubOutcome) -> None:
    """Speech longer than the footage is cut and said so."""
    output = dubbed.written.path
    assert any("longer than the footage" in warning for warning in dubbed.warnings)
    assert (dubbed.plan.reason == DUBBED).sum() > 30
    with av.open(str(output)) as video:
        sound_s = sum(frame.samples / frame.sample_rate for frame in video.decode(audio=0))
    assert probe(output).video.num_frames == probe(footage).video.num_frames
    assert abs(sound_s - FOOTAGE_S) < 0.1


@pytest.mark.parametrize("rate", [16000, 48000])
def test_speech_longer_than_video(host: StageHost, tmp_path: Path, rate: int) -> None:
    """Videos that end anywhere in the reader's chunks of speech, just before their ends above all."""
    chunk, frame = 16384, rate // 25
    speech = SoundReader(write_wav(tmp_path / "speech.wav", demo_speech(rate, 5.0), rate)).speech()
    total = sum(len(samples) for samples in speech.chunks)
    ends = [2 * chunk + offset for offset in (-frame - 1, -frame, -frame // 2, -1, 0, 1, frame, chunk // 2)]
    ends += [total - frame - 1, total - frame, total - 1, total, total + 5000]
    with RecordFile(tmp_path / "features", FEATURE_RECORD) as features:
        for end in ends:
            video = Fraction(end, rate)
            extent = host.run(extract_features(host.stages, speech, features, motion_frames_for(video), video))
            assert extent.longer == (total > end + frame), (end, total)
            assert extent.used_s == min(total, end) / rate


@pytest.mark.long
def test_mouth_rests_after_short_speech(footage: Path, dubbed: DubOutcome, dubber: Dubber, tmp_path: Path) -> None:
    """After shorter speech the mouth rests, and the report says so."""
    speech = write_wav(tmp_path / "short.wav", demo_speech(16000, 1.2), 16000)
    output = tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=footage, speech=speech, output=output, method="dubstage", actor=dubbed.actor))
    assert any("ends at 1.20 s" in warning for warning in outcome.warnings)
    # The video ends before the mouth has shut, a second after the speech.
    rest = slice(round(25 * 1.2) + 9, None)
    assert set(outcome.plan.reason[rest]) == {SILENT}
    opening = _openings(output)
    assert opening[rest].mean() < 0.75 * SINGLE_FRAME_PX
    assert opening[rest].max() < 1.25 * SINGLE_FRAME_PX
    assert opening[: round(25 * 1.2)].max() > 2 * SINGLE_FRAME_PX


@pytest.mark.long
def test_speech_rates_and_channels(footage: Path, dubbed: DubOutcome, dubber: Dubber, tmp_path: Path) -> None:
    """Telephone sound and a 7.1 studio recording are heard, and move the mouth, as the same speech does as it was recorded."""
    telephone = write_wav(tmp_path / "telephone.wav", demo_speech(8000, FOOTAGE_S), 8000)
    studio = write_wav(tmp_path / "studio.wav", np.stack([demo_speech(96000, FOOTAGE_S)] * 8, axis=1), 96000)
    # The enrolment of the person is the same for all speech.
    request = DubRequest(footage=footage, speech=telephone, output=tmp_path / "dub.mp4", method="dubstage", actor=dubbed.actor)
    outcome = dubber(request)
    assert (outcome.plan.reason == dubbed.plan.reason).mean() > 0.9
    assert np.corrcoef(_openings(outcome.written.path), _openings(dubbed.written.path))[0, 1] > 0.8

    def features(speech: Path, name: str) -> npt.NDArray[np.float32]:
        count, end = motion_frames_for(Fraction(FOOTAGE_S)), Fraction(FOOTAGE_S)
        with RecordFile(tmp_path / name, FEATURE_RECORD) as records:
            dubber.host.run(extract_features(dubber.host.stages, SoundReader(speech).speech(), records, count, end))
            return np.asarray(records.read(0, count)["posteriorgram"]).copy()

    # The features decide on the mouth, so that no second dub is needed. At a wrong rate, or 60 ms late, 56 % of phones are equal.
    heard, recorded = features(studio, "studio"), features(SPEECH, "recorded")
    assert (heard.argmax(-1) == recorded.argmax(-1)).mean() > 0.97


def test_footage_too_short_for_lag(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """Footage too short to tell its lag is dubbed all the same."""
    footage = cut(clips.path("video/vr_face2.mp4"), tmp_path / "short.mp4", 0, 1.12)
    outcome = dubber(DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="dubstage"))
    assert outcome.plan.rendered().mean() >= 0.98, (outcome.plan.counts(), outcome.warnings)
    assert outcome.actor.lag_frames is None
