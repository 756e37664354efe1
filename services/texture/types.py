"""Types of the texture stage. Coordinates: docs/coordinates.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose
from services.common.face.native_pictures import NativeFile
from services.common.store.artefacts import ArtefactRef


def check_order(frame_index: int, last: int | None, field: str = "frame") -> None:
    """Check that a frame comes after the last one.

    Args:
        frame_index: index of the frame in the stream.
        last: index of the frame before; None: there was none.
        field: name of the frame in the request.

    Raises:
        InvalidRequestError: the index does not increase.
    """
    if last is not None and frame_index <= last:
        raise InvalidRequestError(f"frame_index must increase: {frame_index} came after {last}", field=f"{field}.frame_index")


class WarpMode(Enum):
    """Mode in which textures are chosen and brought to the target landmarks."""

    RETRIEVAL_ONLY = "retrieval_only"
    """The best texture, moved so that the mouth centres agree."""
    THIN_PLATE_SPLINE = "thin_plate_spline"
    """The best textures, each warped by its frame's own spline, blended."""
    TEMPORAL_WARP_NETWORK = "temporal_warp_network"
    """Thin-plate splines that the network corrects."""
    MEAN_MOUTH = "mean_mouth"
    """Always the medoid frame, warped to its own landmarks under the target head pose: a still mouth, a control."""
    LOW_FREQUENCY_ALBEDO = "low_frequency_albedo"
    """No retrieval: the identity's face drawn with its low-frequency albedo."""
    DETAILED_ALBEDO = "detailed_albedo"
    """LOW_FREQUENCY_ALBEDO with the detailed albedo instead."""


ALBEDO_MODES: Final = frozenset({WarpMode.LOW_FREQUENCY_ALBEDO, WarpMode.DETAILED_ALBEDO})
"""Modes that draw an identity and need no bank."""


@dataclass(frozen=True, slots=True)
class WarpConfig:
    """Config of a RetrieveWarp stream. It has a bank, or in an albedo mode an identity.

    Attributes:
        mode: how textures are chosen and warped.
        bank: the bank; None in an albedo mode.
        identity: the identity; None outside the albedo modes.
        detail_scale: pixels of the detail per box pixel, 1 to 4; 0: no detail is wanted.
    """

    mode: WarpMode
    bank: ArtefactRef | None
    identity: ArtefactRef | None
    detail_scale: int = 0


@dataclass(frozen=True, slots=True)
class BankFrame:
    """One frame of footage for a bank.

    Attributes:
        frame_index: index in the footage.
        box: uint8 [160, 160, 3], RGB render box.
        landmarks: float32 [478, 3], frame pixels.
        speech: float32 [20, 40], posteriorgram rows of the footage's own speech around the frame, 0..1; None: not given.
        expression: float32 [E], expression coefficients on the model of the person's identity; None: not given.
        native: luma of the box at the footage's own resolution; None: not given.
        spoken_mouth: float32 [59, 3], mouth that the motion predictor gives for the footage's own speech at the time of the frame,
            head space; None: not given.
    """

    frame_index: int
    box: npt.NDArray[np.uint8]
    landmarks: Float32
    pose: HeadPose
    speech: Float32 | None = None
    expression: Float32 | None = None
    native: NativeFile | None = None
    spoken_mouth: Float32 | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of the frame, bytes."""
        arrays = (self.box, self.landmarks, self.speech, self.expression, self.spoken_mouth)
        return sum(array.nbytes for array in arrays if array is not None) + (len(self.native.data) if self.native else 0)


@dataclass(frozen=True, slots=True)
class TargetFrame:
    """Frame that a texture is made for.

    Attributes:
        frame_index: absolute index in the stream.
        mouth: float32 [59, 3], target mouth-area landmarks in head space.
        pose: head pose of the background frame.
        context_only: the frame is only the past of later frames; no texture is wanted.
        inside_frame_index: footage index of the bank frame that shows the inside of the mouth; None: not given.
    """

    frame_index: int
    mouth: Float32
    pose: HeadPose
    context_only: bool = False
    inside_frame_index: int | None = None


@dataclass(frozen=True, slots=True)
class WarpedFrame:
    """The texture of one frame.

    Attributes:
        frame_index: as asked for.
        texture: uint8 [160, 160, 3], RGB render box.
        box_landmarks: float32 [59, 2], the landmarks that the texture was warped to, box pixels.
        bank_frame_index: footage index of the best retrieved frame; -1 where a face was drawn.
        distance: mean L1 distance a point of its landmarks and the target ones, head-space pixels; 0 where a face was drawn.
        fitting_error: Ef of the best frame's spline, box pixels; 0 without spline.
        bending_energy: Eb of the same, 1 / box pixel^2; 0 without spline.
        inside_frame_index: footage index of the frame that shows the inside of the mouth; -1 where a face was drawn.
        detail: uint8 [160 S, 160 S], detail of that frame's luma, both bands, plus 128 (mouth_detail.py); None: not asked for.
    """

    frame_index: int
    texture: npt.NDArray[np.uint8]
    box_landmarks: Float32
    bank_frame_index: int
    distance: float
    fitting_error: float
    bending_energy: float
    inside_frame_index: int
    detail: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class TextureConfig:
    """Config of a SampleNeuralTexture stream: the actor's artefact, and the identity, which only target frames need."""

    texture: ArtefactRef
    identity: ArtefactRef | None


@dataclass(frozen=True, slots=True)
class UvFrame:
    """Texture coordinates of one frame.

    Attributes:
        frame_index: index in the stream.
        uv: float32 [H, W, 2], 0..1; negative where there is no face.
    """

    frame_index: int
    uv: Float32


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """Features of one frame.

    Attributes:
        frame_index: as asked for.
        features: float32 [H, W, 16], 0..1; 0 where there is no face.
    """

    frame_index: int
    features: Float32


@dataclass(frozen=True, slots=True)
class PortraitFrame:
    """Target pose of a portrait.

    Attributes:
        frame_index: index in the stream.
        pose: target pose, in the portrait's pixels.
        blink: closure of the eyes, 0 as in the portrait to 1 shut.
    """

    frame_index: int
    pose: HeadPose
    blink: float


@dataclass(frozen=True, slots=True)
class TurnedPortrait:
    """A portrait with its head in another pose.

    Attributes:
        picture: uint8 [H, W, 3], RGB, as large as the portrait.
        landmarks: float32 [478, 3], pixels of the picture.
    """

    picture: npt.NDArray[np.uint8]
    landmarks: Float32
