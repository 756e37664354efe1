"""Draw fitted faces: `python -m research.face.fitting_sheet FILE... --output sheet.png` (videos and pictures).

Each row shows one chosen frame of a file: the face, the face with the mesh, low-frequency albedo, detailed albedo in the picture
and alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from services.common.array_types import UInt8
from services.common.face.drawing import FaceMesh, fitting_row
from services.common.face.morphable_models import DEFAULT_MODEL, MorphableModels
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import FittableModels
from services.face.fitting.streaming import StreamFitter
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, TrackOptions

_ROWS_A_FILE: Final = 3


def read_pictures(path: Path, most: int) -> list[UInt8]:
    """Return at most `most` first frames of a video, or one picture, uint8 RGB."""
    with av.open(str(path)) as container:
        frames = zip(container.decode(video=0), range(most), strict=False)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame, _ in frames]


def sheet_of(pictures: Sequence[UInt8], networks: Networks, models: FittableModels, model: str) -> UInt8:
    """Return the rows of one face, uint8 RGB [256 * rows, 1280, 3].

    Raises:
        NoUsableFootageError: no picture shows a face that can be fitted.
    """
    face = models.get(model)

    def track(fitter: StreamFitter | None) -> list[FrameFaces]:
        tracker = FaceTracker(networks, TrackOptions(max_faces=1), fitter=fitter)
        return [frame for picture in pictures for frame in tracker.push(picture)] + tracker.finish()

    fitter = IdentityFitter(face)
    for picture, frame in zip(pictures, track(None), strict=True):
        for tracked in frame.faces:
            fitter.push(picture, tracked)
    identity = fitter.finish()
    print(
        f"{identity.num_frames} frames: landmarks {identity.landmark_error:.2f} px, "
        f"colours (low-frequency albedo) {identity.photometric_error:.1f} of 255"
    )
    mesh = FaceMesh.of(face.model)
    frames = [frame for frame in track(StreamFitter(face, identity)) if frame.faces]
    chosen = np.linspace(0, len(frames) - 1, min(_ROWS_A_FILE, len(frames))).round().astype(int)
    rows = []
    for frame in (frames[index] for index in chosen):
        coefficients = frame.faces[0].coefficients
        if coefficients is not None:
            rows.append(fitting_row(pictures[frame.frame_index], coefficients.pose, coefficients.expression, identity, mesh))
    return np.concatenate(rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--models", type=Path, help="folder of your own morphable models")
    parser.add_argument("--frames", type=int, default=150, help="frames of a video that are read")
    arguments = parser.parse_args()
    networks, models = Networks(), FittableModels(MorphableModels(arguments.models))
    sheets = [sheet_of(read_pictures(file, arguments.frames), networks, models, arguments.model) for file in arguments.files]
    cv2.imwrite(str(arguments.output), np.concatenate(sheets)[..., ::-1])


if __name__ == "__main__":
    main()
