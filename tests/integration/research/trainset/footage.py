"""Videos and recordings that are made here: a photograph that moves, and a tone that comes and goes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from skimage.data import astronaut


def tone(count: int, rate_hz: int = 16_000) -> np.ndarray:
    """Return float32 samples of a tone in bursts."""
    seconds = np.arange(count) / rate_hz
    return (0.25 * np.sin(2 * np.pi * 220 * seconds) * (np.sin(2 * np.pi * 3 * seconds) > 0)).astype(np.float32)


def write_recording(path: Path, seconds: float = 1.0, rate_hz: int = 16_000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = tone(round(seconds * rate_hz), rate_hz)
    soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), rate_hz)


def write_video(path: Path, *, rate: int = 25, frames: int = 12, face: bool = True, sound: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph = astronaut()[:256, 60:380] if face else np.full((256, 320, 3), 90, np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=rate)
        video.width, video.height, video.pix_fmt = 320, 256, "yuv420p"
        video.time_base = Fraction(1, rate)
        tones = container.add_stream("pcm_s16le", rate=16000, layout="mono") if sound else None
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(photograph, index, axis=1)), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, rate)
            container.mux(video.encode(picture))
        if tones is not None:
            samples = (32767 * tone(16000 * frames // rate)).astype(np.int16)
            audio = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            audio.sample_rate, audio.pts, audio.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(tones.encode(audio))
            container.mux(tones.encode(None))
        container.mux(video.encode(None))
