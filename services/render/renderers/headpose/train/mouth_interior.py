"""Write the mean inside of an open mouth.

    python -m services.render.renderers.headpose.train.mouth_interior --data FOLDER --out FILE

The widest mouths of every person are moved to their common landmarks and divided by the brightness of the lips. The mean is taken
first over each person, then over all people. services.render.renderers.headpose.mouth_interior shows the result where a shut mouth
is opened.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.store.tensor_bytes import encode_arrays
from services.render.key_pictures import KeyPictures, moved_keys
from services.render.lip_pictures import lip_pictures
from services.render.renderers.headpose.mouth_interior import FORMAT, LEVEL, MouthInterior, inner_area, lip_and_skin
from services.render.train.footage import Person, read_people

_FRAMES: Final = 6
_WIDEST_SHARE: Final = 0.04
_SMALLEST_AREA: Final = 250.0
_CONTRAST: Final = 1.6


def widest(person: Person) -> KeyPictures:
    """Return a person's widest mouths; none if the person never opens the mouth."""
    bank = person.bank
    area = np.array([inner_area(points) for points in bank.box_landmarks])
    rows = np.argsort(-area, kind="stable")[: max(_FRAMES, round(len(area) * _WIDEST_SHARE))]
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, _FRAMES).round().astype(int))]
    rows = rows[area[rows] > _SMALLEST_AREA]
    return KeyPictures(bank.boxes[rows], bank.box_landmarks[rows])


def mean_interior(people: list[KeyPictures]) -> MouthInterior:
    """Return the mean over people.

    Args:
        people: mouths of each person, at least one.
    """
    landmarks = np.concatenate([one.landmarks for one in people]).mean(axis=0).astype(np.float32)
    whole = np.full(people[0].pictures.shape[1:3], 255, np.uint8)
    made: list[Float32] = []
    for person in people:
        mean = moved_keys(person, landmarks).astype(np.float32).mean(axis=0)
        made.append(mean / lip_and_skin(mean, whole, landmarks).lip_level)
    relative = np.mean(made, axis=0)
    skin = lip_and_skin(relative, whole, landmarks).skin_chroma
    inside = lip_pictures(landmarks)[..., 1] > 127
    middle = relative[inside].mean(axis=0)
    # A mean over people has less contrast than the mouth of any one person.
    relative = np.where(inside[..., None], middle + _CONTRAST * (relative - middle), relative)
    return MouthInterior(np.clip(np.rint(relative * LEVEL), 0, 255).astype(np.uint8), landmarks, skin)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--out", type=Path, default=Path("services/render/renderers/headpose/mouth_interior.safetensors"))
    given = parser.parse_args()
    cv2.setNumThreads(1)
    people = [widest(person) for person in read_people(given.data, use="train", max_clips=16, sharp_marks=())]
    found = mean_interior([person for person in people if len(person.pictures)])
    arrays: dict[str, npt.NDArray[Any]] = {"picture": found.picture, "landmarks": found.landmarks, "skin_chroma": found.skin_chroma}
    given.out.write_bytes(encode_arrays(arrays, {"format": FORMAT}))


if __name__ == "__main__":
    main()
