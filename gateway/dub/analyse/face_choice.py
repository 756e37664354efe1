"""Choice of the face of the footage that is dubbed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_boxes import FrameBox
from services.common.errors import InvalidRequestError
from services.common.texts import Option, Text

if TYPE_CHECKING:
    from gateway.dub.analyse.face_records import FaceIndex
    from gateway.dub.analyse.motion_clip import SoundLag

_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_POINT: Final = re.compile(r" *[0-9]{1,6}(\.[0-9]{0,9})? *, *[0-9]{1,6}(\.[0-9]{0,9})? *")
"""Two numbers without signs, exponents, NaN or infinities."""
_RULES: Final = ("auto", "largest", "speaker")
"""Kinds of choices that name no face."""
_MAIN_SHARE: Final = 0.05
"""Least presence of a main face, as a share of the presence of the largest face."""
_NAMED_FACES: Final = 6
"""Most further faces that a warning describes."""
MeasureLag = Callable[[int], Awaitable["SoundLag"]]
"""Returns the lag of the footage's sound against the mouth of a face. The frames are None if the lag cannot be measured."""


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """The user's choice of a face.

    Attributes:
        kind: `auto`, `largest`, `speaker`, `id`, `point`, `box`, `boxes` or `actor`. `auto`: the face that speaks where the sound
            tells for certain, otherwise the largest face.
        face_id: face id, for the kind `id`.
        point: x and y in pixels of the first frame that shows a face, for the kind `point`.
        box: left, top, width and height in pixels of the same frame, for the kind `box`.
        boxes: the face from frame to frame of the video, for the kind `boxes`.
    """

    kind: str
    face_id: int = -1
    point: tuple[float, float] = (0.0, 0.0)
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    boxes: tuple[FrameBox, ...] = ()


AUTOMATIC: Final = FaceChoice("auto")
"""The choice of a request that names no face."""


@dataclass(frozen=True, slots=True)
class ChosenFace:
    """The face that a choice takes.

    Attributes:
        face_id: id of the face.
        why: why this face, to be read behind `face 3: `.
        speaks: whether the choice `auto` found that the face speaks for certain.
    """

    face_id: int
    why: str
    speaks: bool = False


def parse_face(text: str) -> FaceChoice:
    """Return the choice that a text describes: `auto`, `largest`, `speaker`, a face id, or `X,Y`.

    Raises:
        InvalidRequestError: the text is none of these.
    """
    if text in _RULES:
        return FaceChoice(text)
    if _NUMBER.fullmatch(text):
        return FaceChoice("id", face_id=int(text))
    if _POINT.fullmatch(text):
        x, y = (float(part) for part in text.split(","))
        return FaceChoice("point", point=(x, y))
    raise InvalidRequestError(
        "takes auto, largest, speaker, the number of a face (such as 0), or X,Y in pixels of the first frame (such as "
        f"320,180), not {text[:80]!r}",
        field="face",
        named=True,
    )


async def choose_face(index: FaceIndex, choice: FaceChoice, measure_lag: MeasureLag | None, *, first: int = 0) -> ChosenFace | None:
    """Return the face to dub; None: the footage shows no face.

    Args:
        index: faces of the footage.
        choice: the choice; not of the kinds `actor` and `boxes`.
        first: frame from which on a point or a box is looked for.
        measure_lag: measures the lag of a face, for the choices `auto` and `speaker`; None: the footage has no sound. The choice
            `speaker` takes the face whose mouth fits the sound best. `auto` takes this face only if its lag may be applied
            (motion_clip.credible_lag). Otherwise, and if no lag can be measured, the largest face is taken.

    Raises:
        InvalidRequestError: the chosen face is not in the footage.
    """
    ids = np.unique(index.face_id)
    if len(ids) == 0:
        return None
    match choice.kind:
        case "id":
            if choice.face_id not in ids:
                raise InvalidRequestError(
                    f"the footage has no face {choice.face_id}; it has: {', '.join(map(str, ids))}", field="face"
                )
            return ChosenFace(choice.face_id, "chosen by its number")
        case "point":
            return ChosenFace(_face_at(index, choice.point, first), "chosen by a point")
        case "box":
            return ChosenFace(_face_in(index, choice.box, first), "chosen by a box")
        case _:
            return await _choose_main(main_faces(index), len(ids), choice, measure_lag)


async def _choose_main(
    largest_first: Sequence[int], num_faces: int, choice: FaceChoice, measure_lag: MeasureLag | None
) -> ChosenFace:
    """Return the largest face or the speaker, of the main faces."""
    if num_faces == 1:
        return ChosenFace(largest_first[0], "the only face")
    largest = f"the largest of {num_faces} faces"
    if choice.kind == "largest" or len(largest_first) == 1:
        return ChosenFace(largest_first[0], largest)
    if measure_lag is None:
        return ChosenFace(largest_first[0], f"{largest}; the footage has no sound that tells who speaks")
    return _by_sound({face: await measure_lag(face) for face in largest_first}, choice, largest)


def _by_sound(measured: Mapping[int, SoundLag], choice: FaceChoice, largest: str) -> ChosenFace:
    """Return the speaker, or the largest face if the sound does not tell who speaks.

    Args:
        measured: lags of the main faces, the largest face first.
        largest: reason for the largest face.
    """
    # Modules that read manifests import this module, and need none of the stages.
    from gateway.dub.analyse.motion_clip import credible_lag

    first = next(iter(measured))
    lags = {face: lag for face, lag in measured.items() if lag.frames is not None}
    if not lags:
        return ChosenFace(first, f"{largest}; no mouth can be compared with the sound")
    # Of faces that fit equally well, the largest face is taken.
    best = max(lags, key=lambda face: lags[face].confidence)
    listed = ", ".join(f"face {face} {lag.confidence:.2f}" for face, lag in lags.items())
    fits_best = f"the mouth that fits the sound of the footage best (confidence: {listed})"
    if choice.kind == "speaker":
        return ChosenFace(best, fits_best)
    if credible_lag(lags[best], {face: lags[face] for face in lags if face != best}).frames is None:
        return ChosenFace(first, f"{largest}; the sound does not tell for certain who speaks (confidence: {listed})")
    return ChosenFace(best, f"the face that speaks: {fits_best}", speaks=True)


def by_presence(index: FaceIndex) -> list[int]:
    """Return the ids of all faces, the largest first: by their area in the frames that show them."""
    presence = _presences(index)
    return sorted(presence, key=lambda face: -presence[face])


def main_faces(index: FaceIndex) -> list[int]:
    """Return the ids of the faces that a user may mean, the largest first: not those that are small or short in the footage."""
    presence = _presences(index)
    least = _MAIN_SHARE * max(presence.values(), default=0.0)
    return [face for face in by_presence(index) if presence[face] >= least]


def about_faces(index: FaceIndex, chosen: ChosenFace, choice: FaceChoice) -> list[str]:
    """Return a warning if the footage shows several faces and the choice names neither a face nor the speaker.

    Args:
        index: faces of the footage.
        chosen: face that is taken.
        choice: the choice of the request.
    """
    others = [face for face in main_faces(index) if face != chosen.face_id]
    if choice.kind not in ("auto", "largest") or not others:
        return []
    named = ", ".join(_described(index, face) for face in others[:_NAMED_FACES])
    more = f" and {len(others) - _NAMED_FACES} more" if len(others) > _NAMED_FACES else ""
    return [
        Text(
            "the footage shows {faces} faces, and {taken} is taken: {why}. The others stay as they are: {others}. Choose another "
            "face with {face}: its number, largest or speaker",
            faces=len(others) + 1,
            taken=_described(index, chosen.face_id),
            why=chosen.why,
            others=named + more,
            face=Option("face"),
        )
    ]


def _described(index: FaceIndex, face: int) -> str:
    (rows,) = np.nonzero(index.face_id == face)
    x, y = index.centre[rows[0]]
    return f"face {face} (at {x:.0f},{y:.0f} in frame {index.frame[rows[0]]}, in {len(rows)} frames)"


def check_one_face(still: FaceIndex, choice: FaceChoice) -> None:
    """Raise InvalidRequestError if a still shows several faces and the choice names none of them."""
    if choice.kind in _RULES and len(still.face_id) > 1:
        centres = ", ".join(f"{x:.0f},{y:.0f}" for x, y in still.centre)
        raise InvalidRequestError(
            Text(
                "the picture shows {faces} faces, at {centres}: choose one with {face}",
                faces=len(still.face_id),
                centres=centres,
                face=Option("face", "X,Y"),
            ),
            field="face",
        )


def _presences(index: FaceIndex) -> dict[int, float]:
    return {int(face): _presence(index, face) for face in np.unique(index.face_id)}


def _presence(index: FaceIndex, face: int) -> float:
    mine = index.face_id == face
    usable = index.reason[mine] == common_pb2.FRAME_REASON_DUBBED
    areas: npt.NDArray[np.float32] = index.area[mine]
    return float((areas * np.where(usable, 1.0, 0.1)).sum())


def _face_at(index: FaceIndex, point: tuple[float, float], first: int) -> int:
    frame, shown = _first_shown(index, first)
    half = np.sqrt(index.area[shown]) / 2
    distance = np.abs(index.centre[shown] - np.array(point, np.float32)).max(axis=1)
    nearest = int(np.argmin(distance))
    if distance[nearest] > 1.5 * half[nearest]:
        raise _no_face(index, f"{point[0]:.0f},{point[1]:.0f}", frame, shown)
    return int(index.face_id[shown][nearest])


def _face_in(index: FaceIndex, box: tuple[float, float, float, float], first: int) -> int:
    """Return the face whose centre is nearest to the centre of a box, and inside the box."""
    frame, shown = _first_shown(index, first)
    left, top, width, height = box
    apart = np.abs(index.centre[shown] - np.array([left + width / 2, top + height / 2], np.float32))
    nearest = int(np.argmin(apart.max(axis=1)))
    if apart[nearest, 0] > width / 2 or apart[nearest, 1] > height / 2:
        raise _no_face(index, f"the box {left:.0f},{top:.0f},{width:.0f},{height:.0f}", frame, shown)
    return int(index.face_id[shown][nearest])


def _first_shown(index: FaceIndex, first: int) -> tuple[int, npt.NDArray[np.bool_]]:
    """Return the first frame from `first` on that shows a face, and its records, bool [R]."""
    later = index.frame[index.frame >= first]
    frame = int(later.min()) if len(later) else int(index.frame.min())
    return frame, index.frame == frame


def _no_face(index: FaceIndex, where: str, frame: int, shown: npt.NDArray[np.bool_]) -> InvalidRequestError:
    centres = ", ".join(f"{x:.0f},{y:.0f}" for x, y in index.centre[shown])
    return InvalidRequestError(f"no face at {where} in frame {frame}; faces are at: {centres}", field="face")
