"""The speaking style of a person: EncodeStyle measures a style, Personalize refines it, PredictMotion reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Bool, Float32
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.landmarks import mouth_opening, shut_lips
from services.motion.basis import LandmarkBasis

STYLE_FORMAT: Final = "dubstage.motion.style/3"
"""Format of styles whose corrections learned mouths that come 40 ms late."""
MIN_FRAMES: Final = 25
"""Fewest usable frames that a style is measured from: one second."""
WIDEST_OPENING: Final = "widest_opening"
"""Name of a style's array float32 [1]: the opening, crop pixels, that 99 % of the person's usable frames stay under. Styles of
people who are never seen with an open mouth lack the array.
"""
_WIDEST_SHARE: Final = 0.99
FASTEST_STEP: Final = "fastest_step"
"""Name of a style's array float32 [1]: the person's largest change of the opening within a frame of 40 ms, crop pixels, see
fastest_step. The styles that lack WIDEST_OPENING lack this array."""
RESTING_MOUTH: Final = "resting_mouth"
"""Name of a style's array float32 [59, 3]: the mouth that a person has at rest, head space, see resting_mouth. The styles that lack
WIDEST_OPENING lack this array: there, the shut mouth takes the place."""
_LEAST_STEP: Final = 0.5
"""Seconds of footage may not show the person's fastest jaw: a step counts as at least this share of the widest opening."""
_LARGEST: Final = 1e7
"""Largest magnitude of a number in a style. Numbers of real people stay below a few thousand pixels."""
_MIN_CLOSED: Final = 5
_RESTING_SHARE: Final = 10
"""The person's least open frames are one of so many."""
_SHUT_PX: Final = 1.0
_PRIOR_FRAMES: Final = 50.0
"""The typical spread counts as much as this many frames of the person."""


@dataclass(frozen=True, slots=True)
class StyleCode:
    """Output of the style encoder: code float32 [S] and modulation float32 [L, 2, C]."""

    code: Float32
    modulation: Float32


class StyleNetwork(Protocol):
    """The style encoder, in ONNX Runtime or PyTorch."""

    def encode(self, coefficients: Float32) -> StyleCode:
        """Encode coefficients in units of the typical spread, float32 [T, K]."""
        ...


@dataclass(frozen=True, slots=True)
class Style:
    """Speaking style of one person.

    Attributes:
        mean_mouth: float32 [59, 3], head space: mean of all frames.
        rest_mouth: float32 [59, 3], mouth that motion is measured from, see measure_mouth.
        closed_mouth: float32 [59, 3], the shut mouth: mean of the tenth of frames with the smallest opening, or of 3 % if that
            tenth is open. The lips are brought together, because some people are never seen with closed lips.
        spread: float32 [K], size of each coefficient while the mouth is open, crop pixels.
        code: float32 [S], style code.
        modulation: float32 [L, 2, C], gamma and beta of AdaIN layers.
        added: arrays that predictors add when they encode or personalise a style, float32, by the names that the predictors declare
            (Predictor.style_arrays). A predictor reads its own arrays only.
    """

    mean_mouth: Float32
    rest_mouth: Float32
    closed_mouth: Float32
    spread: Float32
    code: Float32
    modulation: Float32
    added: Mapping[str, Float32] = field(default_factory=dict)

    def adding(self, **arrays: Float32) -> Style:
        """Return the style with further arrays. Arrays of the same name are replaced."""
        return replace(self, added={**self.added, **arrays})

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the style artefact by name."""
        return {**{each.name: getattr(self, each.name) for each in fields(self) if each.name != "added"}, **self.added}

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, Array],
        metadata: Mapping[str, str],
        *,
        expected: Mapping[str, tuple[int, ...]],
        added: Mapping[str, tuple[int, ...]],
        field: str,
    ) -> Style:
        """Return the style in an artefact.

        Args:
            arrays: the artefact's arrays by name.
            metadata: the artefact's metadata.
            expected: shape of each array that every style holds.
            added: shape of each array in the artefact that a predictor added.
            field: field of the request that names the artefact.

        Raises:
            InvalidRequestError: the artefact is no style, or an array is missing, has another shape or holds numbers out of range.
        """
        if metadata.get("format") != STYLE_FORMAT:
            raise InvalidRequestError(
                f"{field}: the artefact is not a speaking style of the format {STYLE_FORMAT}: enrol the person again", field=field
            )
        for name, shape in {**expected, **added}.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype.kind != "f" or not (np.abs(array) <= _LARGEST).all():
                raise InvalidRequestError(
                    f"{field}: its array {name!r} is missing, holds no numbers within {_LARGEST:g}, or is not of shape "
                    f"{list(shape)}: encode the style anew",
                    field=field,
                )
        if (arrays["spread"] <= 0.0).any():
            raise InvalidRequestError(
                f"{field}: its array 'spread' holds sizes that are not positive: encode the style anew", field=field
            )

        def read(names: Iterable[str]) -> dict[str, Float32]:
            return {name: np.asarray(arrays[name], dtype=np.float32) for name in names}

        return Style(**read(expected), added=read(added))


@dataclass(frozen=True, slots=True)
class MouthStatistics:
    """Mean, rest and closed mouth (float32 [59, 3] each) and spread (float32 [K]) of a person; see Style."""

    mean_mouth: Float32
    rest_mouth: Float32
    closed_mouth: Float32
    spread: Float32


def measure_mouth(mouth_landmarks: Float32, basis: LandmarkBasis) -> MouthStatistics:
    """Return the statistics of a person's usable frames, float32 [T, 59, 3].

    The opening of the mean mouth depends on the share of silence in the footage. So the rest mouth is the mean of the more open
    half of the frames, moved along the first component (the opening) to the least open tenth of the frames. The spread is the
    root mean square distance from the rest mouth over the same half. With little footage, the spread leans on the typical spread:

        spread^2 = (T own^2 + T0 typical^2) / (T + T0),   T0 = 50
    """
    count = len(mouth_landmarks)
    order = np.argsort(mouth_opening(mouth_landmarks), kind="stable")
    nearly_shut = mouth_landmarks[_least_open(mouth_landmarks, _RESTING_SHARE)].mean(axis=0)
    # A person who is hardly ever seen with a shut mouth shows the shut mouth best in the very least open frames.
    seen_shut = mouth_opening(nearly_shut) < _SHUT_PX
    least = nearly_shut if seen_shut else mouth_landmarks[_least_open(mouth_landmarks, 33)].mean(axis=0)
    closed = shut_lips(least)
    speaking = mouth_landmarks[order[count // 2 :]]
    middle = speaking.mean(axis=0)
    rest = middle + basis.project(nearly_shut - middle)[0] * basis.components[0]
    open_half = basis.project(speaking - rest)
    own, typical = (open_half**2).mean(axis=0), basis.typical_spread**2
    return MouthStatistics(
        mouth_landmarks.mean(axis=0).astype(np.float32),
        rest.astype(np.float32),
        closed.astype(np.float32),
        np.sqrt((count * own + _PRIOR_FRAMES * typical) / (count + _PRIOR_FRAMES)).astype(np.float32),
    )


def widest_opening(mouth_landmarks: Float32) -> Float32:
    """Return the opening that 99 % of a person's usable frames stay under, float32 [T, 59, 3] -> float32 [1], crop pixels."""
    return np.array([np.quantile(mouth_opening(mouth_landmarks), _WIDEST_SHARE)], np.float32)


def resting_mouth(mouth_landmarks: Float32) -> Float32:
    """Return the mouth that a person has at rest, float32 [T, 59, 3] -> float32 [59, 3]: mean of the least open tenth of frames.

    Style.rest_mouth is no such mouth. It is as open as the opening component alone makes it: by .02 to .6 of the range of the
    person's openings.
    """
    return np.asarray(mouth_landmarks[_least_open(mouth_landmarks, _RESTING_SHARE)].mean(axis=0), np.float32)


def _least_open(mouth_landmarks: Float32, one_of: int) -> npt.NDArray[np.intp]:
    """Return the indices of the least open frames: one of so many frames, at least five frames if there are as many."""
    count = len(mouth_landmarks)
    order = np.argsort(mouth_opening(mouth_landmarks), kind="stable")
    return order[: max(min(count, _MIN_CLOSED), count // one_of)]


def fastest_step(mouth_landmarks: Float32, usable: Bool) -> Float32:
    """Return the largest change of a person's opening from frame to frame, float32 [1], crop pixels.

    The change is at least half of the widest opening.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
        usable: bool [T].
    """
    opening = mouth_opening(mouth_landmarks)
    steps = np.abs(np.diff(opening))[usable[1:] & usable[:-1]]
    least = np.float32(_LEAST_STEP) * widest_opening(mouth_landmarks[usable])[0]
    return np.array([max(float(steps.max(initial=0.0)), float(least))], np.float32)


def encode_style(mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, network: StyleNetwork) -> Style:
    """Return the style of a person from tracked footage at 25 frames per second.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T].
        network: the style encoder.

    Raises:
        NoUsableFootageError: fewer than 25 usable frames.
    """
    if int(usable.sum()) < MIN_FRAMES:
        raise NoUsableFootageError(
            f"a speaking style needs {MIN_FRAMES} usable frames (1 s at 25 frames/s), the footage has {int(usable.sum())}",
            subject="mouth_landmarks",
        )
    statistics = measure_mouth(mouth_landmarks[usable], basis)
    coefficients = basis.project(mouth_landmarks[usable] - statistics.rest_mouth) / basis.typical_spread
    encoded = network.encode(coefficients.astype(np.float32))
    return Style(
        statistics.mean_mouth,
        statistics.rest_mouth,
        statistics.closed_mouth,
        statistics.spread,
        encoded.code,
        encoded.modulation,
    )
