"""Renderer of `headpose`: each frame with the two before it, from the drawn face and key pictures.

face = rendered frame + residual(window of rendered frames, mask, target lips, key pictures; FiLM state, memory items),
then its detail as strong as that of the key pictures (`with_detail`)

**Inside of the mouth.** If no picture of the person shows the inside, a mean over the people of the training set is drawn, in the
person's light.

A still picture with shut lips has no teeth to show when the mouth opens. The picture's lips, moved apart, would fill the mouth
with lip. There the mean open mouth of the training people stands (research/methods/headpose/mouth_interior.py), moved to the
target landmarks. A mean over people is flat: one grey from the upper to the lower teeth. So light is laid over it: full on the
upper teeth, which stay at their distance from the upper lip however far the jaw drops, little on what lies by the lower lip, and
hardly any between them and in the corners, where what is dark is red too.

**Input**: frames with the drawn face in them (paper `headpose`, Sec. 3.3 and 3.4).

The rendered frame r_t is the footage with the drawn face put into the lower-face mask. What the mesh leaves open there, the
inside of the mouth and the edge to the neck, is filled with the actor's nearest key picture, moved to the target landmarks. Three
rendered frames, t-2 to t, are the paper's window; target lips and key pictures stand beside them.

An actor of one picture has one key picture for all mouths. Moved that far, the key picture shows its teeth through shut lips, and
its nose below the nose of the frame. The network would draw both. The mesh of the same picture has neither fault, so the rendered
frame stands in for the key pictures, and the key picture gives only the inside of the mouth.

**Detail.** Fine detail of a drawn face is amplified until it is as strong as in the person's footage (in the spirit of unsharp
masking):

    face + a * (face - blurred face),        0 <= a <= 1.5

with the one `a` at which the Laplacian inside the lower face is as strong as in the key pictures, which were filmed and moved to
the same landmarks. A face that is as sharp as the key pictures stays as it is. Each frame is treated by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.drawing import lip_pictures
from services.common.face.landmarks import LIPS_OUTER, NUM_LIPS
from services.common.store.tensor_bytes import decode_arrays
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.key_pictures import KeyPictures, match_colour, moved_keys, nearest_keys, unpacked
from services.render.renderer import NetworkInputs, StreamSetup, Window, drawn_face, with_face, without_dots
from services.render.types import RenderFrame

FORMAT: Final = "dubstage.mouth_interior/1"
LEVEL: Final = 96.0
"""Grey level of the stored picture that stands for the brightness of the lips."""
FILE: Final = "mouth_interior.safetensors"
"""Name of the file in a folder of weights, and of the one that comes with dubstage."""
_OPEN_ENOUGH: Final = 0.8
_OPEN_RANGE: Final = 0.4
"""A picture whose mouth has .8 of the target area stays as it is. A picture with .4 of the target area gets the mean inside."""
_SMALLEST_AREA: Final = 20.0
_LIP_SHADOW: Final = 0.02
"""Distance from the upper lip within which the lip's shadow lies on the teeth. Lengths of the inside are in mouth widths."""
_TEETH_END: Final = (0.06, 0.1)
"""Distances from the upper lip up to which the upper teeth reach, and from which on there are none."""
_TEETH_SIDES: Final = (0.35, 0.8)
"""Distances from the middle of the mouth, half widths, from which on the upper teeth lie in shadow, and from which on wholly."""
_TEETH_LEVEL: Final = 1.15
"""Brightness of the upper teeth, lips 1. Speakers' brightest quarter between the lips has .8 to 1.5 of the lips' lightness."""
_TEETH_PALE: Final = 0.4
"""Share of grey in the colour of the teeth. The rest is the colour of the skin, which holds that of the light."""
_BY_LOWER_LIP: Final = 0.16
"""Distance from the lower lip within which tongue and lower teeth get light."""
_LOWER_LIGHT: Final = 0.6
_LIT_GAP: Final = 0.12
"""Gap between the lips from which on light falls in whole."""
_SIDES: Final = (0.5, 1.0)
"""Distances from the middle of the mouth, half widths, from which on light falls off, and at which it ends."""
_LEAST_LIGHT: Final = 0.28
_REDDER: Final = np.array((0.9, 1.4, 1.4), np.float32)
"""Power of the light in each channel: the inside of a mouth is red where it is dark."""
_OWN_END: Final = (0.75, 1.0)
"""Part of the way to the lower lip, in the own picture of a still, up to which the still's inside is shown whole, and at which it
ends."""
_SHADED_GAP: Final = 0.06
_SHUT_LIGHT: Final = 0.4
"""Gap up to which lips shade the own inside of a still, mouth widths, and the light that is left between shut lips."""
_PARTED: Final = (0.105, 0.125)
"""Areas between the inner lips of a still, squared mouth widths, from which on its own inside is shown, and shown alone. Lips that
are less apart show a slit without teeth, or lip: tracked inner lips err by as much."""
DRAWN_WINDOW: Final = 3
"""Frames t-2 to t that the network sees (paper: a window of three adjacent frames)."""
INPUT_KEYS: Final = 3
"""Key pictures that the network sees."""
PICTURE_CHANNELS: Final = 3 * INPUT_KEYS + 3 * DRAWN_WINDOW + 3
"""Channels of `drawn_picture`."""
FIRST_KEY: Final = slice(0, 3)
RENDERED: Final = slice(3, 6)
RENDERED_BEFORE: Final = (slice(9, 12), slice(12, 15))
"""Rendered frames t-1 and t-2."""
OTHER_KEYS: Final = slice(15, PICTURE_CHANNELS)
_SPREAD_PX: Final = 1.5
"""How far the drawn lips are continued into the gap between them, the standard deviation of a Gaussian, box pixels."""
_EDGE_PX: Final = 0.6
"""Softness of the border between drawn lips and the inside of the mouth, the standard deviation of a Gaussian, box pixels."""
_BLUR_SIGMA: Final = 1.2
_MOST: Final = 1.5
_SHARE: Final = 0.9
"""Target share of the key pictures' strength: a moved picture of another moment has edges in the wrong places too."""
_EROSION: Final = np.ones((9, 9), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class MouthInterior:
    """Mean open mouth.

    Attributes:
        picture: uint8 [160, 160, 3], the mouth. The brightness of the lips is LEVEL.
        landmarks: float32 [59, 2], landmarks of the mouth, box pixels.
        skin_chroma: float32 [3], mean 1: colour of the skin round the mouth.
    """

    picture: UInt8
    landmarks: Float32
    skin_chroma: Float32


class LipAndSkin(NamedTuple):
    """Brightness of the lips and colour of the skin of a picture.

    Attributes:
        lip_level: mean of the lips' three channels, in the unit of the picture.
        skin_chroma: float32 [3], mean 1: colour of the skin.
    """

    lip_level: float
    skin_chroma: Float32


@cache
def mean_mouth(weights: Path | None = None) -> MouthInterior:
    """Return the mean open mouth.

    Args:
        weights: folder of weights. A folder without the file, or None, gives the mean open mouth that comes with dubstage.
    """
    own = None if weights is None else weights / FILE
    path = own if own is not None and own.is_file() else Path(__file__).with_name(FILE)
    stored = decode_arrays(path.read_bytes())
    return MouthInterior(stored["picture"], stored["landmarks"], stored["skin_chroma"])


def inner_area(box_landmarks: Float32) -> float:
    """Return the area between the inner lips, square pixels, of landmarks, float32 [59, 2]."""
    return float(cv2.contourArea(np.ascontiguousarray(box_landmarks[len(LIPS_OUTER) : NUM_LIPS], dtype=np.float32)))


def lip_and_skin(picture: npt.NDArray[np.floating] | UInt8, mask: UInt8, box_landmarks: Float32) -> LipAndSkin:
    """Return how bright the lips are and which colour the skin has.

    Args:
        picture: [H, W, 3], a face.
        mask: uint8 [H, W], above 0 where the picture shows the face.
        box_landmarks: float32 [59, 2], landmarks of the face, box pixels.
    """
    lips = lip_pictures(box_landmarks, len(mask)).astype(np.float32) / 255.0
    red, skin = np.clip(lips[..., 0] - lips[..., 1], 0.0, 1.0), (mask > 0) * (1.0 - lips[..., 0])
    lip, around = ((picture * part[..., None]).sum(axis=(0, 1)) / max(float(part.sum()), 1.0) for part in (red, skin))
    return LipAndSkin(float(lip.mean()), np.asarray(around / max(float(around.mean()), 1e-6), np.float32))


class InsideLight(NamedTuple):
    """Light and teeth between the lips. Beyond the lips the numbers have no meaning.

    Attributes:
        light: float32 [H, W], light on the inside, 0 to 1.
        teeth: float32 [H, W], share of the upper teeth, 0 to 1, with the shadows on them.
    """

    light: Float32
    teeth: Float32


def light_inside(box_landmarks: Float32, size: int = BOX_SIZE) -> InsideLight:
    """Return light and upper teeth between the lips.

    Args:
        box_landmarks: float32 [59, 2], landmarks of the mouth, box pixels.
        size: side of the render box, pixels.
    """
    columns = np.arange(size, dtype=np.float64)
    left, width, top, bottom = _inner_lips(box_landmarks, columns)
    from_upper, from_lower = (columns[:, None] - top) / width, (bottom - columns[:, None]) / width
    aside = np.abs(2.0 * (columns - left) / width - 1.0)
    open_to_light = _eased((bottom - top) / width, -0.5 * _LIT_GAP, _LIT_GAP)
    # The edge of the teeth is flatter than the lip above them.
    from_edge = from_upper + 0.5 * (top - np.interp(left + 0.5 * width, columns, top)) / width
    teeth = open_to_light * (0.4 + 0.6 * _eased(from_upper, 0.0, _LIP_SHADOW)) * (1.0 - _eased(from_edge, *_TEETH_END))
    light = _LOWER_LIGHT * open_to_light * (1.0 - _eased(from_lower, 0.0, _BY_LOWER_LIP)) * (1.0 - _eased(aside, *_SIDES))
    light = _LEAST_LIGHT + (1.0 - _LEAST_LIGHT) * light
    return InsideLight(light.astype(np.float32), (teeth * (1.0 - _eased(aside, *_TEETH_SIDES))).astype(np.float32))


def _inner_lips(box_landmarks: Float32, columns: Float64) -> tuple[float, float, Float64, Float64]:
    """Return the column of the left corner, the width of the mouth, and the rows of both inner lips in columns, in pixels."""
    inner = box_landmarks[len(LIPS_OUTER) : NUM_LIPS].astype(np.float64)
    half = len(inner) // 2
    upper, lower = inner[: half + 1], np.concatenate([inner[half:], inner[:1]])[::-1]
    top, bottom = (np.interp(columns, np.maximum.accumulate(lip[:, 0]), lip[:, 1]) for lip in (upper, lower))
    return float(upper[0, 0]), max(float(upper[-1, 0] - upper[0, 0]), 1.0), top, bottom


class OwnInside(NamedTuple):
    """The inside that a picture shows of its own mouth, at the target lips.

    Attributes:
        picture: uint8 [H, W, 3].
        share: float32 [H, W], share of the picture, 0 to 1; the rest of the inside is not seen in the picture.
        parted: 0 to 1: whether the picture's lips are far enough apart to show an inside.
    """

    picture: UInt8
    share: Float32
    parted: float


def own_inside(key: UInt8, own_landmarks: Float32, box_landmarks: Float32, size: int = BOX_SIZE) -> OwnInside:
    """Return the inside of a picture's mouth as it hangs on the upper lip: teeth keep their height however far the lips part.

    Args:
        key: uint8 [160, 160, 3], the picture.
        own_landmarks: float32 [59, 2], its landmarks, pixels.
        box_landmarks: float32 [59, 2], target landmarks, pixels of the target's box.
        size: side of the target's box, pixels.
    """
    rows = np.arange(size, dtype=np.float64)
    left, width, top, bottom = _inner_lips(box_landmarks, rows)
    own_left, own_width, *_ = _inner_lips(own_landmarks, rows)
    columns = own_left + (rows - left) * (own_width / width)
    _, _, own_top, own_bottom = _inner_lips(own_landmarks, columns)
    below = (rows[:, None] - top) * (own_width / width)
    across, down = (np.asarray(each, np.float32) for each in np.broadcast_arrays(columns, own_top + below))
    picture = cv2.remap(key, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # Lips that hardly part shade what is between them: a line between shut lips is dark.
    shade = _SHUT_LIGHT + (1.0 - _SHUT_LIGHT) * _eased((bottom - top) / width, 0.0, _SHADED_GAP)
    picture = np.rint(picture * shade[:, None])
    share = 1.0 - _eased(below / np.maximum(own_bottom - own_top, 1e-6), *_OWN_END)
    parted = float(_eased(np.array(inner_area(own_landmarks) / own_width**2), *_PARTED))
    return OwnInside(np.asarray(picture, np.uint8), share.astype(np.float32), parted)


def _eased(distance: Float64, begin: float, end: float) -> Float64:
    """Return 0 up to `begin`, 1 from `end` on, without slope at either."""
    share = np.clip((distance - begin) / (end - begin), 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), np.float64)


def with_interior(
    picture: UInt8,
    own_landmarks: Float32,
    mask: UInt8,
    box_landmarks: Float32,
    mean: MouthInterior | None = None,
    own: OwnInside | None = None,
) -> UInt8:
    """Return a moved picture, with the mean inside of a mouth if the picture's own mouth was all but shut: uint8 [H, W, 3].

    Args:
        picture: uint8 [H, W, 3], already moved to the target landmarks.
        own_landmarks: float32 [59, 2], landmarks of the picture before the move, box pixels.
        mask: uint8 [H, W], lower-face mask.
        box_landmarks: float32 [59, 2], target landmarks, box pixels.
        mean: mean open mouth; None: the one that comes with dubstage.
        own: what the picture of a still shows of its inside, and `picture` shows already; None: the picture is one of many.
    """
    target = inner_area(box_landmarks)
    size = len(mask)
    if target <= _SMALLEST_AREA * (size // BOX_SIZE) ** 2:
        return picture
    shut = float(np.clip((_OPEN_ENOUGH - inner_area(own_landmarks) / target) / _OPEN_RANGE, 0.0, 1.0))
    unseen: float | Float32 = shut
    if own is not None:
        shut, unseen = 1.0 - own.parted, 1.0 - np.float32(own.parted) * own.share
    elif shut == 0.0:
        return picture
    mean = mean or mean_mouth()
    seen = lip_and_skin(picture, mask, box_landmarks)
    moved = moved_keys(KeyPictures(mean.picture[None], mean.landmarks[None]), box_landmarks, size)[0]
    light, teeth = light_inside(box_landmarks, size)
    inside = moved * (light[..., None] ** _REDDER * (seen.lip_level / LEVEL * seen.skin_chroma / mean.skin_chroma))
    enamel = _TEETH_LEVEL * seen.lip_level * (_TEETH_PALE + (1.0 - _TEETH_PALE) * seen.skin_chroma)
    inside += np.float32(shut if own is not None else 1.0) * teeth[..., None] * (enamel - inside)
    weight = (unseen * lip_pictures(box_landmarks, size)[..., 1] / np.float32(255.0))[..., None]
    return np.asarray(np.clip(np.rint(picture + weight * (inside - picture)), 0, 255), dtype=np.uint8)


def coverage(drawn: UInt8) -> Bool:
    """Return where the drawn face covers the box: bool [H, W]; the drawn face is 0, 0, 0 elsewhere."""
    return np.asarray(drawn.any(axis=-1), dtype=np.bool_)


def rendered_frame(background: UInt8, mask: UInt8, drawn: UInt8, fill: UInt8, covered: Bool | None = None) -> UInt8:
    """Return the rendered frame r_t: uint8 [H, W, 3]. No pixel of the background under the mask is read.

    Args:
        background: uint8 [H, W, 3], the footage.
        mask: uint8 [H, W], its lower-face mask.
        drawn: uint8 [H, W, 3], the drawn face.
        fill: uint8 [H, W, 3], shown where the drawn face covers nothing; in the footage's light.
        covered: bool [H, W]; None: `coverage` of the drawn face.
    """
    shown = coverage(drawn) if covered is None else covered
    face = np.where(shown[..., None], match_colour(drawn, background, mask, shown), fill)
    return np.where(mask[..., None] > 0, face, background)


def still_frame(background: UInt8, mask: UInt8, drawn: UInt8, key: UInt8, lips: UInt8) -> UInt8:
    """Return the rendered frame r_t of an actor of one picture: uint8 [H, W, 3].

    The key picture shows only inside the target inner lips. A gap that the mesh leaves between shut lips gets the colour of the
    lips.

    Args:
        background: uint8 [H, W, 3], the footage. No pixel under the mask is read.
        mask: uint8 [H, W], its lower-face mask.
        drawn: uint8 [H, W, 3], the drawn face.
        key: uint8 [H, W, 3], the key picture, moved to the target landmarks and brought to the light of the footage.
        lips: uint8 [H, W, 2], target lips and inside of the mouth (services.common.face.drawing).
    """
    multiple = len(mask) // BOX_SIZE
    shown = coverage(drawn)
    gap = ~shown & (lips[..., 0] > 0)
    blurred = _blurred(np.dstack([drawn, np.where(shown, 255, 0)]).astype(np.float32), _SPREAD_PX * multiple)
    lip = 255.0 * blurred[..., :3] / np.maximum(blurred[..., 3:], 1.0)
    whole = np.where(gap[..., None], np.clip(np.rint(lip), 1, 255).astype(np.uint8), drawn)
    face = rendered_frame(background, mask, whole, key, shown | gap)
    inside = _blurred((gap * lips[..., 1]).astype(np.float32), _EDGE_PX * multiple) * (mask > 0) / np.float32(255.0)
    return np.asarray(np.rint(face + inside[..., None] * (key.astype(np.float32) - face)), np.uint8)


def _blurred(picture: Float32, sigma: float) -> Float32:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def input_keys(
    keys: KeyPictures, background: UInt8, mask: UInt8, box_landmarks: Float32, mean: MouthInterior | None = None
) -> UInt8:
    """Return the key pictures with the nearest lips as the network sees them: uint8 [INPUT_KEYS, H, W, 3], the nearest first.

    They are moved to the target landmarks and brought to the light of the frame's cheeks. Where the key's own mouth is all but shut
    beside the target one, the key gets the mean inside of a mouth. No pixel of the background under the mask is read.

    Args:
        keys: key pictures of the actor.
        background: uint8 [H, W, 3], the frame.
        mask: uint8 [H, W], its lower-face mask.
        box_landmarks: float32 [59, 2], its target landmarks, box pixels.
        mean: mean open mouth; None: the one that comes with dubstage.
    """
    size = len(mask)
    near = nearest_keys(keys, box_landmarks, size)
    near = KeyPictures(near.pictures[:INPUT_KEYS], near.landmarks[:INPUT_KEYS])
    if keys.one_picture:
        return np.stack([_input_still(near.pictures[0], near.landmarks[0], background, mask, box_landmarks, mean)] * INPUT_KEYS)
    moved = moved_keys(near, box_landmarks, size)
    points = near.landmarks * np.float32(size // BOX_SIZE)
    keys_matched = (match_colour(key, background, mask) for key in moved)
    return np.stack([with_interior(key, own, mask, box_landmarks, mean) for key, own in zip(keys_matched, points, strict=True)])


def _input_still(
    key: UInt8, own_landmarks: Float32, background: UInt8, mask: UInt8, box_landmarks: Float32, mean: MouthInterior | None
) -> UInt8:
    """Return the only picture of an actor as `input_keys` returns key pictures: uint8 [H, W, 3]."""
    size = len(mask)
    (moved,) = moved_keys(KeyPictures(key[None], own_landmarks[None]), box_landmarks, size)
    own = own_inside(key, own_landmarks, box_landmarks, size)
    weight = (own.share * lip_pictures(box_landmarks, size)[..., 1] / np.float32(255.0))[..., None]
    shown = np.rint(moved + weight * (own.picture.astype(np.float32) - moved)).astype(np.uint8)
    return with_interior(match_colour(shown, background, mask), own_landmarks, mask, box_landmarks, mean, own)


def drawn_picture(window: Sequence[UInt8], mask: UInt8, lips: UInt8, keys: UInt8) -> UInt8:
    """Return the network's input: uint8 [H, W, PICTURE_CHANNELS].

    First key picture, r_t, mask and target lips, as losses.compose expects them, target inside of the mouth; r_t-1, r_t-2; then the
    other key pictures.

    Args:
        window: three results of `rendered_frame`, t-2 to t.
        mask: uint8 [H, W], mask of frame t.
        lips: uint8 [H, W, 2], target lips and inside of the mouth in frame t (services.common.face.drawing).
        keys: uint8 [INPUT_KEYS, H, W, 3], moved and matched to frame t, the nearest first.

    Raises:
        ValueError: another number of frames or key pictures.
    """
    if len(window) != DRAWN_WINDOW or len(keys) != INPUT_KEYS:
        raise ValueError(f"{DRAWN_WINDOW} frames and {INPUT_KEYS} key pictures expected, {len(window)} and {len(keys)} given")
    return np.dstack([keys[0], window[-1], mask, lips, *window[-2::-1], *keys[1:]])


def with_detail(face: UInt8, keys: UInt8, mask: UInt8) -> UInt8:
    """Return a drawn face with the strength of detail of key pictures: uint8 [H, W, 3], unchanged outside the mask.

    Args:
        face: uint8 [H, W, 3], the drawn face.
        keys: uint8 [K, H, W, 3], filmed, moved to the same landmarks.
        mask: uint8 [H, W], lower-face mask.
    """
    # The seam between the drawn face and the footage is no detail of the face.
    inside = cv2.erode((mask > 0).view(np.uint8), _EROSION) > 0
    if not inside.any():
        return face
    picture = face.astype(np.float32)
    fine = picture - cv2.GaussianBlur(picture, (0, 0), _BLUR_SIGMA)
    drawn, added = _laplacian(picture)[inside], _laplacian(fine)[inside]
    target = _SHARE * float(np.mean([np.square(_laplacian(key.astype(np.float32))[inside]).mean() for key in keys]))
    # |drawn + a added|^2 = target, for the positive root.
    square, mixed, own = (float(np.mean(one * other)) for one, other in ((added, added), (drawn, added), (drawn, drawn)))
    if own >= target or square <= 0.0:
        return face
    amount = min((-mixed + np.sqrt(max(mixed * mixed + square * (target - own), 0.0))) / square, _MOST)
    weight = (amount / 255.0) * mask[..., None].astype(np.float32)
    return np.asarray(np.clip(np.rint(picture + weight * fine), 0, 255), dtype=np.uint8)


def _laplacian(picture: Float32) -> Float32:
    return np.asarray(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F), np.float32)


class PreparedFrame(NamedTuple):
    """Pictures of a frame that the window keeps.

    Attributes:
        rendered: uint8 [H, W, 3], the rendered frame r_t.
        keys: uint8 [INPUT_KEYS, H, W, 3], key pictures, moved to the frame. Their detail is the measure of the drawn face's detail.
        shown: uint8 [INPUT_KEYS, H, W, 3], what the network sees in the place of key pictures.
    """

    rendered: UInt8
    keys: UInt8
    shown: UInt8


class HeadposeRenderer:
    """See services.render.renderer.FrameRenderer."""

    def __init__(self, setup: StreamSetup) -> None:
        actor, self._keys = unpacked(setup.state)
        self._mean = mean_mouth(setup.model.path.parent)
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: actor}

    def prepare(self, frame: RenderFrame) -> PreparedFrame:
        """See FrameRenderer.prepare."""
        assert frame.texture is not None  # the renderer declares this input
        keys = input_keys(self._keys, frame.background, frame.mask, frame.box_landmarks, self._mean)
        if not self._keys.one_picture:
            return PreparedFrame(rendered_frame(frame.background, frame.mask, frame.texture, keys[0]), keys, keys)
        lips = lip_pictures(frame.box_landmarks, len(frame.mask))
        rendered = still_frame(frame.background, frame.mask, frame.texture, keys[0], lips)
        return PreparedFrame(rendered, keys, np.stack([rendered] * INPUT_KEYS))

    def network_inputs(self, window: Window[PreparedFrame]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        frame, now = window.frame, window.now
        lips = lip_pictures(frame.box_landmarks, len(frame.mask))
        picture = drawn_picture([item.rendered for item in window.items], frame.mask, lips, now.shown)
        return NetworkInputs({INPUT_PICTURES: picture}, now.rendered)

    def draw(self, window: Window[PreparedFrame], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        frame = window.frame
        face = with_face(frame, without_dots(drawn_face(inputs.base, outputs[OUTPUT_RESIDUAL])))
        return with_detail(face, window.now.keys, frame.mask)
