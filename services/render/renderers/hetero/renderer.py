"""Renderer of `hetero`: each frame with two before and two after it, from landmarks and a reference picture.

face = reference picture + network(composites t-2 to t+2, mask, reference picture; actor's state)

**Input**: a window of composites, and a reference picture (paper `hetero`, Sec. 3.3, Eq. 3).

A composite is the frame's render box without the lower face: the mask is black, and the target landmarks are drawn into the black
as lines. Outer lips are red, inner lips are green, the jaw is blue, so that no line hides another. Frames t-2 to t+2 make a
window (p = 2).

Departures from the paper: the network also sees the mask of frame t, and the target lips of frame t, filled. The reference
picture is brought to the light of frame t's cheeks (services/render/key_pictures.py), so that the network does not have to learn
to do so.

**Reference picture.** The reference picture is part of the actor's state, and shows the person's lower face.

An actor's state has three parts: the numbers of the network's layers, the vector that is added to the reference picture's
appearance vector, and the reference picture.

Light multiplies colours: under less light lips get darker by the same share as the skin around them. match_colour, which comes
after, only adds. Adding is enough for pictures of one person in one video. Between a pale picture and a dark frame the added
offset is large, and would take all green and blue from the lips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE, CHEEKS_BOTTOM
from services.common.face.drawing import lip_pictures
from services.common.face.landmarks import JAW, LIPS_OUTER, NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.key_pictures import match_colour
from services.render.pairs import spread_rows
from services.render.renderer import NetworkInputs, StreamSetup, Window, drawn_face, with_face, without_dots
from services.render.types import RenderFrame

REACH: Final = 2
"""Frames before and after a frame that the network sees, p of the paper."""
WINDOW_FRAMES: Final = 2 * REACH + 1
COMPOSITE_CHANNELS: Final = 3
NUM_CHANNELS: Final = 8 + COMPOSITE_CHANNELS * (WINDOW_FRAMES - 1)
"""Channels of `window_picture`."""
REFERENCE: Final = slice(3, 6)
"""Channels of `window_picture` with the reference picture."""
GENERATOR_INPUTS: Final = (slice(0, 3), slice(6, 8), slice(8, NUM_CHANNELS))
"""Channels of `window_picture` that the generator sees: composite of t, mask and lips of t, composites of the neighbours."""

_SHIFT: Final = 4
_JAW_LINE: Final = len(JAW) - 2
"""Jaw points that follow each other along the line."""
EMBEDDING_SIZE: Final = 64
"""Numbers of an appearance vector, e of the paper."""
NUM_REFERENCES: Final = 8
"""Pictures whose appearance vectors are averaged for an actor."""
STATE_SIZE: Final = BOX_SIZE * BOX_SIZE * 3
"""Numbers that the reference picture takes at the end of an actor's state."""
_SERVED: Final = 0.7
"""Place of the served reference picture among all openings of the mouth: open, so that teeth are seen."""
_MIDDLE: Final = 128.0


def landmark_lines(box_landmarks: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return lines through the landmarks: uint8 [size, size, 3]: outer lips, inner lips, jaw, 255 on the line.

    In a box of 160 pixels a line is one pixel wide; the width grows with the box.

    Args:
        box_landmarks: float32 [59, 2], box pixels.
        size: side of the render box, pixels.
    """
    points = np.rint(np.clip(box_landmarks, -size, 2 * size) * (1 << _SHIFT)).astype(np.int32)
    outer, inner, jaw = points[: len(LIPS_OUTER)], points[len(LIPS_OUTER) : NUM_LIPS], points[NUM_LIPS:][:_JAW_LINE]
    pictures = [np.zeros((size, size), np.uint8) for _ in range(3)]
    for picture, line, closed in zip(pictures, (outer, inner, jaw), (True, True, False), strict=True):
        cv2.polylines(picture, [line], closed, 255, size // BOX_SIZE, cv2.LINE_AA, _SHIFT)
    return np.dstack(pictures)


def composite(background: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """Return a frame with the landmarks' lines on black wherever the mask is above 0: uint8 [H, W, 3].

    Args:
        background: uint8 [H, W, 3]; no pixel under the mask is read.
        mask: uint8 [H, W], lower-face mask.
        box_landmarks: float32 [59, 2], target landmarks, box pixels.
    """
    return np.where(mask[:, :, None] > 0, landmark_lines(box_landmarks, len(mask)), background)


def window_picture(window: Sequence[UInt8], background: UInt8, mask: UInt8, box_landmarks: Float32, reference: UInt8) -> UInt8:
    """Return the network's input: uint8 [H, W, NUM_CHANNELS].

    Channels 0 to 7: composite of frame t, reference picture, mask, target lips (128 = lips, 255 = inside of the mouth), as
    services.render.losses.compose expects them. Then come the composites of t-2, t-1, t+1, t+2.

    Args:
        window: results of `composite`, t-2 to t+2.
        background: uint8 [H, W, 3], frame t; no pixel under the mask is read.
        mask: uint8 [H, W], mask of frame t.
        box_landmarks: float32 [59, 2], target landmarks of frame t, box pixels.
        reference: uint8 [H, W, 3], the reference picture in its own light.

    Raises:
        ValueError: another number of frames than WINDOW_FRAMES.
    """
    if len(window) != WINDOW_FRAMES:
        raise ValueError(f"{WINDOW_FRAMES} frames expected, {len(window)} given")
    lips, inside = np.moveaxis(lip_pictures(box_landmarks, len(mask)), 2, 0)
    around = [one for index, one in enumerate(window) if index != REACH]
    return np.dstack([window[REACH], match_colour(reference, background, mask), mask, np.maximum(lips // 2, inside), *around])


def choose_references(bank: MouthBank) -> npt.NDArray[np.intp]:
    """Return rows of a bank from a shut mouth to a wide one, int [N], 1 <= N <= NUM_REFERENCES, the served one first."""
    order = np.argsort(mouth_opening(bank.mouth), kind="stable")
    rows = spread_rows(order, NUM_REFERENCES)
    served = int(_SERVED * (len(rows) - 1) + 0.5)
    return np.concatenate([rows[served : served + 1], np.delete(rows, served)])


def packed(network_state: Float32, reference: UInt8) -> Float32:
    """Return an actor's state, float32 [S].

    Pixels are stored as offsets from mid-grey, so an all-zero state has a grey picture, in the light of the frame's cheeks.

    Args:
        network_state: float32 [S - STATE_SIZE], the part of the state that the network takes.
        reference: uint8 [160, 160, 3].
    """
    return np.concatenate([network_state, (reference.astype(np.float32).ravel() - _MIDDLE) / _MIDDLE]).astype(np.float32)


def unpacked(state: Float32) -> tuple[Float32, UInt8]:
    """Return the part of an actor's state that the network takes, and the reference picture; see `packed`."""
    network_state, pixels = np.split(state, [len(state) - STATE_SIZE])
    levels = np.clip(np.rint(pixels * _MIDDLE + _MIDDLE), 0.0, 255.0).astype(np.uint8)
    return network_state, levels.reshape(BOX_SIZE, BOX_SIZE, 3)


def with_other_reference(network_state: Float32) -> Float32:
    """Return the network's part of a state without the vector that belongs to the actor's own reference picture."""
    return np.concatenate([network_state[:-EMBEDDING_SIZE], np.zeros(EMBEDDING_SIZE, np.float32)])


def in_light_of(picture: UInt8, background: UInt8, mask: UInt8) -> UInt8:
    """Return a picture in the light of a frame: uint8 [H, W, 3].

        frame's skin + min(frame's skin / picture's skin, 1) * (picture - picture's skin),    for each colour channel

    A gain above 1 is not used: it would make blue or orange shine of a highlight on dark skin, and black of stubble.

    Skin is the mean colour of nose and cheeks, which are what lies outside the mask at the height of the cheeks or above. The
    quarter of the brightest and the quarter of the darkest pixels do not count, because they can be hair, glasses or background.
    No pixel of the frame under the mask is read.

    Args:
        picture: uint8 [H, W, 3].
        background: uint8 [H, W, 3], the frame.
        mask: uint8 [H, W], lower-face mask of the frame.
    """
    # Every second pixel is plenty.
    seen = (slice(0, CHEEKS_BOTTOM * len(mask) // BOX_SIZE, 2), slice(None, None, 2))
    rests = mask[seen] == 0
    if not rests.any():
        return picture
    target, shown = _middle_colour(background[seen][rests]), _middle_colour(picture[seen][rests])
    gain = np.minimum(target / np.maximum(shown, 1.0), 1.0)
    lit = picture * gain.astype(np.float32) + (target - gain * shown).astype(np.float32)
    return np.asarray(np.clip(np.rint(lit), 0.0, 255.0), np.uint8)


def _middle_colour(pixels: UInt8) -> Float64:
    """Return the mean of the middle half of each channel, float64 [3], of pixels [N, 3], N >= 1."""
    quarter = len(pixels) // 4
    return np.asarray(np.sort(pixels, axis=0)[quarter : len(pixels) - quarter].mean(axis=0), np.float64)


class HeteroRenderer:
    """See services.render.renderer.FrameRenderer. The window keeps each frame's composite, uint8 [H, W, 3].

    If the stream is opened with a reference picture, this picture replaces the actor's own (appearance transfer, Sec. 4.5.2). It
    comes in another light, so each frame's light multiplies it.
    """

    def __init__(self, setup: StreamSetup) -> None:
        state, reference = unpacked(setup.state)
        if setup.reference is not None:
            state, reference = with_other_reference(state), setup.reference
        self._reference: Final = reference
        self._transferred: Final = setup.reference is not None
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: state}

    def prepare(self, frame: RenderFrame) -> UInt8:
        """See FrameRenderer.prepare."""
        return composite(frame.background, frame.mask, frame.box_landmarks)

    def network_inputs(self, window: Window[UInt8]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        frame = window.frame
        reference = in_light_of(self._reference, frame.background, frame.mask) if self._transferred else self._reference
        picture = window_picture(window.items, frame.background, frame.mask, frame.box_landmarks, reference)
        return NetworkInputs({INPUT_PICTURES: picture}, picture[..., REFERENCE])

    def draw(self, window: Window[UInt8], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        return with_face(window.frame, without_dots(drawn_face(inputs.base, outputs[OUTPUT_RESIDUAL])))
