from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.consent.record import Consent, consent_line, digest_of
from gateway.live.recording import Recording, StreamedActor, recorded_colour
from gateway.media.pixels import ColourTags, pixel_format
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo, orientation
from gateway.provenance.binding import sidecar_of
from gateway.provenance.claim import ModelFacts, SourceFile
from gateway.provenance.credential import installation_credential
from gateway.provenance.seal import Sealer, SignedDisclosure, VideoSeal
from gateway.provenance.verdict import ManifestState, verdict_of
from services.common.errors import InvalidRequestError
from tests.unit.provenance.signed_videos import claim_gigabytes

UNTAGGED = ColourTags()
SAMPLES = np.sin(np.arange(16000) / 10).astype(np.float32)[:, None]
COAT = (96, 118, 166)
"""Y', Cb and Cr of a red coat."""


def test_recording_frames_and_sound(tmp_path: Path) -> None:
    """A recording has every frame and the sound beside it."""
    output = tmp_path / "live.mp4"
    with Recording(output, tmp_path / "speech.wav", SAMPLES, 16000, marking="synthetic") as recording:
        for shade in range(12):
            recording.write(np.full((65, 49, 3), 20 * shade, np.uint8), UNTAGGED)
        assert not output.exists()
    with av.open(str(output)) as video:
        assert video.metadata["comment"] == "synthetic"
        frames = list(video.decode(video=0))
        assert [float(frame.time or 0.0) for frame in frames] == pytest.approx([n / 25 for n in range(12)])
        assert (frames[0].width, frames[0].height) == (48, 64)
        sound = video.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(12 / 25, abs=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["live.mp4"]


def test_equal_recordings(tmp_path: Path) -> None:
    """Twenty recordings of the same noise have the same bytes, also while other encoders run: x264 with AVX-512 fails here."""
    noise = np.random.default_rng(1).integers(0, 255, (20, 36, 44, 3)).astype(np.uint8)
    pictures = np.repeat(np.repeat(noise, 4, axis=1), 4, axis=2)

    def recorded(number: int) -> bytes:
        output = tmp_path / f"{number}.mp4"
        with Recording(output, tmp_path / "speech.wav", SAMPLES, 16000, marking="synthetic") as recording:
            for picture in pictures:
                recording.write(picture, ColourTags())
        return output.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(recorded, range(20)))) == 1


@pytest.mark.parametrize("rate_hz", [9_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_unsupported_rate_keeps_length(rate_hz: int, channels: int, tmp_path: Path) -> None:
    """Speech at a rate that the codec lacks keeps its length and its place."""
    output, frames, click_s = tmp_path / "live.mp4", 60, 1.9
    speech = np.zeros((3 * rate_hz, channels), np.float32)
    speech[int(click_s * rate_hz) : int((click_s + 0.01) * rate_hz)] = 0.9
    with Recording(output, tmp_path / "speech.wav", speech, rate_hz, marking="") as recording:
        for _ in range(frames):
            recording.write(np.zeros((64, 64, 3), np.uint8), UNTAGGED)
    with av.open(str(output)) as video:
        sound = video.streams.audio[0]
        assert (sound.rate, sound.channels) == (48_000, channels)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
    # The codec fills its last block with silence.
    assert len(heard) / 48_000 == pytest.approx(frames / 25, abs=1024 / 48_000)
    assert np.argmax(np.abs(heard) > 0.3) / 48_000 == pytest.approx(click_s, abs=0.003)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_recording_is_signed_as_a_dub_is(suffix: str, tmp_path: Path) -> None:
    output, speech = tmp_path / f"live{suffix}", tmp_path / "speech.wav"
    speech.write_bytes(b"RIFF of Jane")
    consent = Consent(subject="Jane Doe", granted_by="Jane Doe", scope="a video", date="2026-01-01", reference="drawer 3")
    actor = StreamedActor("dubstage", (ModelFacts(stage="render", name="ugc", version="ab" * 32),), consent)
    sealer = Sealer(installation_credential(tmp_path / "data"))
    with Recording(
        output,
        speech,
        SAMPLES,
        16000,
        marking=actor.marking,
        seal_of=lambda frames, _: sealer.seal(actor.claim(frames, (SourceFile("speech", speech),)), output),
    ) as recording:
        for shade in range(12):
            recording.write(np.full((64, 48, 3), 20 * shade, np.uint8), UNTAGGED)
    assert recording.warnings == []
    verdict = verdict_of(output)
    assert verdict.state is ManifestState.VALID
    assert [action["action"] for action in verdict.actions] == ["c2pa.created"]
    assert verdict.actions[0]["digital_source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert [(item["title"], item["relationship"]) for item in verdict.ingredients] == [("speech", "inputTo")]
    assert verdict.dub is not None
    assert (verdict.dub.method, verdict.dub.frames, verdict.dub.dubbed) == ("dubstage", 12, [[0, 12]])
    assert verdict.dub.consent_sha256 == {"person": digest_of(consent)}
    assert b"Jane" not in output.read_bytes().replace(consent_line(consent).encode(), b"")
    with av.open(str(output)) as video:
        assert len(list(video.decode(video=0))) == 12


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Recording(tmp_path / "live.mp4", tmp_path / "speech.wav", SAMPLES, 16000, marking="") as recording:
            recording.write(np.zeros((64, 64, 3), np.uint8), UNTAGGED)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_recording_refused(tmp_path: Path) -> None:
    """A place that cannot be written is refused at once."""
    with pytest.raises(InvalidRequestError, match="does not exist"):
        Recording(tmp_path / "no" / "live.mp4", tmp_path / "speech.wav", SAMPLES, 16000, marking="")


def test_the_speech_is_never_recorded_over(tmp_path: Path) -> None:
    speech = tmp_path / "speech.mp4"
    speech.write_bytes(b"what was said")
    for overwrite in (False, True):
        with pytest.raises(InvalidRequestError, match="the speech itself"):
            Recording(speech, speech, SAMPLES, 16000, marking="", overwrite=overwrite)
    with pytest.raises(InvalidRequestError, match=r"live videos are written as \.mp4"):
        Recording(tmp_path / "live.wav", speech, SAMPLES, 16000, marking="")


def footage_of(path: Path, name: str, tags: ColourTags, size: tuple[int, int] = (320, 240)) -> MediaInfo:
    """One frame without loss: a coat, and beside the coat the greys from black to white."""
    width, height = size
    picture = av.VideoFrame(width, height, name)
    for plane, (shade, step) in zip(picture.planes, zip(COAT, (1, 2, 2), strict=True), strict=True):
        samples = np.full((height // step, plane.line_size), shade, np.uint8)
        grey = np.linspace(16, 235, width // step // 2) if step == 1 else np.full(width // step // 2, 128)
        samples[:, width // step // 2 : width // step] = np.rint(grey)
        plane.update(samples.tobytes())
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, name, {"qp": "0"}
        for tagged in (stream.codec_context, picture):
            tagged.colorspace, tagged.color_range = tags.matrix, tags.color_range
            tagged.color_primaries, tagged.color_trc = tags.primaries, tags.transfer
        picture.pts = 0
        video.mux(stream.encode(picture))
        video.mux(stream.encode())
    return probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("tags", "size"),
    [
        (ColourTags(1, 1, 1, 1), (320, 240)),
        (ColourTags(1, 2, 1, 1), (320, 240)),
        (ColourTags(6, 1, 6, 6), (320, 240)),
        (ColourTags(5, 2, 5, 6), (320, 240)),
        (ColourTags(6, 1, 1, 1), (1280, 720)),
        (ColourTags(9, 1, 9, 14), (320, 240)),
        (ColourTags(), (320, 240)),
        (ColourTags(), (1280, 720)),
    ],
    ids=["bt709", "bt709-full", "bt601", "bt601-full", "bt601-large", "bt2020", "untagged", "untagged-large"],
)
def test_recording_samples_and_tags(tags: ColourTags, size: tuple[int, int], suffix: str, tmp_path: Path) -> None:
    """A recording has the samples and the colour tags of the footage."""
    footage = footage_of(tmp_path / "footage.mkv", "yuv420p", tags, size)
    assert footage.video.colour == tags
    with VideoReader(footage) as reader:
        (frame,) = reader
        shown, planes = to_rgb(frame), [plane.astype(int) for plane in frame.planes]
    output = tmp_path / f"live{suffix}"
    with Recording(output, tmp_path / "speech.wav", SAMPLES, 16000, marking="") as recording:
        for _ in range(3):
            recording.write(shown, recorded_colour(footage.video))
    video = probe(output)
    assert video.video.colour == tags
    with VideoReader(video) as reader:
        for frame in reader:
            for plane, own, step in zip(frame.planes, planes, (1, 2, 2), strict=True):
                for columns in (slice(0, size[0] // step // 2 - 8), slice(size[0] // step // 2 + 8, None)):
                    difference = np.abs(plane[:, columns].astype(int) - own[:, columns])
                    assert difference.max() <= 3
                    assert difference.mean() <= 1.0


def test_resized_recording_names_matrix(tmp_path: Path) -> None:
    """A recording of another size names the matrix that players chose for the footage."""
    video = footage_of(tmp_path / "footage.mkv", "yuv420p", ColourTags(), (960, 540)).video
    assert recorded_colour(video) == ColourTags()
    wide = replace(video, orientation=orientation(960, 540, Fraction(4, 3), None))
    assert wide.orientation.upright_size == (1280, 540)
    assert recorded_colour(wide) == ColourTags(matrix=6)


def test_rgb_recording_names_matrix(tmp_path: Path) -> None:
    """A recording of RGB says which matrix it has."""
    video = footage_of(tmp_path / "footage.mkv", "yuv420p", ColourTags(1, 1, 1, 1)).video
    rgb = replace(video, pixel=pixel_format("gbrp"), colour=ColourTags(0, 2, 1, 13))
    assert recorded_colour(rgb) == ColourTags(6, 1, 1, 13)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_footage_is_recorded_in_standard_range(tmp_path: Path, transfer: int) -> None:
    video = footage_of(tmp_path / "footage.mkv", "yuv420p10le", ColourTags(9, 1, 9, transfer), (960, 540)).video
    assert recorded_colour(video) == ColourTags(1, 1, 1, 1)


def test_lost_manifest_of_speech_warns(tmp_path: Path) -> None:
    output, speech = tmp_path / "live.mkv", tmp_path / "speech.mkv"
    sealer = Sealer(installation_credential(tmp_path / "data"))
    actor = StreamedActor("a method", (), None)
    for path, sources in ((speech, ()), (output, (SourceFile("speech", speech),))):
        seal_of = partial(_seal, sealer, actor, sources, path)
        with Recording(path, tmp_path / "speech.wav", SAMPLES, 16000, marking="", seal_of=seal_of) as recording:
            for shade in range(12):
                recording.write(np.full((64, 48, 3), 20 * shade, np.uint8), UNTAGGED)
        if path == speech:
            claim_gigabytes(sidecar_of(speech))
    (warning,) = recording.warnings
    assert "names its sources (speech) without their own manifests" in warning


def _seal(
    sealer: Sealer, actor: StreamedActor, sources: tuple[SourceFile, ...], output: Path, frames: int, _: SignedDisclosure | None
) -> VideoSeal:
    return sealer.seal(actor.claim(frames, sources), output)
