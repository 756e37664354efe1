"""Renderer of `everyone`: each frame with its neighbours, from features of the actor's neural texture and from speech.

face = first three features in the light of the frame + residual(window, reference, lips, speech; offset of W),
then smooth chroma (`with_smooth_chroma`) and the filmed border (`with_filmed_border`)

**Input** (Saunders and Namboodiri, Sec. 3.3, Fig. 3 and 4).

Each frame of the window t-1 to t+1 has 17 channels: the footage, whose masked area holds the rasterised features of the neural
texture (16 channels), and the mask. Outside the mask, the first three channels are the footage's RGB and the other channels are
0. A reference picture of the person, the target lips of frame t, and the speech around frame t stand beside them. All are bytes.
Readings and departures:

* The first three features resemble RGB. They are brought to the light of the frame (services.render.key_pictures), and the network
  adds a residual to them. Where the mesh covers nothing, as below the jaw, the reference picture in the light of the frame stands.
* Speech is 20 rows of a posteriorgram, t-2 to t+2, where the paper has a mel spectrogram: one person's mel spectrogram says much
  about the voice, and a prior of few people would learn the voices. The rows are one channel, enlarged to the box, because the int8
  file is calibrated with pictures.
* The target lips, filled, are not in the paper. A linear expression model of few coefficients does not bring the mesh to the target
  lips exactly.

**Border of the face** (Sec. 3.7): pixels that are background, filmed and drawn, stay as filmed.

The paper tells face from background with a segmentation network. Here the mesh tells where the drawn face ends, and the filmed
pixel counts as background where it resembles the drawn one: below the drawn jaw, both show the same neck or collar. A filmed chin
below a raised jaw differs from the drawn neck and is replaced.

**Chroma.** The chroma of a drawn face is smooth, as in a video, whose chroma has half the resolution of its luma.

The network mixes 16 features into three colours. Between teeth, lips and the dark of the mouth the mixtures of the colours change
at slightly different places, and draw green and violet fringes a few pixels wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from services.common.array_types import Array, Bool, Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_SIZE
from services.common.face.drawing import lip_pictures
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import SPEECH_SHAPE, MouthBank
from services.common.face.neural_texture import NUM_CHANNELS
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.key_pictures import match_colour
from services.render.renderer import NetworkInputs, StreamSetup, Window, drawn_face, with_face, without_dots
from services.render.types import RenderFrame

WINDOW_FRAMES: Final = 3
"""Frames t-1 to t+1 that the network sees, T of the paper."""
_OUTLINE_PX: Final = 5.0
NUM_MORE: Final = NUM_CHANNELS - 3
"""Features behind the first three."""
_FRAME_CHANNELS: Final = NUM_CHANNELS + 1

MORE: Final = slice(8, 8 + NUM_MORE)
"""Channels of frame t that hold the features behind the first three."""
NEIGHBOURS: Final = tuple(
    slice(MORE.stop + index * _FRAME_CHANNELS, MORE.stop + (index + 1) * _FRAME_CHANNELS) for index in range(WINDOW_FRAMES - 1)
)
"""Channels of the frames t-1 and t+1: RGB, further features, mask."""
SPEECH: Final = NEIGHBOURS[-1].stop
"""Channel of the speech."""
PICTURE_CHANNELS: Final = SPEECH + 1
"""Channels of `network_picture`."""
_SHAPE: Final = (BOX_SIZE, BOX_SIZE, 3)
REFERENCE_SIZE: Final = BOX_SIZE * BOX_SIZE * 3
"""Numbers that the reference picture takes at the end of an actor's state."""
_MIDDLE: Final = 128.0
_REFERENCE_QUANTILE: Final = 0.8
_SAME_LEVELS: Final = 12.0
_OTHER_LEVELS: Final = 30.0
_SMOOTH_SIGMA: Final = 1.5
_MARGIN: Final = np.ones((5, 5), np.uint8)
_SIGMA: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class FilledFrame:
    """One frame with features in place of its masked area.

    Attributes:
        base: uint8 [H, W, 3], the footage with the first three features under the mask, in the light of the footage.
        more: uint8 [H, W, 13], further features under the mask, 0 elsewhere.
        mask: uint8 [H, W], lower-face mask.
    """

    base: UInt8
    more: UInt8
    mask: UInt8


def ground_picture(background: UInt8, mask: UInt8, reference: UInt8) -> UInt8:
    """Return the footage with the reference picture, in the light of the footage, under the mask: uint8 [H, W, 3].

    No pixel of the background under the mask is read.

    Args:
        background: uint8 [H, W, 3].
        mask: uint8 [H, W].
        reference: uint8 [H, W, 3].
    """
    return np.where(mask[..., None] > 0, match_colour(reference, background, mask), background)


def filled_frame(ground: UInt8, mask: UInt8, features: UInt8, covered: Bool) -> FilledFrame:
    """Return a frame with features under its mask.

    Args:
        ground: uint8 [H, W, 3], what `ground_picture` returned.
        mask: uint8 [H, W].
        features: uint8 [H, W, 16], rasterised features.
        covered: bool [H, W], where the mesh covers the box.
    """
    face = match_colour(np.ascontiguousarray(features[..., :3]), ground, mask, covered).astype(np.float32)
    base = np.rint(ground + face_weight(covered, mask)[..., None] * (face - ground)).astype(np.uint8)
    shown = (covered & (mask > 0))[..., None]
    return FilledFrame(base, np.where(shown, features[..., 3:], np.uint8(0)), mask)


def face_weight(covered: Bool, mask: UInt8) -> Float32:
    """Return the weight of the features in the base picture: float32 [H, W] in 0..1.

    Inside the mask the weight rises over 5 pixels from the outline of the mesh, so that jaw and neck meet without a line. Outside
    the mask the weight is 0.

    Args:
        covered: bool [H, W], where the mesh covers the box.
        mask: uint8 [H, W].
    """
    outline = _OUTLINE_PX * (len(mask) // BOX_SIZE)
    depth = cv2.distanceTransform(covered.view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(np.where(mask > 0, np.minimum(depth / outline, 1.0), 0.0), np.float32)


def require_forms(features: Float32, speech: Float32, mask: UInt8) -> None:
    """Check the forms of a frame's features.

    Args:
        features: float32 [H, W, 16], rasterised features.
        speech: float32 [20, 40].
        mask: uint8 [H, W].

    Raises:
        InvalidRequestError: one of them has another shape.
    """
    expected = (*mask.shape, NUM_CHANNELS)
    for name, values, shape in (("neural_features", features, expected), ("speech_features", speech, SPEECH_SHAPE)):
        if values.shape != shape:
            raise InvalidRequestError(
                f"frame.{name}: expected shape {list(shape)}, got {list(values.shape)}", field=f"frame.{name}"
            )


def feature_bytes(features: Float32) -> UInt8:
    """Return features 0..1 as bytes: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(features * 255.0), 0.0, 255.0), dtype=np.uint8)


def speech_channel(speech: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return the speech as a channel of the picture: uint8 [size, size]. Each number fills a block.

    Args:
        speech: float32 [20, 40], probabilities.
        size: side of the render box, pixels.
    """
    rows, classes = SPEECH_SHAPE
    return np.asarray(feature_bytes(speech).repeat(size // rows, axis=0).repeat(size // classes, axis=1))


def network_picture(window: Sequence[FilledFrame], reference: UInt8, lips: UInt8, speech: Float32) -> UInt8:
    """Return the network's input: uint8 [H, W, PICTURE_CHANNELS].

    Reference; base, mask and target lips of frame t in the channels that services.render.pairs names; further features of t; frames
    t-1 and t+1; speech.

    Args:
        window: frames t-1, t and t+1.
        reference: uint8 [H, W, 3], the reference picture.
        lips: uint8 [H, W], target lips of frame t (services.common.face.drawing).
        speech: float32 [20, 40].

    Raises:
        ValueError: another number of frames.
    """
    if len(window) != WINDOW_FRAMES:
        raise ValueError(f"{WINDOW_FRAMES} frames expected, {len(window)} given")
    before, now, after = window
    parts = [reference, now.base, now.mask, lips, now.more]
    for frame in (before, after):
        parts += [frame.base, frame.more, frame.mask]
    return np.dstack([*parts, speech_channel(speech, len(now.mask))])


def packed(style: Float32, reference: UInt8) -> Float32:
    """Return an actor's state, float32 [S + REFERENCE_SIZE]. Zeros stand for a grey reference picture.

    Args:
        style: float32 [S], offset of W.
        reference: uint8 [160, 160, 3].
    """
    return np.concatenate([style, (reference.astype(np.float32).ravel() - _MIDDLE) / _MIDDLE]).astype(np.float32)


def unpacked(state: Float32) -> tuple[Float32, UInt8]:
    """Return the offset of W, float32 [S], and the reference picture, uint8 [160, 160, 3], of a state that `packed` made."""
    style, picture = np.split(state, [len(state) - REFERENCE_SIZE])
    levels = np.clip(np.rint(picture * _MIDDLE + _MIDDLE), 0.0, 255.0).astype(np.uint8)
    return style, levels.reshape(_SHAPE)


def reference_row(bank: MouthBank) -> int:
    """Return the row of the bank's reference picture: an open mouth, which shows teeth, but not the widest."""
    order = np.argsort(mouth_opening(bank.mouth), kind="stable")
    return int(order[int(_REFERENCE_QUANTILE * (len(order) - 1))])


def with_filmed_border(drawn: UInt8, background: UInt8, covered: Bool) -> UInt8:
    """Return the drawn picture with the filmed pixels where both are background: uint8 [H, W, 3].

    Args:
        drawn: uint8 [H, W, 3], the drawn picture.
        background: uint8 [H, W, 3], the footage.
        covered: bool [H, W], where the drawn face is.
    """
    outside = cv2.erode((~covered).view(np.uint8), _MARGIN) > 0
    if not outside.any():
        return drawn
    difference = np.abs(cv2.subtract(drawn.astype(np.float32), background.astype(np.float32))).max(axis=-1)
    difference = cv2.GaussianBlur(difference, (0, 0), _SMOOTH_SIGMA)
    same = np.clip((_OTHER_LEVELS - difference) / (_OTHER_LEVELS - _SAME_LEVELS), 0.0, 1.0)
    weight = cv2.GaussianBlur(np.where(outside, same, 0.0).astype(np.float32), (0, 0), _SMOOTH_SIGMA) * ~covered
    mixed = drawn + weight[..., None] * (background.astype(np.float32) - drawn)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), dtype=np.uint8)


def with_smooth_chroma(face: Float32) -> Float32:
    """Return a drawn face with the same luma and a smooth chroma: float32 [H, W, 3], grey levels.

    Args:
        face: float32 [H, W, 3], RGB, grey levels.
    """
    smooth = cv2.GaussianBlur(face, (0, 0), _SIGMA)
    luma = cv2.cvtColor(face - smooth, cv2.COLOR_RGB2GRAY)
    return np.asarray(smooth + luma[..., None], np.float32)


class PreparedFrame(NamedTuple):
    """Frame as the window keeps the frame: its channels, and where the drawn face covers the box, bool [H, W]."""

    filled: FilledFrame
    covered: Bool


class EveryoneRenderer:
    """See services.render.renderer.FrameRenderer."""

    def __init__(self, setup: StreamSetup) -> None:
        style, self._reference = unpacked(setup.state)
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: style}

    def prepare(self, frame: RenderFrame) -> PreparedFrame:
        """See FrameRenderer.prepare.

        Raises:
            InvalidRequestError: the features have another shape than the box and a texture's channels, or the speech has another
                shape.
        """
        assert frame.neural_features is not None  # the renderer declares these inputs
        assert frame.speech_features is not None
        require_forms(frame.neural_features, frame.speech_features, frame.mask)
        covered = np.asarray(frame.neural_features.any(axis=-1), np.bool_)
        ground = ground_picture(frame.background, frame.mask, self._reference)
        return PreparedFrame(filled_frame(ground, frame.mask, feature_bytes(frame.neural_features), covered), covered)

    def network_inputs(self, window: Window[PreparedFrame]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        frame, filled = window.frame, window.now.filled
        assert frame.speech_features is not None
        lips = lip_pictures(frame.box_landmarks, len(frame.mask))[..., 0]
        picture = network_picture([item.filled for item in window.items], self._reference, lips, frame.speech_features)
        return NetworkInputs({INPUT_PICTURES: picture}, filled.base)

    def draw(self, window: Window[PreparedFrame], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        frame = window.frame
        face = with_face(frame, with_smooth_chroma(without_dots(drawn_face(inputs.base, outputs[OUTPUT_RESIDUAL]))))
        return with_filmed_border(face, frame.background, window.now.covered)
