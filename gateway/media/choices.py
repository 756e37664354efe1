"""Choices that a user has for the picture and the sound of a video, with their limits.

The help of the command line shows these choices, and imports no library of media for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

ENCODERS: Final = {
    "h264": "libx264",
    "hevc": "libx265",
    "ffv1": "ffv1",
    "prores": "prores",
    "mpeg2video": "mpeg2video",
    "dnxhr": "dnxhd",
    "av1": "libsvtav1",
}
"""FFmpeg's names of the encoders, by codec."""
CODECS: Final = tuple(ENCODERS)
"""Codecs that a user may ask for."""
QUALITIES: Final = {"visually-lossless": 12, "high": 16, "small": 23}
"""Names of qualities, on the scale of crf of h264. `high` is the default."""

LEAST_HALVED: Final = 480
"""Shorter side from which on a picture is shown at half size in a preview, pixels: a smaller half would show too little of a
mouth."""

LabelPosition = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
"""Corner of a visible label."""
LABEL_POSITIONS: Final[tuple[LabelPosition, ...]] = get_args(LabelPosition)
MOST_CHARACTERS: Final = 60
"""Most characters of a label."""

LEAST_LEVEL_DB: Final = -60.0
MOST_LEVEL_DB: Final = 12.0
"""Range of the level of music and effects, as the contracts declare it too."""
MOST_DUCK_DB: Final = 60.0
"""Largest ducking, as the contracts declare it too."""
DUCK_DB: Final = 6.0
"""Ducking that a request without a value gets."""

BUILT_IN: Final = "ocio://"
"""Begin of the names of configurations that are built into OpenColorIO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcioSettings:
    """Choice of a user for the colour of an image sequence.

    Attributes:
        config: path of an OpenColorIO configuration, or a built-in one, such as ocio://studio-config-latest; empty: none.
        colourspace: colour space of the files; empty: the role scene_linear of the configuration.
        display: display of the configuration; empty: its default.
        view: view of the display; empty: its default.
    """

    config: str = ""
    colourspace: str = ""
    display: str = ""
    view: str = ""
