"""Bounds of footage and speech: far beyond what is filmed, but too small to fill a disk or a memory.

docs/operations.md states the bounds for users.
"""

from __future__ import annotations

from typing import Final

MAX_FILM_S: Final = 12 * 3600
"""Longest film and longest speech, seconds."""
MAX_FRAMES: Final = 5_000_000
"""Most frames of a film."""
MAX_SAMPLES: Final = 4 * MAX_FRAMES
"""Most entries in the index of an MP4 file over all its tracks. Tracks of uncompressed sound do not count: FFmpeg keeps no index of
them."""
MAX_FRAME_S: Final = 600
"""Longest time that one frame is shown, seconds: enough for a lecture's slide, too short for a jump in the file's clock."""
MAX_RATE: Final = 1000
"""Highest average frame rate, frames/s."""
MIN_SIDE: Final = 16
MAX_SIDE: Final = 8192
"""Shortest and longest side of a film's picture, pixels."""
MAX_STILL_SIDE: Final = 16384
MAX_STILL_PIXELS: Final = 1 << 27
"""Longest side of a single picture, and most pixels of a single picture."""
MAX_CHANNELS: Final = 16
MIN_SAMPLE_RATE_HZ: Final = 8000
MAX_SAMPLE_RATE_HZ: Final = 192_000
"""Bounds of sound that is used as speech: the bounds of the audio stage."""
PROBE_MEMORY_BYTES: Final = 2 << 30
"""Address space of the process that reads a file from outside, bytes."""
PROBE_BASE_S: Final = 60
PROBE_BYTES_PER_S: Final = 2_000_000
"""Time of this process: PROBE_BASE_S seconds, and one more second per PROBE_BYTES_PER_S bytes of the file."""
