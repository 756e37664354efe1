from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gateway.media import sound
from gateway.media.probe import probe
from gateway.media.sound import SoundReader, resampled, sound_file, sound_length, write_sound_from
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from tests.refusals import raised
from tests.unit.media.made_footage import Clip, make_clip, make_sound, tone


def _all(reader: SoundReader) -> np.ndarray:
    chunks = list(reader)
    assert [chunk.start_sample for chunk in chunks] == np.cumsum([0, *(len(chunk.samples) for chunk in chunks[:-1])]).tolist()
    return np.concatenate([chunk.samples for chunk in chunks])


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 2), (48000, 6), (96000, 8)])
def test_any_rate_and_channels_read(tmp_path: Path, rate: int, channels: int) -> None:
    """Samples of any rate and channels are read as they are."""
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, channels)).astype(np.float32)
    reader = SoundReader(make_sound(tmp_path / "sound.wav", samples, rate))
    assert (reader.info.sample_rate_hz, reader.info.channels) == (rate, channels)
    read = _all(reader)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, samples, atol=1.1 / 32768)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8"])
def test_every_sample_format_has_the_same_scale(tmp_path: Path, codec: str) -> None:
    samples = tone(16000, 4000)
    read = _all(SoundReader(make_sound(tmp_path / "sound.wav", samples, 16000, codec)))
    np.testing.assert_allclose(read, samples, atol=1.1 / 128 if codec == "pcm_u8" else 1e-4)


def test_samples_in_wider_room_refused(tmp_path: Path) -> None:
    """FFmpeg takes 24 bits in 32 for floating-point samples, and gives noise."""
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    layout = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16000, 64000, 4, 32, 22, 24, 4) + guid
    samples = bytes(64000)
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(samples)) + samples
    (tmp_path / "take.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    with pytest.raises(MediaUnsupportedError, match=r"take\.wav: .* save it as WAV with 16, 24 or 32 bits"):
        SoundReader(tmp_path / "take.wav")


def test_the_length_of_chunks_changes_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_sound(tmp_path / "sound.flac", tone(44100, 30000), 44100, "flac")
    whole = _all(SoundReader(path))
    for length in (999, 40000):
        monkeypatch.setattr(sound, "CHUNK_SAMPLES", length)
        np.testing.assert_array_equal(_all(SoundReader(path)), whole)
    assert len(whole) == 30000


def test_speech_can_be_read_again(tmp_path: Path) -> None:
    """Speech may be gone through again from its first sample."""
    speech = SoundReader(make_sound(tmp_path / "sound.wav", tone(16000, 40000), 16000)).speech()
    begun = iter(speech.chunks)
    next(begun)
    first, second = (np.concatenate(list(speech.chunks)) for _ in range(2))
    assert len(first) == 40000
    np.testing.assert_array_equal(second, first)


def test_later_speech_lacks_first_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speech from a time on begins with the sample of that time, wherever chunks end; after the end there is none."""
    monkeypatch.setattr(sound, "CHUNK_SAMPLES", 5000)
    speech = SoundReader(make_sound(tmp_path / "sound.wav", tone(16000, 40000), 16000)).speech()
    whole = np.concatenate(list(speech.chunks))
    assert speech.later(Fraction(0)) is speech
    for begin in (Fraction(1, 2), Fraction(5000, 16000), Fraction(2)):
        later = speech.later(begin)
        for _ in range(2):
            np.testing.assert_array_equal(np.concatenate(list(later.chunks)), whole[int(begin * 16000) :])
    assert list(speech.later(Fraction(3)).chunks) == []


def _lag(found: np.ndarray, wanted: np.ndarray, span: int) -> int:
    """Shift of `found` against `wanted` with the least difference, samples."""
    middle = slice(8000, 12000)
    errors = {shift: np.abs(np.roll(found, -shift)[middle] - wanted[middle]).mean() for shift in range(-span, span + 1)}
    return min(errors, key=errors.__getitem__)


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mp4", "aac"), ("clip.mkv", "aac"), ("clip.mkv", "flac"), ("clip.mov", "pcm_s16le")]
)
@pytest.mark.parametrize("start", [Fraction(0), Fraction(1, 5), Fraction(1, 100)])
def test_sample_0_sounds_with_the_first_frame(tmp_path: Path, name: str, codec: str, start: Fraction) -> None:
    pts = tuple(range(640, 640 + 12 * 512, 512))  # the picture starts at 0.05 s
    info = probe(
        make_clip(tmp_path / name, Clip(pts=pts, codec="libx264", sound_rate=48000, sound_codec=codec, sound_start_s=start))
    )
    read = _all(SoundReader(info.path, origin=info.video.start))[:, 0]
    offset = round((start - info.video.start) * 48000)
    wanted = tone(48000, len(read), -offset)[:, 0]
    if offset > 0:
        wanted[:offset] = 0.0
        assert np.abs(read[: max(offset - 1100, 0)]).max(initial=0.0) < 1e-3
    assert abs(_lag(read, wanted, 54)) <= (48 if name.endswith("mkv") else 4)  # these clips: milliseconds, 1/12800 s


def test_pauses_of_the_track_are_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(sound_rate=48000, sound_codec="pcm_s16le", sound_start_s=Fraction(3, 10))))
    monkeypatch.setattr(sound, "CHUNK_SAMPLES", 1000)
    read = _all(SoundReader(info.path, origin=info.video.start))[:, 0]
    assert np.abs(read[:14350]).max() == 0.0
    assert np.abs(read[14500:16000]).max() > 0.4


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    with raised(MediaUnsupportedError, match="no sound track", field="audio"):
        SoundReader(make_clip(tmp_path / "clip.mp4"))
    with pytest.raises(MediaUnsupportedError, match="does not exist"):
        SoundReader(tmp_path / "missing.wav")


def test_resampling_keeps_length_and_pieces() -> None:
    """Pieces change no sample."""
    rate = 8000
    wave = np.repeat(np.sin(np.arange(rate) * 0.2).astype(np.float32)[:, None], 2, axis=1)
    whole = np.concatenate(list(resampled([wave], rate, 48_000, 2)))
    parts = np.concatenate(list(resampled([wave[:777], wave[777:]], rate, 48_000, 2)))
    assert whole.shape == (48_000, 2)
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("name", ["later.mkv", "later.mp4"])
def test_sound_keeps_offset_to_picture(tmp_path: Path, name: str) -> None:
    """Speech from a video whose sound begins after its picture begins with silence, as the video plays it."""
    clip = Clip(codec="libx264", pts=tuple(range(0, 50 * 512, 512)), sound_rate=48000, sound_start_s=Fraction(1, 2))
    read = _all(sound_file(make_clip(tmp_path / name, clip)))[:, 0]
    assert np.abs(read[:22000]).max() < 1e-3
    assert np.abs(read[26000:30000]).max() > 0.4
    alone = make_sound(tmp_path / "alone.wav", tone(16000, 1600), 16000)
    assert len(_all(sound_file(alone))) == 1600


def test_one_channel_is_taken(tmp_path: Path) -> None:
    samples = np.repeat(tone(16000, 1600), 2, axis=1) * np.array([0.1, 0.9], np.float32)
    reader = SoundReader(make_sound(tmp_path / "sound.wav", samples, 16000))
    taken = reader.speech(channel=1)
    assert taken.channels == 1
    np.testing.assert_allclose(np.concatenate(list(taken.chunks)), samples[:, 1:], atol=1.1 / 32768)
    with raised(
        InvalidRequestError, match=r"sound\.wav has the channels 1 to 2, and channel 3 was asked for", field="audio_channel"
    ):
        reader.speech(channel=2)


def test_sound_from_a_sample_on(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mov", Clip(codec="libx264", sound_rate=48000, sound_codec="pcm_s16le"))
    write_sound_from(source, 20_001, tmp_path / "rest.wav")
    own = _all(SoundReader(source))
    assert np.array_equal(_all(SoundReader(tmp_path / "rest.wav")), own[20_001:])
    assert sound_length(tmp_path / "rest.wav") == (len(own) - 20_001, 48000)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rest.wav", "source.mov"]
