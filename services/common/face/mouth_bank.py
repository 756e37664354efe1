"""The mouth-texture bank: the choice of its frames, their pictures, and the search for the best pictures.

Retrieval of Song et al. (Sec. III-B.1): windows of N = 6 frames of landmarks are compared by their L1 distance, Eq. 4.
A window ends at its frame (t - 5 .. t), so retrieval has no look-ahead.

The bank holds the most different mouths, in spans of neighbouring frames. services/common/face/mouth_texture.py makes one texture
from retrieved frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import BOX_SIZE, MAX_HEAD_PX, HeadPose, head_to_box, without_tilt
from services.common.face.drawing import lip_pictures
from services.common.face.landmarks import JAW, LIPS_INNER, LIPS_OUTER, NUM_LIPS, NUM_MOUTH_AREA, mouth_opening
from services.common.face.mouth_inside import MouthView
from services.common.face.native_pictures import NativePictures, native_arrays, native_from_arrays
from services.common.server.call_context import check_not_cancelled
from services.common.store.tensor_bytes import NamedArrays

WINDOW: Final = 6
"""Frames of a retrieval window, N of the paper."""
MAX_BANK_FRAMES: Final = 4000
"""Largest number of frames of a bank: 78 kB per frame, 81 kB with speech."""
NUM_ANCHORS: Final = len(ANCHORS)
SPEECH_SHAPE: Final = (20, 40)
"""Shape of the speech of one bank frame: posteriorgram rows around the frame, 100 rows/s, by phone classes."""
SPEECH_BEFORE, SPEECH_AFTER = 1, 3
"""Frames of 40 ms before and after a frame whose speech the frame has: the mouth moves some 40 ms before the sound."""
MAX_EXPRESSION: Final = 512
"""Largest number of expression coefficients of one bank frame."""
FORMAT: Final = "dubstage.mouth_bank/1"
"""Metadata `format` of a bank's artefact."""

_JAW_WEIGHT: Final = 0.5
_DEPTH_WEIGHT: Final = 0.3
_WEIGHTS: Final = np.ones((NUM_MOUTH_AREA, 3), np.float32)
_WEIGHTS[NUM_LIPS:] = _JAW_WEIGHT
_WEIGHTS[:, 2] *= _DEPTH_WEIGHT  # the tracker guesses depth, and depth moves the picture little
_RECENCY: Final = 0.5
# The window's last frame is shown. The frames before it are its past, and count less.
_WINDOW_WEIGHTS: Final = (np.exp(_RECENCY * np.arange(1 - WINDOW, 1))[:, None, None] * _WEIGHTS).astype(np.float32)
_TURN_COST_PER_DEGREE: Final = 0.15
"""Cost of one degree between head orientations, head-space pixels of mean landmark distance."""
_OPENING_COST: Final = 0.25
_OPENING_KNEE_PX: Final = 2.0
"""Opening in pixels from which on openings are compared on a logarithmic scale."""
_SHUT_PX: Final = (1.0, 2.5)
"""Openings up to which lips are shut, and from which on lips are not, head-space pixels."""
_PARTED_PX: Final = (3.0, 5.0)
"""Openings up to which lips hardly show the inside of the mouth, and from which on lips do, head-space pixels."""
_SHUT_COST: Final = 4.0
"""Cost of a texture of shut lips where parted lips are target, pixels."""
_STRETCH_COST: Final = 2.0
"""Cost of a texture whose mouth must be stretched further than _STRETCH_SCALE, for each step of `opening_scale` beyond."""
_STRETCH_SCALE: Final = 0.9
"""Difference on `opening_scale` up to which a wide open mouth may be stretched: from 15 to 21 pixels."""
_WIDE_PX: Final = (6.0, 10.0)
"""Openings up to which a stretch does not show, and from which on teeth look too tall, head-space pixels."""
_WIDEST_SHARE: Final = 0.1
_DARKEST_SHARE: Final = 0.1
_APART: Final = 3
_ROTATION_TOLERANCE: Final = 1e-2
_BLEND_SOFTNESS_PX: Final = 1.2

_OUTSIDE: Final = 16.0
_STEPS: Final = np.linspace(-_OUTSIDE, BOX_SIZE - 1 + _OUTSIDE, 4)
BORDER_POINTS: Final = np.array(
    [(x, y) for y in _STEPS for x in _STEPS if x in _STEPS[[0, 3]] or y in _STEPS[[0, 3]]], dtype=np.float32
)
"""float32 [12, 2]: points around the box that do not move, so that the spline is tame at the border."""
NUM_CONTROL_POINTS: Final = NUM_MOUTH_AREA + NUM_ANCHORS + len(BORDER_POINTS)
SMOOTHING: Final[Float64] = np.repeat([100.0, 30.0, 300.0], [len(LIPS_OUTER), len(LIPS_INNER), NUM_CONTROL_POINTS - NUM_LIPS])
"""float64 [86]: the splines' regularisation, box pixels squared. Small at the inner lips, whose two sides move against each
other over a pixel or two. Large where the tracker's noise would shake the skin."""


@dataclass(frozen=True, eq=False)
class MouthBank:
    """Textures and landmarks of one person's mouth, in the order of time. F frames, F >= 1.

    Attributes:
        boxes: uint8 [F, 160, 160, 3], RGB render boxes.
        mouth: float32 [F, 59, 3], mouth-area landmarks in head space.
        rotation: float64 [F, 3, 3], rotations of the head poses.
        box_landmarks: float32 [F, 59, 2], the landmarks in box pixels.
        anchors_box: float32 [F, 15, 2], the person's mean anchors under the frame's pose, box pixels.
        frame_index: int64 [F], index in the footage, strictly increasing; neighbours in time differ by 1.
        geometry: the person's lower face.
        speech: float32 [F, 20, 40], posteriorgram rows of the footage's own speech around each frame, 0..1; None: not given.
        expression: float32 [F, E], expression coefficients on the model of the person's identity; None: not given.
        native: luma of the boxes at the footage's own resolution; None: the footage has no more pixels than the boxes.
        spoken_mouth: float32 [F, 59, 3], mouths that the motion predictor gives for the footage's own speech, head space; None: not
            given.
    """

    boxes: npt.NDArray[np.uint8]
    mouth: Float32
    rotation: Float64
    box_landmarks: Float32
    anchors_box: Float32
    frame_index: npt.NDArray[np.int64]
    geometry: ActorGeometry
    speech: Float32 | None = None
    expression: Float32 | None = None
    native: NativePictures | None = None
    spoken_mouth: Float32 | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames, F."""
        return len(self.frame_index)

    @cached_property
    def window_rows(self) -> npt.NDArray[np.intp]:
        """int [W, 6]: rows of each window's frames, the last one is its frame. No window crosses a gap of the footage.

        A bank that is too broken to hold any window has one window per frame: that frame six times.
        """
        rows = np.arange(WINDOW - 1, self.num_frames)
        ends = rows[self.frame_index[rows] - self.frame_index[rows - WINDOW + 1] == WINDOW - 1]
        if not len(ends):
            return np.repeat(np.arange(self.num_frames)[:, None], WINDOW, axis=1)
        return np.asarray(ends[:, None] + np.arange(1 - WINDOW, 1), dtype=np.intp)

    @cached_property
    def control_points(self) -> Float32:
        """float32 [F, 86, 2]: each frame's control points in its own box, the order of `target_points`, box pixels."""
        border = np.broadcast_to(BORDER_POINTS, (self.num_frames, *BORDER_POINTS.shape))
        return np.concatenate([self.box_landmarks, self.anchors_box, border], axis=1)

    def view(self, row: int) -> MouthView:
        """Return the mouth of a frame."""
        return MouthView(self.mouth[row], self.rotation[row], self.box_landmarks[row])

    @cached_property
    def weighted_windows(self) -> Float32:
        """float32 [W, 6 * 59 * 3]: the windows' landmarks, weighted as in the distance."""
        weighted = self.mouth[self.window_rows] * _WINDOW_WEIGHTS
        return np.ascontiguousarray(weighted.reshape(len(self.window_rows), -1), dtype=np.float32)

    @cached_property
    def window_openings(self) -> Float32:
        """float32 [W]: how far the mouth of each window's last frame is open, on the scale of `opening_scale`."""
        return opening_scale(self.mouth[self.window_rows[:, -1]])

    @cached_property
    def window_shut(self) -> Float32:
        """float32 [W], 0..1: how much the lips of each window's last frame are shut."""
        return 1.0 - share_between(mouth_opening(self.mouth[self.window_rows[:, -1]]), _SHUT_PX)

    @cached_property
    def window_noses(self) -> Float64:
        """float64 [W, 3]: direction of the nose in the last frame of each window (`noses`)."""
        return noses(self.rotation[self.window_rows[:, -1]])

    @cached_property
    def medoid(self) -> int:
        """Row of the frame with the smallest sum of distances to all other frames: the person's most ordinary mouth."""
        flat = (self.mouth * _WEIGHTS).reshape(self.num_frames, -1)
        return int(np.argmin([np.abs(flat - row).sum(dtype=np.float64) for row in flat]))

    @cached_property
    def dark(self) -> Float32:
        """float32 [3], RGB, 0..255: the dark between the lips, the mean of the darkest tenth of the pixels of the widest mouths."""
        widest = np.argsort(-mouth_opening(self.mouth), kind="stable")[: max(1, round(_WIDEST_SHARE * self.num_frames))]
        inside = [self.boxes[row][lip_pictures(self.box_landmarks[row])[..., 1] > 0] for row in widest]
        pixels = np.concatenate(inside).astype(np.float32)
        if not len(pixels):
            return np.zeros(3, np.float32)
        darkest = np.argsort(pixels.sum(axis=1), kind="stable")[: max(1, round(_DARKEST_SHARE * len(pixels)))]
        return np.asarray(pixels[darkest].mean(axis=0, dtype=np.float64), np.float32)


def make_bank(
    boxes: npt.NDArray[np.uint8],
    mouth: Float32,
    rotation: Float64,
    frame_index: npt.NDArray[np.int64],
    geometry: ActorGeometry,
    *,
    speech: Float32 | None = None,
    expression: Float32 | None = None,
    native: NativePictures | None = None,
    spoken_mouth: Float32 | None = None,
) -> MouthBank:
    """Return a bank of frames. This function computes all that follows from landmarks and rotation.

    Args:
        boxes: uint8 [F, 160, 160, 3].
        mouth: float32 [F, 59, 3], head space.
        rotation: float64 [F, 3, 3].
        frame_index: int64 [F], strictly increasing.
        geometry: lower face of the same person.
        speech: float32 [F, 20, 40], or None.
        expression: float32 [F, E], or None.
        native: pictures of the same frames, or None.
        spoken_mouth: float32 [F, 59, 3], head space, or None.
    """
    poses = [HeadPose(1.0, matrix, np.zeros(3)) for matrix in rotation]
    return MouthBank(
        boxes=boxes,
        mouth=mouth,
        rotation=rotation,
        box_landmarks=np.stack([head_to_box(points, pose) for points, pose in zip(mouth, poses, strict=True)]),
        anchors_box=np.stack([head_to_box(geometry.anchors, pose) for pose in poses]),
        frame_index=frame_index,
        geometry=geometry,
        speech=speech,
        expression=expression,
        native=native,
        spoken_mouth=spoken_mouth,
    )


def bank_arrays(bank: MouthBank) -> dict[str, npt.NDArray[Any]]:
    """Return the named arrays of a bank for the artefact store. Store them with FORMAT as metadata `format`."""
    geometry = bank.geometry
    optional = {"speech": bank.speech, "expression": bank.expression, "spoken_mouth": bank.spoken_mouth}
    return {
        "boxes": bank.boxes,
        "mouth": bank.mouth,
        "rotation": bank.rotation,
        "frame_index": bank.frame_index,
        "mean_mouth": geometry.mean_mouth,
        "closed_mouth": geometry.closed_mouth,
        "jaw_envelope": geometry.jaw_envelope,
        "anchors": geometry.anchors,
        **{name: array for name, array in optional.items() if array is not None},
        **native_arrays(bank.native),
    }


def bank_from_arrays(named: NamedArrays) -> MouthBank:
    """Return the bank of an artefact.

    Raises:
        InvalidRequestError: the artefact is no bank, or its arrays are damaged.
    """
    if named.metadata.get("format") != FORMAT:
        raise InvalidRequestError(f"not a mouth bank: format {named.metadata.get('format')!r}, not {FORMAT!r}", field="bank")
    count = named["frame_index"].size
    if not 1 <= count <= MAX_BANK_FRAMES:
        raise InvalidRequestError(f"the mouth bank has {count} frames, not 1 to {MAX_BANK_FRAMES}", field="bank")
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "frame_index": ("i", (count,)),
        "boxes": ("u", (count, BOX_SIZE, BOX_SIZE, 3)),
        "mouth": ("f", (count, NUM_MOUTH_AREA, 3)),
        "rotation": ("f", (count, 3, 3)),
        "mean_mouth": ("f", (NUM_MOUTH_AREA, 3)),
        "closed_mouth": ("f", (NUM_MOUTH_AREA, 3)),
        "jaw_envelope": ("f", (len(JAW), 3)),
        "anchors": ("f", (NUM_ANCHORS, 3)),
    }
    speech, expression, spoken_mouth = (named.arrays.get(name) for name in ("speech", "expression", "spoken_mouth"))
    if speech is not None:
        expected["speech"] = ("f", (count, *SPEECH_SHAPE))
    if expression is not None:
        expected["expression"] = ("f", (count, min(max(expression.size // count, 1), MAX_EXPRESSION)))
    if spoken_mouth is not None:
        expected["spoken_mouth"] = ("f", (count, NUM_MOUTH_AREA, 3))
    for name, (kind, shape) in expected.items():
        array = named[name]
        # NaN fails this comparison.
        if array.dtype.kind != kind or array.shape != shape or (kind == "f" and not (np.abs(array) <= MAX_HEAD_PX).all()):
            raise InvalidRequestError(
                f"the mouth bank's array {name!r} is damaged: {array.dtype} {list(array.shape)}, where finite numbers of shape "
                f"{list(shape)} are needed: build the bank anew",
                field="bank",
            )
    boxes, rotation, frame_index = named["boxes"], named["rotation"], named["frame_index"]
    turned = np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max() <= _ROTATION_TOLERANCE
    if boxes.dtype != np.uint8 or not turned or (frame_index[1:] <= frame_index[:-1]).any():
        raise InvalidRequestError(
            "the mouth bank is damaged: boxes, rotations or the order of its frames: build the bank anew", field="bank"
        )
    geometry = ActorGeometry(*(named[name] for name in ("mean_mouth", "closed_mouth", "jaw_envelope", "anchors")))
    native = native_from_arrays(named, count)
    return make_bank(
        boxes,
        named["mouth"],
        rotation,
        frame_index,
        geometry,
        speech=speech,
        expression=expression,
        native=native,
        spoken_mouth=spoken_mouth,
    )


def window_costs(bank: MouthBank, window: Float32, rotation: Float64 | None = None) -> Float32:
    """Return the costs of the bank's windows, float32 [W], head-space pixels. The best window has the lowest cost.

    The cost is the weighted mean L1 distance of landmarks (Eq. 4; past, jaw and depth count less), plus the difference of the
    mouths' openings, which people see first and the mean over 59 points hides, plus a lot for shut lips where parted lips are
    target, since a warp can shut a mouth but has no inside to open, plus a lot for a mouth that must be stretched far, since teeth
    would be stretched too, plus a little per degree between the head orientations, since a texture of another view fits worse than
    its landmarks say.

    Args:
        window: float32 [6, 59, 3], target landmarks t - 5 .. t, head space.
        rotation: float64 [3, 3], head rotation of the frame t; None: orientations do not count.
    """
    flat = (window * _WINDOW_WEIGHTS).reshape(-1)
    costs = np.abs(bank.weighted_windows - flat).sum(axis=1) / _WINDOW_WEIGHTS.sum()
    wider, opening = opening_scale(window[-1]) - bank.window_openings, mouth_opening(window[-1])
    costs += np.float32(_OPENING_COST) * np.abs(wider)
    costs += np.float32(_SHUT_COST) * share_between(opening, _PARTED_PX) * bank.window_shut
    costs += np.float32(_STRETCH_COST) * share_between(opening, _WIDE_PX) * np.maximum(wider - np.float32(_STRETCH_SCALE), 0)
    if rotation is not None:
        costs = costs + turn_costs(bank.window_noses, noses(rotation))
    return np.asarray(costs, dtype=np.float32)


def noses(rotations: Float64) -> Float64:
    """Return the direction of the nose in the render box for head rotations, float64 [..., 3, 3]: float64 [..., 3].

    A head that is tilted in the image plane looks the same in the box: the box is tilted with the head.
    """
    return without_tilt(rotations)[..., 2]


def turn_costs(directions: Float64, target: Float64) -> Float32:
    """Return the costs of showing a head in the view of other frames, float32 [N], pixels of lip distance.

    Args:
        directions: float64 [N, 3], directions of the nose in the other frames (`noses`).
        target: float64 [3], direction of the nose in the frame.
    """
    degrees = np.degrees(np.arccos(np.clip(directions @ target, -1.0, 1.0)))
    return np.asarray(_TURN_COST_PER_DEGREE * degrees, np.float32)


def opening_scale(mouth: Float32) -> Float32:
    """Return how far mouths are open, float32 [...], on a scale that is logarithmic from 2 pixels on.

    On this scale shut or not shut counts more than wide or very wide.

    Args:
        mouth: float32 [..., 59, D], mouth-area landmarks, D >= 2, pixels.
    """
    scale = 1.5 * _OPENING_KNEE_PX
    return np.asarray(scale * np.log1p(mouth_opening(mouth) / _OPENING_KNEE_PX), dtype=np.float32)


def share_between(values: Float32 | float, ends: tuple[float, float]) -> Float32:
    """Return where values of any shape lie between two ends, float32 [...], 0..1.

    Args:
        ends: values that give 0 and 1.
    """
    return np.asarray(np.clip((values - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The K windows with the lowest cost for one frame, the best window first. 1 <= K <= the requested number.

    Attributes:
        rows: int [K, 6], bank rows of the windows. The last column holds the textures.
        weights: float32 [K], sum 1, never increasing: weights of the textures in a blend.
        inside: bank row of the texture that shows the inside of the mouth, alone.
    """

    rows: npt.NDArray[np.intp]
    weights: Float32
    inside: int

    @property
    def sources(self) -> npt.NDArray[np.intp]:
        """Bank rows of the textures: those of the blend, then that of the inside. int [K + 1], or [1] where all are one."""
        last = self.rows[:, -1]
        return last if len(last) == 1 and last[0] == self.inside else np.append(last, self.inside)


def retrieve(bank: MouthBank, costs: Float32, count: int = 3, inside: int | None = None) -> Retrieved:
    """Return the `count` best windows for one frame, at least three footage frames apart.

    A single best frame jumps from place to place and brings the noise of its place. A blend of nearly equal frames from different
    places flickers as little as the footage. The answer depends on this frame alone, so the cut of a stream makes no difference.

    Between the lips, a blend shows teeth through a tongue. So one texture shows the inside of the mouth.

    Args:
        costs: float32 [W], from `window_costs`.
        count: number of textures to blend.
        inside: bank row of the texture that shows the inside of the mouth; None: the best one.
    """
    frames = bank.frame_index[bank.window_rows[:, -1]]
    open_costs = costs.copy()
    chosen: list[int] = []
    while len(chosen) < count:
        best = int(np.argmin(open_costs))
        if not np.isfinite(open_costs[best]):
            break
        chosen.append(best)
        open_costs[np.abs(frames - frames[best]) < _APART] = np.inf
    weights = np.exp((costs[chosen[0]] - costs[chosen]) / np.float32(_BLEND_SOFTNESS_PX))
    rows = bank.window_rows[chosen]
    return Retrieved(rows, np.asarray(weights / weights.sum(), np.float32), int(rows[0, -1]) if inside is None else inside)


def target_points(mouth: Float32, geometry: ActorGeometry, pose: HeadPose) -> Float32:
    """Return target positions of the control points, float32 [86, 2], box pixels: 59 mouth-area, 15 anchors, 12 border points."""
    return np.concatenate([head_to_box(mouth, pose), head_to_box(geometry.anchors, pose), BORDER_POINTS])


def choose_frames(mouth: Float32, index: npt.NDArray[np.int64], max_frames: int, length: int = WINDOW) -> npt.NDArray[np.intp]:
    """Return rows to keep, increasing: int [<= max_frames].

    Of more than `max_frames` frames, stretches of neighbours are kept: each time the stretch whose last mouth differs most from all
    kept mouths (farthest-point sampling). So rare openings stay, and retrieval finds windows. Frames without neighbours are
    chosen one by one.

    Args:
        mouth: float32 [F, 59, 3], head space.
        index: int64 [F], strictly increasing; neighbours in time differ by 1.
        max_frames: largest number of frames to keep.
        length: frames of a span, at least 1.

    Raises:
        WorkCancelledError: the current call is over.
    """
    if len(index) <= max_frames:
        return np.arange(len(index))
    lips = mouth[:, :NUM_LIPS, :2].reshape(len(mouth), -1)
    ends = np.arange(length - 1, len(index))
    ends = ends[index[ends] - index[ends - length + 1] == length - 1]
    if not len(ends) or max_frames < length:
        return _farthest(lips, max_frames)
    kept = np.zeros(len(index), dtype=bool)
    # The distances to the kept frames are updated span by span: F x 80 numbers per step.
    nearest = np.abs(lips - np.median(lips, axis=0)).mean(axis=1) + 1e6
    while True:
        check_not_cancelled()
        end = int(ends[np.argmax(nearest[ends])])
        stretch = np.arange(end - length + 1, end + 1)
        if nearest[end] <= 0 or kept.sum() + (~kept[stretch]).sum() > max_frames:
            break
        kept[stretch] = True
        for row in stretch:
            np.minimum(nearest, np.abs(lips - lips[row]).mean(axis=1), out=nearest)
    return np.flatnonzero(kept)


def _farthest(points: Float32, count: int) -> npt.NDArray[np.intp]:
    chosen = [int(np.argmax(np.abs(points - np.median(points, axis=0)).mean(axis=1)))]
    nearest = np.abs(points - points[chosen[0]]).mean(axis=1)
    # Mouths that equal chosen ones would add nothing.
    while len(chosen) < count and nearest.max() > 0:
        check_not_cancelled()
        chosen.append(int(np.argmax(nearest)))
        np.minimum(nearest, np.abs(points - points[chosen[-1]]).mean(axis=1), out=nearest)
    return np.sort(np.array(chosen, dtype=np.intp))
