"""Fit identities on a training set: `python -m services.face.train.identities --data SET --clips FOLDER --out FOLDER`.

For each person of use `train` the command writes two artefacts: NAME.safetensors, fitted to frames of several clips, and
NAME.still.safetensors, fitted to a single frame as for a still picture. With --clip the artefacts are fitted to the first part of
one clip instead. The landmarks come from the training set, the pictures from the clips.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from services.common.face.crops import HeadPose
from services.common.face.identity import FaceIdentity
from services.common.geometry.default_model import default_model
from services.common.store.tensor_bytes import encode_arrays
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model_landmarks import model_landmarks
from services.face.train.albedo import MOTION_ONLY, read_frames
from services.face.types import Reason, TrackedFace

CLIPS_A_PERSON: Final = 4
FRAMES_A_PERSON: Final = 32
ENROLMENT_SHARE: Final = 0.6
MAX_ENROLMENT: Final = 300


def people_of(folder: Path, use: str) -> dict[str, list[Path]]:
    """Return the tracked clips by speaker, without clips whose pixels are too strongly compressed."""
    people: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
        if metadata["use"] == use and MOTION_ONLY not in metadata["clip"]:
            people.setdefault(metadata["speaker"] or path.name.split(".")[0], []).append(path)
    return people


def fit(clips: Path, frames: Mapping[Path, npt.NDArray[np.intp]]) -> FaceIdentity:
    """Return the identity from some frames of tracked clips.

    Args:
        clips: folder of the films.
        frames: by tracked clip, the frame numbers to use.

    Raises:
        NoUsableFootage: no frame can be used.
    """
    fitter = IdentityFitter(model_landmarks(default_model()))
    for path, wanted in frames.items():
        with safe_open(path, "numpy") as file:
            film = clips / file.metadata()["clip"]
            landmarks, scale, rotation, translation = (
                file.get_tensor(name) for name in ("landmarks", "scale", "rotation", "translation")
            )
            mouth, usable = file.get_tensor("mouth_landmarks"), file.get_tensor("usable")
        pictures = read_frames(film, {int(frame) for frame in wanted})
        for frame in wanted:
            left_top = landmarks[frame, :, :2].min(axis=0)
            width, height = landmarks[frame, :, :2].max(axis=0) - left_top
            face = TrackedFace(
                face_id=0,
                box=(float(left_top[0]), float(left_top[1]), float(width), float(height)),
                landmarks=landmarks[frame],
                pose=HeadPose(float(scale[frame]), rotation[frame], translation[frame]),
                mouth_landmarks=mouth[frame],
                confidence=1.0,
                mouth_visibility=1.0,
                blink=0.0,
                reason=Reason.DUBBED if usable[frame] else Reason.LOW_CONFIDENCE,
            )
            fitter.push(pictures[int(frame)], face)
    return fitter.finish()


def spread(path: Path, count: int, share: float = 1.0) -> npt.NDArray[np.intp]:
    """Return at most `count` usable frames, evenly spread over the first `share` of a tracked clip's usable frames."""
    with safe_open(path, "numpy") as file:
        usable = np.flatnonzero(file.get_tensor("usable"))
    first = usable if share == 1.0 else usable[: min(int(len(usable) * share), MAX_ENROLMENT)]
    return np.asarray(first[np.unique(np.linspace(0, len(first) - 1, count).round().astype(int))], np.intp)


def write(path: Path, identity: FaceIdentity) -> None:
    """Write an identity as its artefact's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_arrays(identity.arrays(), identity.metadata()))
    print(
        f"{path.name}: {identity.num_frames} frames, landmarks {identity.landmark_error:.2f} px, "
        f"colours {identity.photometric_error:.1f} levels",
        flush=True,
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--clips", type=Path, required=True, help="folder of the films")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--clip", action="append", default=[], metavar="NAME", help="part of a tracked clip's name: its first 60 %%"
    )
    given = parser.parse_args()
    for name in given.clip:
        (path,) = sorted(given.data.glob(f"*{name}*.safetensors"))
        write(given.out / f"{name}.safetensors", fit(given.clips, {path: spread(path, FRAMES_A_PERSON, ENROLMENT_SHARE)}))
        write(given.out / f"{name}.still.safetensors", fit(given.clips, {path: spread(path, 1, ENROLMENT_SHARE)}))
    for name, paths in people_of(given.data, "train").items() if not given.clip else ():
        chosen = [paths[at] for at in np.unique(np.linspace(0, len(paths) - 1, CLIPS_A_PERSON).astype(int))]
        frames = {path: spread(path, FRAMES_A_PERSON // len(chosen)) for path in chosen}
        write(given.out / f"{name}.safetensors", fit(given.clips, frames))
        write(given.out / f"{name}.still.safetensors", fit(given.clips, {chosen[0]: spread(chosen[0], 1)}))


if __name__ == "__main__":
    main()
