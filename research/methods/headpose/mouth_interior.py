"""The mean inside of an open mouth.

The widest mouths of every person are moved to their common landmarks and divided by the brightness of the lips. The mean is taken
first over each person, then over all people. services.render.renderers.headpose.renderer shows the result where a shut mouth
is opened. Nothing is learned step by step: the run has no steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from research.render.people import People, PeopleSettings, TrainingPerson, person_clips
from research.training.device import Device
from research.training.networks import Opening, TrainableNetwork
from research.training.training import Check, LoopSettings, Stateful, Training
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.drawing import lip_pictures
from services.common.files import write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.render.key_pictures import KeyPictures, moved_keys
from services.render.renderers.headpose.renderer import FILE, FORMAT, LEVEL, MouthInterior, inner_area, lip_and_skin

_FRAMES: Final = 6
_WIDEST_SHARE: Final = 0.04
_SMALLEST_AREA: Final = 250.0
_CONTRAST: Final = 1.6


@dataclass(frozen=True, kw_only=True, slots=True)
class MouthInteriorRecipe:
    """Recipe of the mean.

    Attributes:
        loop: no steps.
        max_people: largest number of people, evenly spread over all.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=0))
    max_people: int = 100


def widest(person: TrainingPerson) -> KeyPictures:
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
    interiors: list[Float32] = []
    for person in people:
        mean = moved_keys(person, landmarks).astype(np.float32).mean(axis=0)
        interiors.append(mean / lip_and_skin(mean, whole, landmarks).lip_level)
    relative = np.mean(interiors, axis=0)
    skin = lip_and_skin(relative, whole, landmarks).skin_chroma
    inside = lip_pictures(landmarks)[..., 1] > 127
    middle = relative[inside].mean(axis=0)
    # A mean over people has less contrast than the mouth of any one person.
    relative = np.where(inside[..., None], middle + _CONTRAST * (relative - middle), relative)
    return MouthInterior(np.clip(np.rint(relative * LEVEL), 0, 255).astype(np.uint8), landmarks, skin)


class MouthInteriorTraining(Training[None]):
    """The mean over people, as a training without steps.

    Args:
        device: not used: all is computed on the CPU.
    """

    def __init__(self, recipe: MouthInteriorRecipe, device: Device, people: People) -> None:
        super().__init__(recipe.loop, device, people.rows)
        self._recipe, self._people = recipe, people

    def parts(self) -> Mapping[str, Stateful]:
        """Return nothing."""
        return {}

    def batch(self, step: int, index: int) -> None:
        """Return nothing."""

    def learn(self, step: int, batches: Sequence[None]) -> Mapping[str, float]:
        """Learn nothing."""
        return {}

    def check(self, step: int, folder: Path) -> Check:
        """Measure nothing."""
        return Check()

    def write(self, folder: Path) -> None:
        """Write nothing before the end."""

    def finish(self, folder: Path) -> None:
        """Write `mouth_interior.safetensors`.

        Raises:
            InvalidRequestError: nobody opens the mouth wide.
        """
        count = len(self._people.clips)
        chosen = np.unique(np.linspace(0, count - 1, min(count, self._recipe.max_people)).round().astype(int))
        mouths = [widest(self._people.person(int(number), 0)) for number in chosen]
        mouths = [person for person in mouths if len(person.pictures)]
        if not mouths:
            raise InvalidRequestError(
                "nobody in the split 'train' opens the mouth wide: add clips of people who speak", field="data"
            )
        interior = mean_interior(mouths)
        arrays: dict[str, npt.NDArray[Any]] = {
            "picture": interior.picture,
            "landmarks": interior.landmarks,
            "skin_chroma": interior.skin_chroma,
        }
        write_whole(folder / FILE, encode_arrays(arrays, {"format": FORMAT}))


def _open(opening: Opening) -> MouthInteriorTraining:
    clips = person_clips(opening.data.of("train", pixels=True), apart=False)
    people = People(opening.data, clips, PeopleSettings(pool_people=1), seed=opening.config.loop.seed)
    return MouthInteriorTraining(opening.config, opening.device, people)


def _export(run: Path, folder: Path) -> list[Path]:
    path = run / FILE
    if not path.is_file():
        raise InvalidRequestError(
            f"{run} holds a run that is not complete: go on with it by `dubstage train --resume`", field="run"
        )
    return [write_whole(folder / FILE, path.read_bytes())]


NETWORK: Final = TrainableNetwork(
    name="mouth_interior",
    stage="render",
    summary="mean inside of an open mouth, for still pictures with shut lips",
    configs={"default": MouthInteriorRecipe(), "large": MouthInteriorRecipe(max_people=1000)},
    open=_open,
    export=_export,
)
