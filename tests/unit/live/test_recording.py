from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from gateway.consent.record import Consent, consent_line, digest_of
from gateway.live.live_claim import ShownActor
from gateway.live.performance import Performance
from gateway.live.recording import Recording
from gateway.provenance.credential import installation_credential
from gateway.provenance.facts import ModelFacts
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import State, verdict_of
from services.common.errors import InvalidRequest

SAMPLES = np.sin(np.arange(16000) / 10).astype(np.float32)[:, None]


def test_a_recording_has_every_frame_and_the_sound_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "live.mp4"
    with Recording(output, tmp_path / "speech.wav", SAMPLES, 16000, marking="synthetic") as recording:
        for shade in range(12):
            recording.write(np.full((65, 49, 3), 20 * shade, np.uint8))
        assert not output.exists()
    with av.open(str(output)) as film:
        assert film.metadata["comment"] == "synthetic"
        frames = list(film.decode(video=0))
        assert [float(frame.time or 0.0) for frame in frames] == pytest.approx([n / 25 for n in range(12)])
        assert (frames[0].width, frames[0].height) == (48, 64)
        sound = film.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(12 / 25, abs=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["live.mp4"]


@pytest.mark.parametrize("rate_hz", [9_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_speech_at_a_rate_that_the_codec_lacks_keeps_its_length_and_its_place(rate_hz: int, channels: int, tmp_path: Path) -> None:
    output, frames, click_s = tmp_path / "live.mp4", 60, 1.9
    speech = np.zeros((3 * rate_hz, channels), np.float32)
    speech[int(click_s * rate_hz) : int((click_s + 0.01) * rate_hz)] = 0.9
    with Recording(output, tmp_path / "speech.wav", speech, rate_hz, marking="") as recording:
        for _ in range(frames):
            recording.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(output)) as film:
        sound = film.streams.audio[0]
        assert (sound.rate, sound.channels) == (48_000, channels)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    # The codec fills its last block with silence.
    assert len(heard) / 48_000 == pytest.approx(frames / 25, abs=1024 / 48_000)
    assert np.argmax(np.abs(heard) > 0.3) / 48_000 == pytest.approx(click_s, abs=0.003)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_recording_is_signed_as_a_dub_is(suffix: str, tmp_path: Path) -> None:
    output, speech = tmp_path / f"live{suffix}", tmp_path / "speech.wav"
    speech.write_bytes(b"RIFF of Jane")
    consent = Consent(subject="Jane Doe", granted_by="Jane Doe", scope="a film", date="2026-01-01", reference="drawer 3")
    actor = ShownActor("ugc", (ModelFacts(stage="render", name="ugc", version="ab" * 32),), consent)
    sealer = Sealer(installation_credential(tmp_path / "data"))
    with Recording(
        output,
        speech,
        SAMPLES,
        16000,
        marking=actor.marking,
        seal_of=lambda frames: sealer.seal(actor.claim(speech, frames), output),
    ) as recording:
        for shade in range(12):
            recording.write(np.full((64, 48, 3), 20 * shade, np.uint8))
    verdict = verdict_of(output)
    assert verdict.state is State.VALID
    assert [action["action"] for action in verdict.actions] == ["c2pa.created"]
    assert verdict.actions[0]["digital_source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert [(item["title"], item["relationship"]) for item in verdict.ingredients] == [("speech", "inputTo")]
    assert verdict.dub is not None
    assert (verdict.dub.method, verdict.dub.frames, verdict.dub.dubbed) == ("ugc", 12, [[0, 12]])
    assert verdict.dub.consent_sha256 == {"person": digest_of(consent)}
    assert b"Jane" not in output.read_bytes().replace(consent_line(consent).encode(), b"")
    with av.open(str(output)) as film:
        assert len(list(film.decode(video=0))) == 12


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Recording(tmp_path / "live.mp4", tmp_path / "speech.wav", SAMPLES, 16000, marking="") as recording:
            recording.write(np.zeros((64, 64, 3), np.uint8))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        Recording(tmp_path / "no" / "live.mp4", tmp_path / "speech.wav", SAMPLES, 16000, marking="")


def test_the_speech_is_never_recorded_over(tmp_path: Path) -> None:
    speech = tmp_path / "speech.mp4"
    speech.write_bytes(b"what was said")
    for overwrite in (False, True):
        with pytest.raises(InvalidRequest, match="the speech itself"):
            Recording(speech, speech, SAMPLES, 16000, marking="", overwrite=overwrite)
    with pytest.raises(InvalidRequest, match=r"live films are written as \.mp4"):
        Recording(tmp_path / "live.wav", speech, SAMPLES, 16000, marking="")


def test_footage_is_shown_forwards_and_backwards() -> None:
    show = Performance(frames=(np.zeros((1, 1, 3), np.uint8),) * 4, poses=(), boxes=(), masks=(), filmed=())
    assert [show.at(index) for index in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
