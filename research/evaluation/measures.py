"""Measures of each frame of a run (one variant, fold and speech). Runs are measured piece by piece, which bounds memory.

The errors of expression coefficients and of the landmarks that follow from them are those of Everybody's Talkin', App. A, Eq. 5:

    E_exp  = 1 / N_exp  sum_i |e(i) - e'(i)|          N_exp coefficients, in standard deviations of the model
    E_ldmk = 1 / N_ldmk sum_i |l(i) - l'(i)|_2        N_ldmk mouth-area landmarks, projected, crop pixels

In the paper, e is the fitted target that the network is trained on. Here, truth and result are both tracked on their crops and
fitted in the same way: one identity (the clip's own neutral face, measured on the enrolment part) and one pose per frame. The
landmarks of both are projected by the pose of the truth, so that they differ in expression only.

Picture metrics of one frame: PSNR, SSIM, MS-SSIM, sharpness, photometric error. Peak value 255 throughout.

SSIM after Wang, Bovik, Sheikh, Simoncelli 2004 (Gaussian window 11 x 11, sigma 1.5), MS-SSIM after Wang, Simoncelli,
Bovik 2003 (five scales); both per colour channel, then averaged. The windows lie wholly inside the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import cv2
import numpy as np

from gateway.reports.appearance import (
    MouthAppearance,
    OwnMouth,
    clothing_alarms,
    clothing_moved,
    kernel_distance,
    mouth_appearance,
    skin_light,
)
from research.evaluation.delays import at_delays
from research.evaluation.mouth_metrics import Closures, MouthTrack, landmark_distance, mouth_track, normalised_mean_error
from research.evaluation.types import Rendered
from research.face.neutral_shape import neutral_shape
from services.common.array_types import Bool, Float32, Float64, Int64, UInt8
from services.common.face.crops import ANCHOR_IN_CROP, BOX_ORIGIN, BOX_SIZE, fit_head_pose, weak_perspective_of
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import MorphableModel, default_model
from services.common.wire.mouth_curves import Trigger, around_phones, quick_part, steps

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")

MOUTH_BOX_WIDTH: Final = 104
MOUTH_BOX_HEIGHT: Final = 80
PSNR_CEILING_DB: Final = 100.0
"""PSNR of equal pictures, which is infinite, counts as this in means."""

_WINDOW: Final = 11
_SIGMA: Final = 1.5
_C1: Final = (0.01 * 255.0) ** 2
_C2: Final = (0.03 * 255.0) ** 2
_MS_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
NUM_EXPRESSION: Final = 24
"""Number of coefficients that are fitted and compared: the first ones of the default model, which methods predict.
The paper has 29."""
MIN_NEUTRAL_FRAMES: Final = 5
"""Fewest tracked frames from which a neutral face is measured."""
_MESH_POINTS: Final = 468
PICTURE_COLUMNS: Final = (
    "face_psnr_db",
    "face_ssim",
    "face_ms_ssim",
    "mouth_psnr_db",
    "mouth_ssim",
    "photometric_error",
)
EXPRESSION_COLUMNS: Final = ("expression_error", "landmark_error_px")
"""Columns of the errors of expression coefficients and of the landmarks that follow from them."""
CURVE_COLUMNS: Final = ("truth_width_quick", "result_width_quick", "truth_opening_step", "result_opening_step")
"""Columns of a whole run, which join_pieces makes from its curves (services/common/wire/mouth_curves.py)."""
APPEARANCE_COLUMNS: Final = (
    "tint_alarms",
    "nostril_alarms",
    "clothing_moved",
    *(f"{of}_{what}" for what in ("dull", "change", "seam", "lip_step") for of in ("truth", "result")),
)
"""Columns of what eyes see of the mouth (gateway/reports/appearance.py)."""
PAPER_COLUMNS: Final = ("photometric_error", *EXPRESSION_COLUMNS, "nme")
"""Columns whose means are metrics of the papers."""
_ENERGY_COLUMNS: Final = tuple(f"{of}_{what}" for what in ("gradient", "step", "skin_step", "native") for of in ("truth", "result"))


def mouth_box(crops: UInt8) -> UInt8:
    """The 104 x 80 mouth box of face crops, centred on (128, 160): uint8 [..., 256, 256, 3] -> [..., 80, 104, 3]."""
    x, y = int(ANCHOR_IN_CROP[0]), int(ANCHOR_IN_CROP[1])
    rows = slice(y - MOUTH_BOX_HEIGHT // 2, y + MOUTH_BOX_HEIGHT // 2)
    columns = slice(x - MOUTH_BOX_WIDTH // 2, x + MOUTH_BOX_WIDTH // 2)
    return crops[..., rows, columns, :]


def psnr_db(truth: UInt8, result: UInt8) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape, decibels, at most 100."""
    error = float(np.square(truth.astype(np.float32) - result.astype(np.float32)).mean(dtype=np.float64))
    if error == 0.0:
        return PSNR_CEILING_DB
    return min(PSNR_CEILING_DB, 10.0 * float(np.log10(255.0**2 / error)))


class _Similarity(NamedTuple):
    luminance: float
    """Mean of luminance x contrast x structure: the SSIM."""
    contrast: float
    """Mean of contrast x structure alone."""


def _blur(picture: Float32) -> Float32:
    blurred = cv2.GaussianBlur(picture, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))
    return np.asarray(blurred[inside, inside], dtype=np.float32)


def _changed(truth: Float32, result: Float32) -> tuple[slice, slice]:
    """Rows and columns that hold every window in which two pictures differ; empty where they are equal."""
    height, width, channels = truth.shape
    differs = (truth != result).reshape(height, width * channels)
    by_row, by_column = differs.any(axis=1), differs.any(axis=0).reshape(width, channels).any(axis=1)
    spans: list[slice] = []
    for changed in (by_row, by_column):
        indices = np.flatnonzero(changed)
        if not len(indices):
            return slice(0), slice(0)
        # A window reaches 5 px to either side; _blur drops 5 px more at the border of what it is given.
        start, stop = int(indices[0]) - (_WINDOW - 1), int(indices[-1]) + _WINDOW
        spans.append(slice(max(0, start), min(len(changed), stop)))
    return spans[0], spans[1]


def _similarity(truth: Float32, result: Float32) -> _Similarity:
    # Most of a crop is equal before and after a dub. Equal windows have similarity 1 and are not computed.
    rows, columns = _changed(truth, result)
    if rows.stop == 0:
        return _Similarity(1.0, 1.0)
    total = (truth.shape[0] - _WINDOW + 1) * (truth.shape[1] - _WINDOW + 1)
    share = (rows.stop - rows.start - _WINDOW + 1) * (columns.stop - columns.start - _WINDOW + 1) / total
    inside = _similarity_everywhere(truth[rows, columns], result[rows, columns])
    return _Similarity(1.0 - share + share * inside.luminance, 1.0 - share + share * inside.contrast)


def _similarity_everywhere(truth: Float32, result: Float32) -> _Similarity:
    # Second moments are taken about mid-grey to keep float32 precise. The offset does not change the variances of SSIM.
    a, b = truth - 127.5, result - 127.5
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a * mean_a
    variance_b = _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    contrast = (2.0 * covariance + _C2) / (variance_a + variance_b + _C2)
    level_a, level_b = mean_a + 127.5, mean_b + 127.5
    luminance = (2.0 * level_a * level_b + _C1) / (level_a * level_a + level_b * level_b + _C1)
    return _Similarity(float((luminance * contrast).mean(dtype=np.float64)), float(contrast.mean(dtype=np.float64)))


def ssim(truth: UInt8, result: UInt8) -> float:
    """Return the structural similarity of two uint8 [H, W, 3] pictures, H and W >= 11; 1 for equal pictures."""
    return _similarity(truth.astype(np.float32), result.astype(np.float32)).luminance


class Similarities(NamedTuple):
    """SSIM and MS-SSIM of two pictures; 1 for equal ones."""

    ssim: float
    ms_ssim: float


def similarities(truth: UInt8, result: UInt8) -> Similarities:
    """Return SSIM and multi-scale SSIM of two uint8 [H, W, 3] pictures, H and W >= 176; the first scale is shared."""
    a, b = truth.astype(np.float32), result.astype(np.float32)
    product, first = 1.0, 1.0
    for scale, weight in enumerate(_MS_WEIGHTS):
        similarity = _similarity(a, b)
        first = similarity.luminance if scale == 0 else first
        last = scale == len(_MS_WEIGHTS) - 1
        factor = similarity.luminance if last else similarity.contrast
        product *= max(0.0, factor) ** weight
        if not last:
            half = (a.shape[1] // 2, a.shape[0] // 2)
            a = np.asarray(cv2.resize(a, half, interpolation=cv2.INTER_AREA), np.float32)
            b = np.asarray(cv2.resize(b, half, interpolation=cv2.INTER_AREA), np.float32)
    return Similarities(first, product)


def gradient_energy(picture: UInt8) -> float:
    """Return the mean squared Sobel gradient of the luma (Tenengrad, Krotkov 1988), a measure of detail; uint8 [H, W, 3]."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    horizontal = cv2.Sobel(luma, cv2.CV_32F, 1, 0, ksize=3)
    vertical = cv2.Sobel(luma, cv2.CV_32F, 0, 1, ksize=3)
    return float((horizontal * horizontal + vertical * vertical).mean(dtype=np.float64))


def photometric_error(truth: UInt8, result: UInt8) -> float:
    """Return the mean over pixels of the Euclidean RGB distance, 0 to 442 (Song et al. 2023, Sec. IV, Fig. 11); uint8 [H, W, 3]."""
    difference = truth.astype(np.float32) - result.astype(np.float32)
    return float(np.sqrt(np.square(difference).sum(axis=-1)).mean(dtype=np.float64))


def mean_absolute_difference(before: UInt8, after: UInt8) -> float:
    """Return the mean of |after - before| over pixels and channels of two uint8 pictures, 0 .. 255."""
    return float(cv2.absdiff(before, after).mean(dtype=np.float64))


def skin_difference(before: UInt8, after: UInt8) -> float:
    """Return the mean of |after - before|, 0 .. 255, over the skin beside the mouth: the render box without the mouth box.

    Args:
        before: uint8 [256, 256, 3], a face crop.
        after: uint8 [256, 256, 3], the crop of the next frame.
    """
    x, y = BOX_ORIGIN
    region = (slice(y, y + BOX_SIZE), slice(x, x + BOX_SIZE))
    difference = cv2.absdiff(before[region], after[region])
    mouth = cv2.absdiff(mouth_box(before), mouth_box(after))
    return float(difference.sum(dtype=np.int64) - mouth.sum(dtype=np.int64)) / (difference.size - mouth.size)


def finite_mean(values: Float64) -> float:
    """Return the mean of the finite numbers; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def means_of(measured: Iterable[Row], by: str) -> list[Row]:
    """Return a row of means over the clips for each value of a field, in the order in which the values come first.

    Args:
        measured: rows with a field `clip`; all other fields but `by` are numbers, NaN where not measured.
        by: name of the field.
    """
    groups: dict[Any, list[Row]] = {}
    for one in measured:
        groups.setdefault(getattr(one, by), []).append(one)
    means = []
    for rows in groups.values():
        names = [each.name for each in fields(rows[0]) if each.name not in {"clip", by}]
        values = {name: finite_mean(np.array([getattr(row, name) for row in rows])) for name in names}
        means.append(replace(rows[0], clip=f"mean of {len(rows)}", **values))
    return means


@dataclass(frozen=True, slots=True)
class FittedFrames:
    """Expression of T tracked frames of one person; NaN rows where no face was tracked.

    Attributes:
        expression: float64 [T, 24], standard deviations.
        rows: int64 [N], the rows that were fitted.
        camera: head poses of these N rows, crop pixels.
    """

    expression: Float64 = field(repr=False)
    rows: Int64 = field(repr=False)
    camera: WeakPerspective = field(repr=False)


class ExpressionErrors(NamedTuple):
    """Errors of T frames, float64 [T] each, NaN where truth or result is not tracked."""

    expression: Float64
    """E_exp, standard deviations."""
    landmark_px: Float64
    """E_ldmk, crop pixels; the face is 185 pixels wide."""


class PersonFace:
    """Face model of one person, with the person's own neutral face in place of the mean face.

    Args:
        neutral: float32 [468, 3], head space.
    """

    def __init__(self, neutral: Float32) -> None:
        self._model: MorphableModel = default_model().with_neutral_shape(neutral).truncated(expression=NUM_EXPRESSION)

    @classmethod
    def measured(cls, landmarks: Float32) -> PersonFace | None:
        """Return the face model of tracked crops, float32 [T, 478, 3] with NaN rows; None: too few frames are tracked."""
        rows, camera = _cameras(landmarks)
        if len(rows) < MIN_NEUTRAL_FRAMES:
            return None
        return cls(neutral_shape(camera.unproject(landmarks[rows].astype(np.float64))))

    def fit(self, landmarks: Float32) -> FittedFrames:
        """Return the expression of tracked crops, float32 [T, 478, 3] in crop pixels, NaN rows where not tracked."""
        rows, camera = _cameras(landmarks)
        expression = np.full((len(landmarks), NUM_EXPRESSION), np.nan)
        if len(rows):
            fitted = coefficients_from_landmarks(
                self._model, landmarks[rows, :_MESH_POINTS], camera, identity=np.zeros(self._model.num_identity)
            )
            expression[rows] = fitted.expression / self._model.expression_deviation
        return FittedFrames(expression, rows, camera)

    def errors(self, truth: FittedFrames, result: FittedFrames) -> ExpressionErrors:
        """Return E_exp and E_ldmk of the same frames in truth and result."""
        expression = np.abs(truth.expression - result.expression).mean(axis=1)
        distance = np.full(len(expression), np.nan)
        seen = [
            truth.camera.project(self._mouth(frames.expression[truth.rows])) if len(truth.rows) else np.zeros((0, 59, 3))
            for frames in (truth, result)
        ]
        distance[truth.rows] = np.linalg.norm((seen[0] - seen[1])[..., :2], axis=-1).mean(axis=-1)
        return ExpressionErrors(expression, distance)

    def _mouth(self, expression: Float64) -> Float64:
        """Return the mouth-area landmarks of expressions [T, 24], float64 [T, 59, 3], head space."""
        area = self._model.landmark_set("mouth_area")
        basis = area.of_basis(self._model.expression_basis) * self._model.expression_deviation
        return np.asarray(area.of(self._model.mean_shape) + np.einsum("ndk,tk->tnd", basis, expression), np.float64)


def _cameras(landmarks: Float32) -> tuple[Int64, WeakPerspective]:
    """Return the rows that are tracked, and their head poses."""
    (rows,) = np.nonzero(np.isfinite(landmarks[:, 0, 0]))
    return rows.astype(np.int64), weak_perspective_of([fit_head_pose(mesh) for mesh in landmarks[rows]])


@dataclass(frozen=True, slots=True)
class TruthPiece:
    """Frames of the real video with their tracked mouths. Measured once and used for every variant.

    Attributes:
        crops: uint8 [T, 256, 256, 3], RGB.
        usable: bool [T].
        track: tracked mouths.
        landmarks: float32 [T, 478, 3], tracked meshes, crop pixels.
        person: face model of the person; None: too few frames were tracked.
        fitted: the face model fitted to the frames; None without `person`.
        native_energy: float64 [T], energy of the finest band of the mouth at the footage's own resolution; None: not measured.
        seen: what eyes see of the mouths.
        light: float32 [T], luma of the cheeks (skin_light).
        mouth: facts about the person's own mouth; None: nothing.
    """

    crops: UInt8 = field(repr=False)
    usable: Bool
    track: MouthTrack
    landmarks: Float32 = field(repr=False)
    seen: MouthAppearance
    light: Float32
    person: PersonFace | None = None
    fitted: FittedFrames | None = None
    native_energy: Float64 | None = None
    mouth: OwnMouth | None = None


@dataclass(frozen=True, slots=True)
class RunMeasures:
    """Measures of one run. Every array has one entry per frame of the test part; NaN: the frame was not measured.

    Attributes:
        columns: float64 [T] each: PICTURE_COLUMNS; `truth_gradient`, `result_gradient` (gradient energy of the mouth
            box); `truth_native`, `result_native` (energy of the finest band at the footage's own resolution); `truth_step`,
            `result_step` (mean |x_t - x_{t-1}| of the mouth box); `truth_skin_step`, `result_skin_step` (the same of the skin
            beside the mouth); `mouth_lmd_px`; `nme`; EXPRESSION_COLUMNS; APPEARANCE_COLUMNS; of joined pieces also CURVE_COLUMNS:
            the lip width without its slow part, and the change of the opening from frame to frame, crop pixels.
        truth_opening, result_opening: float32 [T], opening of the mouth, crop pixels.
        truth_width, result_width: float32 [T], width of the lips, crop pixels.
        commanded: float32 [T], the opening that the renderer was asked for; None: the variant has none.
        measured: bool [T].
        lost_faces: measured frames on which the tracker found no face in the result.
        closures: closures of the lips on the bilabials of the part; None without a transcript.
        extras: metrics of the whole run: diagnostics of the method, sync distance, LPIPS, FID.
        phones: opening of truth and result about the phones that the run follows, float64 [E, W] each, by the kind of phone
            (mouth_curves.around_phones). Empty: the run follows other speech than the truth.
        delayed: float64 [D, T], opening of the result at each delay (delays.at_delays); D is 0 before pieces are joined.
    """

    columns: Mapping[str, Float64]
    truth_opening: Float32
    result_opening: Float32
    truth_width: Float32
    result_width: Float32
    commanded: Float32 | None
    measured: Bool
    lost_faces: int
    closures: Closures | None
    extras: Mapping[str, float]
    phones: Mapping[Trigger, tuple[Float64, Float64]] = field(default_factory=dict)
    delayed: Float64 = field(repr=False, default_factory=lambda: np.zeros((0, 0)))


def render_boxes(crops: UInt8) -> UInt8:
    """Return the render boxes of face crops: uint8 [..., 256, 256, 3] -> [..., 160, 160, 3]."""
    x, y = BOX_ORIGIN
    return crops[..., y : y + BOX_SIZE, x : x + BOX_SIZE, :]


def own_mouth(crops: UInt8, landmarks: Float32) -> OwnMouth:
    """Return what tracked crops of the enrolment part tell of the person's mouth.

    Args:
        crops: uint8 [T, 256, 256, 3], RGB.
        landmarks: float32 [T, 478, 3], crop pixels, NaN rows where not tracked or not usable.
    """
    boxes, points = render_boxes(crops), _box_points(landmarks)
    return OwnMouth.of(mouth_appearance(boxes, points, skin_light(boxes, points)))


def truth_piece(
    rendered: Rendered, landmarks: Float32, person: PersonFace | None = None, mouth: OwnMouth | None = None
) -> TruthPiece:
    """Return frames of the real video. A frame is usable if it has a face crop in which the tracker finds the mouth."""
    track = mouth_track(landmarks)
    usable = np.array([not reason for reason in rendered.reasons], np.bool_) & track.tracked
    fitted = person.fit(landmarks) if person is not None else None
    boxes, points = render_boxes(rendered.crops), _box_points(landmarks)
    light = skin_light(boxes, points)
    return TruthPiece(
        crops=rendered.crops,
        usable=usable,
        track=track,
        landmarks=landmarks,
        seen=mouth_appearance(boxes, points, light),
        light=light,
        person=person,
        fitted=fitted,
        native_energy=rendered.native_energy,
        mouth=mouth,
    )


def measure_piece(truth: TruthPiece, result: Rendered, landmarks: Float32) -> RunMeasures:
    """Return the measures of consecutive frames of one variant against the truth.

    Args:
        truth: T frames of the real video.
        result: the same frames, dubbed.
        landmarks: float32 [T, 478, 3], re-tracked on `result.crops`.
    """
    track = mouth_track(landmarks)
    measured = truth.usable & np.array([not reason for reason in result.reasons], np.bool_)
    length = len(measured)
    names = (*PICTURE_COLUMNS, *_ENERGY_COLUMNS)
    columns = {name: np.full(length, np.nan) for name in names}
    truth_boxes, result_boxes = mouth_box(truth.crops), mouth_box(result.crops)
    for t in np.flatnonzero(measured):
        face, dubbed = truth.crops[t], result.crops[t]
        mouth, dubbed_mouth = np.ascontiguousarray(truth_boxes[t]), np.ascontiguousarray(result_boxes[t])
        columns["face_psnr_db"][t] = psnr_db(face, dubbed)
        columns["face_ssim"][t], columns["face_ms_ssim"][t] = similarities(face, dubbed)
        columns["mouth_psnr_db"][t] = psnr_db(mouth, dubbed_mouth)
        columns["mouth_ssim"][t] = ssim(mouth, dubbed_mouth)
        columns["photometric_error"][t] = photometric_error(mouth, dubbed_mouth)
        columns["truth_gradient"][t] = gradient_energy(mouth)
        columns["result_gradient"][t] = gradient_energy(dubbed_mouth)
        if t and measured[t - 1]:
            columns["truth_step"][t] = mean_absolute_difference(truth_boxes[t - 1], mouth)
            columns["result_step"][t] = mean_absolute_difference(result_boxes[t - 1], dubbed_mouth)
            columns["truth_skin_step"][t] = skin_difference(truth.crops[t - 1], face)
            columns["result_skin_step"][t] = skin_difference(result.crops[t - 1], dubbed)
    for name, piece in (("truth_native", truth.native_energy), ("result_native", result.native_energy)):
        if piece is not None:
            columns[name] = np.where(measured, piece, np.nan)
    columns["mouth_lmd_px"] = np.where(measured, landmark_distance(truth.track, track), np.nan).astype(np.float64)
    columns["nme"] = np.where(measured, normalised_mean_error(truth.landmarks, landmarks), np.nan).astype(np.float64)
    columns |= dict.fromkeys(EXPRESSION_COLUMNS, np.full(length, np.nan))
    if truth.person is not None and truth.fitted is not None:
        errors = truth.person.errors(truth.fitted, truth.person.fit(landmarks))
        for name, values in zip(EXPRESSION_COLUMNS, errors, strict=True):
            columns[name] = np.where(measured, values, np.nan)
    seen = mouth_appearance(render_boxes(result.crops), _box_points(landmarks), np.where(measured, truth.light, np.float32(np.nan)))
    columns |= {name: np.where(measured, values, np.nan) for name, values in _appearance(truth, result.crops, seen).items()}
    extras = dict(result.diagnostics)
    if truth.mouth is not None:
        extras["mouth_distance"] = kernel_distance(truth.mouth.features, seen.features)
    return RunMeasures(
        columns=columns,
        truth_opening=_only(truth.track.opening, measured),
        result_opening=_only(track.opening, measured),
        truth_width=_only(truth.track.width, measured),
        result_width=_only(track.width, measured),
        commanded=None if result.commanded is None else _only(result.commanded, measured),
        measured=measured,
        lost_faces=int((measured & ~track.tracked).sum()),
        closures=None,
        extras=extras,
    )


def _appearance(truth: TruthPiece, crops: UInt8, seen: MouthAppearance) -> dict[str, Float32]:
    """Return APPEARANCE_COLUMNS, float32 [T] each."""
    unknown = np.full(len(crops), np.nan, np.float32)
    columns = dict.fromkeys(APPEARANCE_COLUMNS, unknown)
    if truth.mouth is not None:
        columns["tint_alarms"], columns["nostril_alarms"] = truth.mouth.tinted(seen), truth.mouth.shaded(seen)
        columns["truth_dull"], columns["result_dull"] = truth.mouth.dull(truth.seen), truth.mouth.dull(seen)
    moved = clothing_moved(render_boxes(truth.crops), render_boxes(crops), _box_points(truth.landmarks))
    columns["clothing_moved"] = clothing_alarms(moved)
    for of, each in (("truth", truth.seen), ("result", seen)):
        columns |= {f"{of}_change": each.change, f"{of}_seam": each.seam, f"{of}_lip_step": each.lip_step}
    return columns


def _only(curve: Float32, measured: Bool) -> Float32:
    return np.where(measured, curve, np.nan).astype(np.float32)


def join_pieces(pieces: list[RunMeasures], frame_s: float, seconds: Float64, closures: Closures | None = None) -> RunMeasures:
    """Return one run of its consecutive pieces (at least one). Diagnostics are averaged, weighted by measured frames.

    Args:
        frame_s: mean length of a frame, seconds.
        seconds: float64 [T], presentation times of the frames.
        closures: closures of the lips on the bilabials of the part; None: the transcript is unknown.
    """
    weights = np.array([piece.measured.sum() for piece in pieces], np.float64)
    diagnostics: dict[str, float] = {}
    for name in sorted({name for piece in pieces for name in piece.extras}):
        values = np.array([piece.extras.get(name, np.nan) for piece in pieces])
        counted = np.isfinite(values) & (weights > 0)
        if counted.any():
            diagnostics[name] = float(np.average(values[counted], weights=weights[counted]))
    commanded = [piece.commanded for piece in pieces]
    columns = {name: np.concatenate([piece.columns[name] for piece in pieces]) for name in pieces[0].columns}
    truth_opening = np.concatenate([piece.truth_opening for piece in pieces])
    result_opening = np.concatenate([piece.result_opening for piece in pieces])
    truth_width = np.concatenate([piece.truth_width for piece in pieces])
    result_width = np.concatenate([piece.result_width for piece in pieces])
    both = np.isfinite(truth_width) & np.isfinite(result_width)
    quick = (quick_part(np.where(both, width, np.nan), frame_s) for width in (truth_width, result_width))
    columns |= zip(CURVE_COLUMNS, (*quick, steps(truth_opening), steps(result_opening)), strict=True)
    return RunMeasures(
        columns=columns,
        truth_opening=truth_opening,
        result_opening=result_opening,
        truth_width=truth_width,
        result_width=result_width,
        commanded=None if any(c is None for c in commanded) else np.concatenate([c for c in commanded if c is not None]),
        measured=np.concatenate([piece.measured for piece in pieces]),
        lost_faces=sum(piece.lost_faces for piece in pieces),
        closures=closures,
        extras=diagnostics,
        delayed=at_delays(result_opening, seconds),
    )


def with_phones(run: RunMeasures, seconds: Float64, phones: Mapping[Trigger, Float64]) -> RunMeasures:
    """Return a run with its openings about the phones of its speech.

    Args:
        seconds: float64 [T], times of the frames on the clock of the speech.
        phones: centres of the phones by kind, float64 [E] each, seconds (mouth_curves.phone_times).
    """
    around = {
        kind: (around_phones(run.truth_opening, seconds, events), around_phones(run.result_opening, seconds, events))
        for kind, events in phones.items()
    }
    return replace(run, phones=around)


def _box_points(crop_landmarks: Float32) -> Float32:
    """Return landmarks of the face crop in box pixels, float32 [T, 478, >= 2] -> [T, 478, 2]."""
    return np.asarray(crop_landmarks[..., :2] - np.array(BOX_ORIGIN, np.float32), np.float32)
