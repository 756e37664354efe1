"""Speech of other lengths than the footage: frames, times and sound of the video, for every fit (docs/length.md has the table)."""

import math
import wave
from fractions import Fraction
from pathlib import Path

import av
import pytest

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from gateway.dub.choices import FITS, Fit
from tests.integration.client_calls import dubbing
from tests.integration.servers import RunningGateway
from tests.integration.videos import Media, write_short_clip

FOOTAGE = "sixteen.mp4"
FRAMES, RATE = 16, 25
RATIOS = (Fraction(1, 2), Fraction(3, 4), Fraction(1), Fraction(5, 4), Fraction(3, 2), Fraction(2))
SHOWN = {
    "cut": [*range(16)],
    "pad": [*range(16), *[15] * 8],
    "loop": [*range(16), *range(8)],
    "bounce": [*range(16), *range(14, 6, -1)],
    "slow": [n * 16 // 24 for n in range(24)],
}
"""Footage frames of the video whose speech is half as long again; of `retime`, the speech decides."""


@pytest.fixture(scope="module")
def footage(media: Media, carphone: Path) -> list[bytes]:
    """Footage of 16 frames in the media folder; returns the rows above the face, which a dub leaves as they are."""
    write_short_clip(carphone, media.root / FOOTAGE, FRAMES)
    return tops(media.root / FOOTAGE)


def tops(video: Path) -> list[bytes]:
    with av.open(str(video)) as container:
        return [frame.to_ndarray()[:30].tobytes() for frame in container.decode(video=0)]


def speech_of(media: Media, samples: int) -> str:
    name = f"speech_{samples}.wav"
    with wave.open(str(media.speech)) as source, wave.open(str(media.root / name), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(samples))
    return name


def length_of(fit: Fit, ratio: Fraction) -> int:
    """Number of frames of the video."""
    spoken = math.ceil(ratio * FRAMES)
    return {"cut": FRAMES, "pad": max(FRAMES, spoken)}.get(fit, spoken)


def check_length(gateway: RunningGateway, media: Media, actor: str, fit: Fit, ratio: Fraction) -> Path:
    """Dub with speech of `ratio` times the footage's length, and check frames, times and sound of the video."""
    speech = speech_of(media, int(ratio * FRAMES * 16000 / RATE))
    output = f"{fit}_{float(ratio)}.mkv"
    with gateway.connect() as connection:
        options = dubbing(output, footage=FOOTAGE, speech=speech, actor_id=actor, fit=fit, codec="ffv1", overwrite=True)
        result = client.dub(connection, **options).wait(timeout_s=300)
    frames = length_of(fit, ratio)
    assert result.num_frames == frames
    with av.open(str(media.root / output)) as video:
        times = [frame.pts * frame.time_base for frame in video.decode(video=0)]
        assert times == [Fraction(n, RATE) for n in range(frames)]
    with av.open(str(media.root / output)) as video:
        (sound,) = video.streams.audio
        assert sum(frame.samples for frame in video.decode(sound)) == frames * 16000 // RATE
    # The warnings say what is cut, and where the mouth rests.
    assert any("it is cut there" in text for text in result.warnings) == (fit == "cut" and ratio > 1)
    return media.root / output


@pytest.mark.long
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("ratio", RATIOS, ids=[str(float(ratio)) for ratio in RATIOS])
def test_documented_lengths(gateway, media, actor, footage, fit, ratio) -> None:
    """Every row of the table."""
    check_length(gateway, media, actor, fit, ratio)


@pytest.mark.parametrize("fit", [fit if fit == "bounce" else pytest.param(fit, marks=pytest.mark.long) for fit in SHOWN])
def test_shown_footage(gateway: RunningGateway, media: Media, actor: str, footage: list[bytes], fit: Fit) -> None:
    """The video shows the footage's own frames, each in its place."""
    assert len(set(footage)) == FRAMES
    video = check_length(gateway, media, actor, fit, Fraction(3, 2))
    assert [footage.index(top) for top in tops(video)] == SHOWN[fit]


def test_retime_needs_half_the_speech(connection: Connection, media: Media, actor: str, footage: list[bytes]) -> None:
    dub = dubbing("too_long.mkv", footage=FOOTAGE, speech=speech_of(media, 33 * 640), actor_id=actor, fit="retime")
    with pytest.raises(DubstageCallError, match="33 frames of speech need 17 frames of footage, there are 16"):
        client.dub(connection, **dub).wait(timeout_s=300)


@pytest.mark.long
def test_pad_of_short_speech_is_cut(gateway: RunningGateway, media: Media, actor: str, footage: list[bytes]) -> None:
    """Without longer speech, `pad` gives the bytes of `cut`."""
    written = []
    for fit in ("cut", "pad"):
        path = check_length(gateway, media, actor, fit, Fraction(3, 4))
        with av.open(str(path)) as video:
            written.append([frame.to_ndarray().tobytes() for frame in video.decode(video=0)])
    assert written[0] == written[1]
