"""The part of a stream that each renderer brings: how one frame is prepared, shown to the network, and drawn from the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import cv2
import numpy as np

from services.common.array_types import Array, Float32, UInt8
from services.render.frame_window import Window
from services.render.types import RenderFrame

T = TypeVar("T")

_NOTCH: Final = np.array([1, -10, 45, -120, 210, 772, 210, -120, 45, -10, 1], np.float32) / np.float32(1024)
"""1 - sin(w / 2)^10 at the frequency w: 0 at two pixels, .76 at three, .97 at four, and flat below."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What the network is shown of one frame.

    Attributes:
        inputs: arrays by the names of the network's inputs, without the batch axis.
        base: uint8 [H, W, 3], the picture that the drawn face starts from.
    """

    inputs: Mapping[str, Array]
    base: UInt8


class FrameDrawer(Protocol[T]):
    """What draws the frames of one stream. It holds the actor and no frame: services.render.streams keeps the window."""

    @property
    def actor_inputs(self) -> Mapping[str, Array]:
        """Arrays of the actor by the names of the network's inputs, without a batch axis.

        If the export sheet gives such an input a batch axis, its array is repeated for each frame. Otherwise the network gets the
        array once for a whole batch.
        """

    def prepare(self, frame: RenderFrame) -> T:
        """Return what the window keeps of a frame. Frames that are context only are prepared too if a window needs them."""

    def show(self, window: Window[T]) -> Shown:
        """Return what the network is shown of a frame that is wanted."""

    def draw(self, window: Window[T], shown: Shown, outputs: Mapping[str, Array]) -> UInt8:
        """Return the picture of a frame: uint8 [H, W, 3], the background wherever the mask is 0.

        Args:
            window: the frame with its neighbours.
            shown: what `show` returned for the frame.
            outputs: the network's outputs by name, without the batch axis.
        """


def drawn_face(base: UInt8, residual: Float32) -> Float32:
    """Return base + residual: float32 [H, W, 3], grey levels.

    Args:
        base: uint8 [H, W, 3].
        residual: float32 [H, W, 3], grey levels.
    """
    return np.asarray(base + residual, np.float32)


def without_dots(face: Float32) -> Float32:
    """Return a drawn face without structures two pixels wide: float32 [H, W, 3], grey levels.

    The last layer of a network that makes four pixels at once draws dots there: a checkerboard, or rows or columns of two pixels
    (Odena et al., Deconvolution and Checkerboard Artifacts, 2016). The filter passes .97 of structures four pixels wide.

    Args:
        face: float32 [H, W, 3], grey levels.
    """
    return np.asarray(cv2.sepFilter2D(face, -1, _NOTCH, _NOTCH, borderType=cv2.BORDER_REFLECT_101), np.float32)


def with_residual(frame: RenderFrame, base: UInt8, residual: Float32) -> UInt8:
    """Return base + residual where the mask is above 0, and the background elsewhere: uint8 [H, W, 3].

    Args:
        frame: background and mask.
        base: uint8 [H, W, 3].
        residual: float32 [H, W, 3], grey levels.
    """
    return with_face(frame, drawn_face(base, residual))


def with_face(frame: RenderFrame, face: Float32) -> UInt8:
    """Return a drawn face, rounded, where the mask is above 0, and the background elsewhere: uint8 [H, W, 3].

    Args:
        frame: background and mask.
        face: float32 [H, W, 3], grey levels.
    """
    drawn = np.clip(np.rint(face), 0.0, 255.0).astype(np.uint8)
    return np.where(frame.mask[:, :, None] > 0, drawn, frame.background)
