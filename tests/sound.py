"""Sound of recordings and videos, for tests."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import soxr

from services.common.array_types import Float32


def read_mono_16k(path: Path) -> Float32:
    """Return the first sound track of any media file, float32 [samples] at 16 kHz, channels averaged."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono")
        stream = container.streams.audio[0]
        frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    mono = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.asarray(soxr.resample(mono, stream.rate, 16_000), np.float32)
