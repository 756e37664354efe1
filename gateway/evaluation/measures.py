"""Measures of each frame of a run (one variant, fold and speech). Runs are measured piece by piece, which bounds memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from gateway.evaluation.expression import FittedFrames, PersonFace
from gateway.evaluation.image_metrics import (
    gradient_energy,
    mean_absolute_difference,
    mouth_box,
    photometric_error,
    psnr_db,
    similarities,
    skin_difference,
    ssim,
)
from gateway.evaluation.mouth_metrics import Closures, MouthTrack, landmark_distance, mouth_track, normalised_mean_error
from gateway.evaluation.types import Rendered
from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.wire.mouth_curves import Trigger, around_phones, quick_part, steps

PICTURE_COLUMNS: Final = (
    "face_psnr_db",
    "face_ssim",
    "face_ms_ssim",
    "mouth_psnr_db",
    "mouth_ssim",
    "photometric_error",
)
EXPRESSION_COLUMNS: Final = ("expression_error", "landmark_error_px")
"""See expression.py."""
CURVE_COLUMNS: Final = ("truth_width_quick", "result_width_quick", "truth_opening_step", "result_opening_step")
"""Columns of a whole run, which join_pieces makes from its curves (services/common/wire/mouth_curves.py)."""
PAPER_COLUMNS: Final = ("photometric_error", *EXPRESSION_COLUMNS, "nme")
"""Columns whose means are figures of the papers."""
_ENERGY_COLUMNS: Final = tuple(f"{of}_{what}" for what in ("gradient", "step", "skin_step", "native") for of in ("truth", "result"))


@dataclass(frozen=True, slots=True)
class TruthPiece:
    """Frames of the real film with their tracked mouths. Measured once and used for every variant.

    Attributes:
        crops: uint8 [T, 256, 256, 3], RGB.
        usable: bool [T].
        track: tracked mouths.
        landmarks: float32 [T, 478, 3], tracked meshes, crop pixels.
        person: face model of the person; None: too few frames were tracked.
        fitted: the face model fitted to the frames; None without `person`.
        native_energy: float64 [T], energy of the finest band of the mouth at the footage's own resolution; None: not measured.
    """

    crops: UInt8 = field(repr=False)
    usable: Bool
    track: MouthTrack
    landmarks: Float32 = field(repr=False)
    person: PersonFace | None = None
    fitted: FittedFrames | None = None
    native_energy: Float64 | None = None


@dataclass(frozen=True, slots=True)
class RunMeasures:
    """Measures of one run. Every array has one entry per frame of the test part; NaN: the frame was not measured.

    Attributes:
        columns: float64 [T] each: PICTURE_COLUMNS; `truth_gradient`, `result_gradient` (gradient energy of the mouth
            box); `truth_native`, `result_native` (energy of the finest band at the footage's own resolution); `truth_step`,
            `result_step` (mean |x_t - x_{t-1}| of the mouth box); `truth_skin_step`, `result_skin_step` (the same of the skin
            beside the mouth); `mouth_lmd_px`; `nme`; EXPRESSION_COLUMNS; of joined pieces also CURVE_COLUMNS: the lip width without
            its slow part, and the change of the opening from frame to frame, crop pixels.
        truth_opening, result_opening: float32 [T], opening of the mouth, crop pixels.
        truth_width, result_width: float32 [T], width of the lips, crop pixels.
        commanded: float32 [T], the opening that the renderer was asked for; None: the variant has none.
        measured: bool [T].
        lost_faces: measured frames on which the tracker found no face in the result.
        closures: closures of the lips on the bilabials of the part; None without a transcript.
        extras: figures of the whole run: diagnostics of the method, sync distance, LPIPS, FID.
        phones: opening of truth and result about the phones that the run follows, float64 [E, W] each, by the kind of phone
            (mouth_curves.around_phones). Empty: the run follows other speech than the truth.
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


def truth_piece(rendered: Rendered, landmarks: Float32, person: PersonFace | None = None) -> TruthPiece:
    """Return frames of the real film. A frame is usable if it has a face crop in which the tracker finds the mouth."""
    track = mouth_track(landmarks)
    usable = np.array([not reason for reason in rendered.reasons], np.bool_) & track.known
    fitted = person.fit(landmarks) if person is not None else None
    return TruthPiece(rendered.crops, usable, track, landmarks, person, fitted, rendered.native_energy)


def measure_piece(truth: TruthPiece, result: Rendered, landmarks: Float32) -> RunMeasures:
    """Return the measures of consecutive frames of one variant against the truth.

    Args:
        truth: T frames of the real film.
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
    return RunMeasures(
        columns=columns,
        truth_opening=_only(truth.track.opening, measured),
        result_opening=_only(track.opening, measured),
        truth_width=_only(truth.track.width, measured),
        result_width=_only(track.width, measured),
        commanded=None if result.commanded is None else _only(result.commanded, measured),
        measured=measured,
        lost_faces=int((measured & ~track.known).sum()),
        closures=None,
        extras=dict(result.diagnostics),
    )


def _only(curve: Float32, measured: Bool) -> Float32:
    return np.where(measured, curve, np.nan).astype(np.float32)


def join_pieces(pieces: list[RunMeasures], frame_s: float, closures: Closures | None = None) -> RunMeasures:
    """Return one run of its consecutive pieces (at least one). Diagnostics are averaged, weighted by measured frames.

    Args:
        pieces: the pieces.
        frame_s: mean length of a frame, seconds.
        closures: closures of the lips on the bilabials of the part; None: the transcript is not known.
    """
    weights = np.array([piece.measured.sum() for piece in pieces], np.float64)
    diagnostics: dict[str, float] = {}
    for name in sorted({name for piece in pieces for name in piece.extras}):
        values = np.array([piece.extras.get(name, np.nan) for piece in pieces])
        known = np.isfinite(values) & (weights > 0)
        if known.any():
            diagnostics[name] = float(np.average(values[known], weights=weights[known]))
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
    )


def with_phones(run: RunMeasures, seconds: Float64, phones: Mapping[Trigger, Float64]) -> RunMeasures:
    """Return a run with its openings about the phones of its speech.

    Args:
        run: the run.
        seconds: float64 [T], times of the frames on the clock of the speech.
        phones: centres of the phones by kind, float64 [E] each, seconds (mouth_curves.phone_times).
    """
    around = {
        kind: (around_phones(run.truth_opening, seconds, events), around_phones(run.result_opening, seconds, events))
        for kind, events in phones.items()
    }
    return replace(run, phones=around)
