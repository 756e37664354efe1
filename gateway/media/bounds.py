"""What is accepted as footage and speech: bounds far beyond what is filmed, below what fills a disk or a memory.

docs/operations.md states them for users.
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
"""Longest time for which one frame is shown, seconds: a lecture's slide, not a jump in the file's clock."""
MAX_RATE: Final = 1000
"""Highest average frame rate, frames/s."""
MIN_SIDE: Final = 16
MAX_SIDE: Final = 8192
"""Shortest and longest side of a film's picture, pixels."""
MAX_STILL_SIDE: Final = 16384
MAX_STILL_PIXELS: Final = 1 << 27
"""Longest side of a single picture, and most pixels of it."""
MAX_CHANNELS: Final = 16
MIN_SAMPLE_RATE_HZ: Final = 8000
MAX_SAMPLE_RATE_HZ: Final = 192_000
"""Of sound that is used as speech; the bounds of the audio stage."""
PROBE_MEMORY_BYTES: Final = 2 << 30
"""Address space of the process that looks into a file."""
PROBE_BASE_S: Final = 60
PROBE_BYTES_PER_S: Final = 2_000_000
"""Time that this process has: PROBE_BASE_S, and a second more per PROBE_BYTES_PER_S of the file."""
