"""The speaking style of a person: what EncodeStyle measures, what Personalize refines, what PredictMotion reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.landmarks import mouth_opening, shut_lips
from services.motion.basis import LandmarkBasis
from services.motion.types import Bool, Float32

STYLE_FORMAT: Final = "dubstage.motion.style/2"
MIN_FRAMES: Final = 25
"""Usable frames that a style needs: one second."""
_LARGEST: Final = 1e7
"""Magnitude of a number in a style; of real people they stay below a few thousand pixels."""
_MIN_CLOSED: Final = 5
_SHUT_PX: Final = 1.0
_PRIOR_FRAMES: Final = 50.0
"""The typical spread counts as much as this many frames of the person's own."""


@dataclass(frozen=True, slots=True)
class StyleCode:
    """Output of the style encoder network: code float32 [S] and modulation float32 [L, 2, C]."""

    code: Float32
    modulation: Float32


class StyleNetwork(Protocol):
    """The style encoder, however it is run."""

    def encode(self, coefficients: Float32) -> StyleCode:
        """Coefficients in units of the typical spread, float32 [T, K]."""
        ...


@dataclass(frozen=True, slots=True)
class Style:
    """Speaking style of one person.

    Attributes:
        mean_mouth: float32 [59, 3], head space: mean of all frames.
        rest_mouth: float32 [59, 3], what motion is measured from, see measure_mouth.
        closed_mouth: float32 [59, 3], the shut mouth: mean of the tenth of frames with the smallest opening, or of 3 % where
            that tenth is open; its lips are brought together, since some people are never seen with their lips closed.
        spread: float32 [K], size of each coefficient while the mouth is open, crop pixels.
        code: float32 [S], style code.
        modulation: float32 [L, 2, C], gamma and beta of the decoder's AdaIN layers.
        landmark_correction: float32 [K, 126], see predict; None unless personalised for `ugc`.
        expression_correction: float32 [E, 145], see predict_expression; None unless personalised for `everybody`.
        pose_reference: float32 [6], how the head is held and moved, see head_style.HeadStyle; None unless encoded for `headpose`.
        pose_quantiles: float32 [6, 17]; None unless encoded for `headpose`.
        pose_mixing: float32 [6, 6]; None unless encoded for `headpose`.
        pose_steps: float32 [6]; None unless encoded for `headpose`.
        pose_weights: float32 [6, 13], see head_rhythm; None unless personalised for `headpose`.
        spoken_correction: float32 [E, 126], see pooled_speech; None unless personalised for `headpose`.
    """

    mean_mouth: Float32
    rest_mouth: Float32
    closed_mouth: Float32
    spread: Float32
    code: Float32
    modulation: Float32
    landmark_correction: Float32 | None = None
    expression_correction: Float32 | None = None
    pose_reference: Float32 | None = None
    pose_quantiles: Float32 | None = None
    pose_mixing: Float32 | None = None
    pose_steps: Float32 | None = None
    pose_weights: Float32 | None = None
    spoken_correction: Float32 | None = None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays of the style artefact, by name."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value is not None}

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, npt.NDArray[Any]],
        metadata: Mapping[str, str],
        *,
        expected: Mapping[str, tuple[int, ...]],
        optional: Mapping[str, tuple[int, ...]] | None = None,
        field: str,
    ) -> Style:
        """The style in an artefact.

        Raises:
            InvalidRequest: not a style, or one of networks of other sizes than `expected` (shape a name), or than those of
                `optional` that it has.
        """
        if metadata.get("format") != STYLE_FORMAT:
            raise InvalidRequest(f"{field}: the artefact is not a speaking style", field=field)
        wanted = {**expected, **{name: shape for name, shape in (optional or {}).items() if name in arrays}}
        for name, shape in wanted.items():
            found = arrays.get(name)
            if found is None or found.shape != shape or found.dtype.kind != "f" or not (np.abs(found) <= _LARGEST).all():
                raise InvalidRequest(
                    f"{field}: its array {name!r} is missing, holds no numbers within {_LARGEST:g}, or is not of shape "
                    f"{list(shape)}: encode the style anew",
                    field=field,
                )
        if (arrays["spread"] <= 0.0).any():
            raise InvalidRequest(
                f"{field}: its array 'spread' holds sizes that are not positive: encode the style anew", field=field
            )
        return Style(**{name: np.asarray(arrays[name], dtype=np.float32) for name in wanted})


@dataclass(frozen=True, slots=True)
class MouthStatistics:
    """Mean, rest and closed mouth (float32 [59, 3] each) and spread (float32 [K]) of a person; see Style."""

    mean_mouth: Float32
    rest_mouth: Float32
    closed_mouth: Float32
    spread: Float32


def measure_mouth(mouth_landmarks: Float32, basis: LandmarkBasis) -> MouthStatistics:
    """Statistics of a person's usable frames, float32 [T, 59, 3].

    How far the mean mouth is open depends on how much of the footage is silence. So motion is measured from the mean of the
    more open half of the frames, moved along the first component (the opening) to where the least open tenth of frames is; the
    spread is the root mean square of the way from there over the same half, and leans on the typical one where there is little
    footage: spread^2 = (T own^2 + T0 typical^2) / (T + T0), T0 = 50.
    """
    count = len(mouth_landmarks)
    order = np.argsort(mouth_opening(mouth_landmarks), kind="stable")
    nearly_shut = mouth_landmarks[order[: max(min(count, _MIN_CLOSED), count // 10)]].mean(axis=0)
    # Who is hardly ever seen with a shut mouth shows it best in the very least open frames.
    seen_shut = mouth_opening(nearly_shut) < _SHUT_PX
    least = nearly_shut if seen_shut else mouth_landmarks[order[: max(min(count, _MIN_CLOSED), count // 33)]].mean(axis=0)
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


def encode_style(mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, network: StyleNetwork) -> Style:
    """Style of a person from tracked footage at 25 frames/s.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T].
        basis: the landmark basis of the networks.
        network: the style encoder.

    Raises:
        NoUsableFootage: fewer than 25 usable frames.
    """
    if int(usable.sum()) < MIN_FRAMES:
        raise NoUsableFootage(
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
