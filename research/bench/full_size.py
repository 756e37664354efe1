"""Videos of full size, from end to end: `python -m research.bench.full_size --clip CLIP`.

Frames a second and memory of the commands of a user.

The clip is looped to a video of 16 to 9 at a height of the caller. An actor is enrolled from the video, and the video is dubbed.
How large the face is in pixels decides how much detail is warped and blended: give a clip of a close shot.
"""

from __future__ import annotations

import os
import sys

from research.bench.runs import (
    CommandFailedError,
    default_clip,
    footage_parser,
    lines_of_methods,
    make_footage,
    measure_method,
    tell,
    work_folder,
)
from services.common.methods import DEFAULT_METHOD, METHODS


def main() -> int:
    """Parse the command line, measure and print; 1 if a command failed."""
    parser = footage_parser("python -m research.bench.full_size", __doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the video")
    parser.add_argument("--height", type=int, default=1080, help="height of the video, an even number of pixels")
    parser.add_argument("--method", choices=list(METHODS), default=DEFAULT_METHOD)
    options = parser.parse_args()
    try:
        with work_folder(None) as work:
            clip, video = options.clip or default_clip(), work / "video.mp4"
            frames = make_footage(clip, options.speech, options.seconds, video, options.height)
            tell(f"footage: {clip.name}, {frames} frames, {options.height} pixels high")
            environment = {**os.environ, "XDG_DATA_HOME": str(work / "data")}
            print("\n".join(lines_of_methods((measure_method(options.method, "bench", video, work, environment),))))
    except (CommandFailedError, ValueError, FileNotFoundError) as problem:
        tell(f"bench failed: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
