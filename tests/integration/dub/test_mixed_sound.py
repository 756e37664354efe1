"""Music and effects under the new speech of a dub, through the gateway's API."""

import wave

import av
import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from tests.integration.client_calls import dubbing
from tests.integration.servers import StartGateway
from tests.integration.videos import NUM_FRAMES, OTHER, Media

STEM_HZ = 48000
FRAMES = NUM_FRAMES - 8


@pytest.fixture(scope="module")
def stem(media: Media) -> npt.NDArray[np.float32]:
    """A tone of 5 kHz in stereo, one second long, written to the media folder as stem.wav."""
    tone = 0.2 * np.sin(2 * np.pi * 5000 * np.arange(STEM_HZ) / STEM_HZ)
    pcm = np.repeat((tone * 32767).astype("<i2")[:, None], 2, axis=1)
    with wave.open(str(media.root / "stem.wav"), "wb") as file:
        file.setparams((2, 2, STEM_HZ, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    return (pcm / 32768).astype(np.float32)


def decoded(media: Media, output: str) -> tuple[list[bytes], npt.NDArray[np.float32], int]:
    """Pictures, samples [n, channels] and sample rate of a video."""
    with av.open(str(media.root / output)) as video:
        pictures = [frame.to_ndarray().tobytes() for frame in video.decode(video=0)]
    with av.open(str(media.root / output)) as video:
        (track,) = video.streams.audio
        frames = list(video.decode(track))
        resampled = av.AudioResampler(format="flt")
        pieces = [piece.to_ndarray().reshape(-1, track.channels) for frame in frames for piece in resampled.resample(frame)]
    return pictures, np.concatenate(pieces), track.rate


def test_mix_under_speech(start_gateway: StartGateway, media: Media, stem: npt.NDArray[np.float32]) -> None:
    """The mouths follow the speech alone; the sound has both, and ends with the video."""
    # The watermark names the files of a video.
    with start_gateway(watermark=False).connect() as connection:
        for name, options in (("plain", {}), ("mixed", {"mix": "stem.wav", "mix_level_db": -6.0, "duck_db": 0.0})):
            dub = dubbing(f"{name}.mkv", footage=OTHER, codec="ffv1", **options)
            result = client.dub(connection, **dub).wait(timeout_s=300)
            assert not any("full scale" in text for text in result.warnings)
    plain, speech, rate = decoded(media, "plain.mkv")
    pictures, samples, mixed_rate = decoded(media, "mixed.mkv")
    assert pictures == plain
    assert (rate, mixed_rate) == (16000, STEM_HZ)
    assert samples.shape == (FRAMES * STEM_HZ // 25, 2)
    assert len(speech) == FRAMES * 16000 // 25
    # Speech of 16 kHz has next to nothing at 5 kHz in its pauses: after the speech, the tone of one second is over too.
    under = samples[:STEM_HZ] - 10 ** (-6 / 20) * stem
    assert np.abs(under[:, 0] - under[:, 1]).max() < 1e-4
    np.testing.assert_allclose(under[::3, 0][: rate // 2], speech[: rate // 2, 0], atol=0.01)


def test_mix_beside_footage_sound(connection: Connection, media: Media, stem: npt.NDArray[np.float32]) -> None:
    """Music and effects do not lie under the sound of the footage; a missing file is named."""
    for options, field in (({"mix": "stem.wav", "keep_audio": True}, "mix_uri"), ({"mix": "no_such.wav"}, "mix_uri")):
        with pytest.raises(DubstageCallError) as caught:
            client.dub(connection, **dubbing("refused.mp4", **options))
        assert caught.value.field.removeprefix("dub.") == field
