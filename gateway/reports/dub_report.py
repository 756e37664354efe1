"""The report of one dub: FOLDER/index.html, its pictures, and FOLDER/report.json with the same metrics for programs.

`write_outcome_report` collects pictures, curves and facts of a finished dub from the job's folder, the footage and the output. The
fitting sheet shows how well a person's face model fits the video: a row of pictures per frame.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.async_utilities import entered_in_threads, in_thread
from gateway.dub.convert import reason_name
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.progress import OnProgress
from gateway.dub.request.dub_request import DubRequest, consent_sentence, what_is_synthetic
from gateway.dub.request.spec_text import ROWS
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.types import MediaInfo
from gateway.reports.appearance import AppearanceMetrics
from gateway.reports.folder import PAGE, report_folder
from gateway.reports.pages import RENDERED, Curve, counts_of, number, plot_curves, plot_head_motion, render_page, spans_of
from gateway.reports.pictures import (
    MOST_FRAMES,
    before_after_sheet,
    contact_sheet,
    output_sound,
    output_sound_rate,
    reduced,
    write_picture,
    write_side_by_side,
)
from gateway.reports.records import (
    FacePictures,
    OutputPictures,
    TrackedOutput,
    appearance_of,
    boxes_of,
    can_be_tracked,
    commanded_opening,
    head_motion_of,
    motion_of,
    track_beside,
)
from gateway.reports.scales import SCALES
from gateway.reports.types import BeforeAfter, DubReport, Fact, LineReport, SideBySide
from gateway.stages.interface import Stages
from services.common.array_types import Float32, UInt8
from services.common.face.crops import head_poses_of
from services.common.face.drawing import FaceMesh, fitting_row
from services.common.face.identity import FaceIdentity, identity_from_arrays, model_of_identity
from services.common.face.landmarks import STABLE
from services.common.geometry.alignment import fit_weak_perspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import default_model
from services.common.store.artefacts import ArtefactStore
from services.common.texts import in_words
from services.common.wire.convert import ref_from_proto
from services.common.wire.mouth_curves import MotionMetrics, correlation

COLUMNS = ("frame", "mesh", "low-frequency albedo", "detailed albedo", "drawn alone")
"""Pictures of a row (services/common/face/drawing.py)."""
SIDE_BY_SIDE: Final = "side_by_side.mp4"
"""Name of the video of the footage and the dub beside each other, in the folder of a report."""
FRAME_COLUMNS: Final = 4
MOTION_NAMES: Final = {
    "silence_opening": "largest opening in silence, share of the person's range (0 is at rest)",
    "opening_spread": "spread of the opening over the person's own (1 is the person's own)",
    "width_spread": "spread of the lip width over the person's own (1 is the person's own)",
    "fastest_step": "fastest change of the opening over the person's own (1 is the person's own)",
    "vowel_shift_ms": "ms by which the mouth is later than real people's at open vowels (0 is on time)",
    "closure_shift_ms": "ms by which the lips are later than real people's at p, b, m (0 is on time)",
}
"""Names of MotionMetrics on the page."""
APPEARANCE_NAMES: Final = {
    "tint_alarms": "share of open mouths whose teeth have another colour than the person's own (0)",
    "nostril_alarms": "share of frames with a dark place between nose and lip (0)",
    "low_contrast": "share of open mouths with a dull inside, beyond the person's own share (0)",
    "popping": "change of the inside from frame to frame over the person's own (1)",
    "seam_sharpness": "sharpness of the line between shut lips over the person's own (1)",
    "lip_jump": "largest jump of the lips' brightness over the person's own (1 is the person's own)",
    "clothing_moved": "share of frames in which clothing beside the jaw moves (0)",
    "mouth_distance": "kernel distance of the mouths, to rank methods on one video (0)",
    "face_distance": "distance of the face embeddings from the video (under 0.43 is the same person)",
}
"""Names of AppearanceMetrics on the page."""
PAIRS: Final = 8
FITTED: Final = 3
"""Number of frames on which the face model is shown."""
FRAME_HEIGHT: Final = 240


@dataclass(frozen=True, slots=True)
class TrackedPicture:
    """A frame, uint8 [H, W, 3] RGB, with the tracked landmarks of the face, float32 [478, 3], pixels of the frame."""

    picture: UInt8 = field(repr=False)
    landmarks: Float32 = field(repr=False)


def fitting_sheet(identity: FaceIdentity, frames: Sequence[TrackedPicture]) -> UInt8 | None:
    """Return a sheet with one row of COLUMNS per frame, uint8 [N * 256, 1280, 3].

    None is returned if there is no frame, or if the identity belongs to a morphable model that the user installed. Pose and
    expression are fitted to the landmarks, with the person's own neutral face. The pose is fitted to points that speech does not
    move.
    """
    model = default_model()
    if not frames or (identity.model, identity.model_digest) != (model.name, model.digest):
        return None
    mesh, personal = FaceMesh.of(model), identity.personal(model)
    image: np.ndarray[Any, np.dtype[np.float64]] = np.stack([frame.landmarks[: model.num_vertices] for frame in frames]).astype(
        np.float64
    )
    stable = list(STABLE)
    camera = fit_weak_perspective(personal.mean_shape[stable].astype(np.float64), image[:, stable])
    fitted = coefficients_from_landmarks(personal, image, camera, identity=np.zeros(0))
    return np.concatenate(
        [
            fitting_row(frame.picture, pose, expression, identity, mesh)
            for frame, pose, expression in zip(frames, head_poses_of(camera), fitted.expression, strict=True)
        ]
    )


def mean_mask_share(report: DubReport) -> float:
    """Mean share of the picture that the mask covers, over rendered frames; 0 if no frame was rendered."""
    rendered = np.array([reason in RENDERED for reason in report.reasons], np.bool_)
    shares = report.mask_area_share[rendered[: len(report.mask_area_share)]]
    return float(shares.mean()) if len(shares) else 0.0


def report_json(report: DubReport) -> dict[str, Any]:
    """Return the figures of a dub as plain values. The benchmark reads `times`."""
    times = report.times
    return {
        "title": report.title,
        "method": report.method,
        "input": {fact.name: fact.value for fact in report.input},
        "output": {fact.name: fact.value for fact in report.output},
        "consent": report.consent,
        "frames": len(report.reasons),
        "reasons": {count.reason: count.frames for count in counts_of(report.reasons)},
        "mask_area_share": round(mean_mask_share(report), 6),
        "lag_frames": report.lag_frames,
        "r_opening": _r_opening(report),
        "motion": _finite(report.motion),
        "appearance": _finite(report.appearance),
        "undubbed": report.undubbed,
        "warnings": list(report.warnings),
        "lines": [
            {
                "name": line.name,
                **{fact.name: fact.value for fact in line.facts},
                "reasons": {count.reason: count.frames for count in counts_of(line.reasons)},
                "r_opening": _r_opening(line),
                "motion": _finite(line.motion),
                "appearance": _finite(line.appearance),
            }
            for line in report.lines
        ],
        "times": {
            "end_to_end_s": times.end_to_end_s,
            "total_s": times.total_s,
            "frames_per_second": times.frames_per_second,
            "personalize_s": times.personalize_s,
            "cpu_s": times.cpu_s,
            "stages": [
                {"name": stage.name, "wall_s": stage.wall_s, "cpu_s": stage.cpu_s, "frames": stage.frames} for stage in times.stages
            ],
        },
    }


def _r_opening(shown: DubReport | LineReport) -> float | None:
    """Return the correlation of the commanded and the tracked opening; None: not measured."""
    if shown.commanded_opening is None or shown.tracked_opening is None:
        return None
    r = correlation(shown.commanded_opening, shown.tracked_opening)
    return round(r, 4) if math.isfinite(r) else None


def _values(metrics: MotionMetrics | AppearanceMetrics | None) -> dict[str, float]:
    return {} if metrics is None else asdict(metrics)


def _finite(metrics: MotionMetrics | AppearanceMetrics | None) -> dict[str, float | None]:
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in _values(metrics).items()}


def write_page(report: DubReport, folder: Path) -> None:
    """Write the page, its pictures and report.json into a folder. The page shows the video SIDE_BY_SIDE that lies in the folder."""
    files: dict[str, str] = {}
    if report.pairs:
        write_picture(folder / "mouths.jpg", before_after_sheet(report.pairs))
        files["mouths"] = "mouths.jpg"
    if report.frames:
        write_picture(folder / "frames.jpg", contact_sheet([picture for _, picture in report.frames], FRAME_COLUMNS))
        files["frames"] = "frames.jpg"
    if report.fitting is not None:
        write_picture(folder / "fitting.jpg", report.fitting)
        files["fitting"] = "fitting.jpg"
    if report.head_motion is not None:
        plot_head_motion(folder / "head_motion.svg", report.head_motion, float(report.frame_rate))
        files["head_motion"] = "head_motion.svg"
    if (folder / SIDE_BY_SIDE).exists():
        files["video"] = SIDE_BY_SIDE
    if _write_opening(report, folder / "opening.svg", report.frame_rate):
        files["opening"] = "opening.svg"
    values = {
        "report": report,
        "files": files,
        "lines": [_line_values(line, number, folder, report.frame_rate) for number, line in enumerate(report.lines, 1)],
        "fitting_columns": COLUMNS,
        "spans": spans_of(report.reasons, report.frame_rate),
        "counts": counts_of(report.reasons),
        "dubbed": sum(reason in RENDERED for reason in report.reasons),
        "mask_share": mean_mask_share(report),
        "slowest_ms": max((stage.ms_per_frame for stage in report.times.stages), default=0.0),
        "obeyed": _r_opening(report),
        "tables": _tables(report),
        "seconds": float(len(report.reasons) / report.frame_rate),
    }
    text = json.dumps(report_json(report), indent=2, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    render_page("dub.html.j2", values, folder)


def _write_opening(shown: DubReport | LineReport, file: Path, frame_rate: Fraction) -> bool:
    """Write the plot of the opening of a mouth. Return whether there is anything to plot."""
    curves = [
        Curve(label, values, colour)
        for label, values, colour in (
            ("commanded", shown.commanded_opening, 1),
            ("tracked on the result", shown.tracked_opening, 2),
        )
        if values is not None
    ]
    if curves:
        start = shown.start if isinstance(shown, LineReport) else 0
        plot_curves(file, curves, float(frame_rate), "mouth opening, crop px", start)
    return bool(curves)


@dataclass(frozen=True, slots=True)
class FigureRow:
    """Row of a table of figures.

    Attributes:
        text: what the figure is, for a person.
        value: the figure as text.
        range: usual range; empty: none is known.
        mark: `below` or `above` the usual range; empty: inside.
    """

    text: str
    value: str
    range: str
    mark: str


def _tables(shown: DubReport | LineReport) -> tuple[tuple[str, list[FigureRow]], ...]:
    return (
        ("Motion of the mouth against the person's own", _rows(shown.motion, MOTION_NAMES)),
        ("What eyes see of the mouth", _rows(shown.appearance, APPEARANCE_NAMES)),
    )


def _rows(metrics: MotionMetrics | AppearanceMetrics | None, names: Mapping[str, str]) -> list[FigureRow]:
    rows = []
    for name, value in _values(metrics).items():
        shown, scale = partial(number, digits=0 if name.endswith("_ms") else 2), SCALES.get(name)
        rows.append(
            FigureRow(
                names[name],
                shown(value),
                scale.range(shown) if scale is not None else "",
                scale.mark(value) if scale is not None else "",
            )
        )
    return rows


def _line_values(line: LineReport, number: int, folder: Path, frame_rate: Fraction) -> dict[str, Any]:
    """Return what the page shows of a line, and write its pictures."""
    files: dict[str, str] = {}
    if _write_opening(line, folder / f"line_{number}_opening.svg", frame_rate):
        files["opening"] = f"line_{number}_opening.svg"
    if line.pairs:
        files["mouths"] = f"line_{number}_mouths.jpg"
        write_picture(folder / files["mouths"], before_after_sheet(line.pairs))
    return {"report": line, "counts": counts_of(line.reasons), "obeyed": _r_opening(line), "tables": _tables(line), "files": files}


async def write_outcome_report(
    request: DubRequest,
    outcome: DubOutcome,
    workspace: Workspace,
    stages: Stages,
    store: ArtefactStore,
    folder: Path,
    *,
    on_progress: OnProgress = lambda *_: None,
) -> Path:
    """Write the report of a dub to `folder`/index.html, and return the path of the page.

    Args:
        workspace: the open folder of the job, which has the records.
        stages: the stages, which track the output.
        store: holds the actor's identity.
        folder: gets the page and its pictures, all of them or none.
        on_progress: called with finished and all parts of the step `report`: of a frame, tracking, measuring and the video beside
            the footage are one part each.

    Raises:
        InvalidRequestError, StorageFullError: `folder` cannot be written.
        DubstageError: a video cannot be read, or a stage failed.
    """
    result = await asyncio.to_thread(probe, request.output)
    async with entered_in_threads(report_folder(folder)) as unfinished:
        seen = await _seen(stages, result, outcome, workspace, unfinished / SIDE_BY_SIDE, on_progress)
        page = await asyncio.to_thread(_page, request, result, outcome, workspace, store, seen)
        await in_thread(write_page, page, unfinished)
    return folder / PAGE


@dataclass(frozen=True, slots=True)
class _SeenFace:
    """A face in the video of the dub: outcome of its line or of the whole dub, mouths before and after, and figures."""

    outcome: DubOutcome
    pairs: list[BeforeAfter]
    figures: _Figures


@dataclass(frozen=True, slots=True)
class _Seen:
    """Faces, frames and tracked landmarks of the video of a dub.

    Attributes:
        faces: the faces, one for each line of a scene.
        shown: frames of the video, uint8 [H, W, 3] each, evenly spread, by frame.
        tracked: tracked video with the first face; None: not tracked.
    """

    faces: list[_SeenFace]
    shown: dict[int, UInt8]
    tracked: TrackedOutput | None


async def _seen(
    stages: Stages, result: MediaInfo, outcome: DubOutcome, workspace: Workspace, side_by_side: Path, on_progress: OnProgress
) -> _Seen:
    """Return the findings in the video of a dub, and write the video of the footage and the dub beside each other.

    Args:
        result: the video of the dub.
        side_by_side: file to write.
        on_progress: see `write_outcome_report`.
    """
    frames, times, faces = result.video.num_frames, outcome.video.video, outcome.of_lines() or [outcome]
    chosen = [_chosen(face) for face in faces]
    boxes = [await asyncio.to_thread(boxes_of, face, workspace, some) for face, some in zip(faces, chosen, strict=True)]
    first = [(some[0], box[some[0]]) if some else None for some, box in zip(chosen, boxes, strict=True)]
    measured = can_be_tracked(result, first)
    pictures = OutputPictures(
        result, outcome, faces, workspace, chosen=boxes, shown=_chosen(outcome), measured=measured, small=True
    )
    parts = min(frames, MOST_FRAMES) + (frames + sum(len(face.frames) for face in pictures.faces) if measured else 0)
    done = Counter[str]()

    def on_part(name: str, number: int) -> None:
        done[name] = number
        on_progress("report", done.total(), parts)

    def counted(pairs: Iterable[UInt8]) -> Iterator[UInt8]:
        for count, pair in enumerate(pairs, start=1):
            yield pair
            on_part("video", count)

    on_part("video", 0)
    video = SideBySide(
        pictures=counted(pictures.pairs()),
        frame_rate=times.average_rate,
        speech=await asyncio.to_thread(output_sound, result),
        sample_rate_hz=output_sound_rate(result),
    )
    write = partial(write_side_by_side, side_by_side, video)
    tracked = await track_beside(stages, result, first, pictures, write, partial(on_part, "tracking"))
    seen = []
    for index, (face, cut) in enumerate(zip(faces, pictures.faces, strict=True)):
        on_frame = partial(on_part, f"measuring {index}")
        figures = await _figures(stages, cut, face, workspace, tracked[index], on_frame)
        pairs = [BeforeAfter(_label(outcome, frame), cut.before[frame], cut.after[frame]) for frame in chosen[index]]
        seen.append(_SeenFace(face, pairs, figures))
    return _Seen(seen, pictures.whole, tracked[0])


def _page(
    request: DubRequest, result: MediaInfo, outcome: DubOutcome, workspace: Workspace, store: ArtefactStore, seen: _Seen
) -> DubReport:
    """Return what the page shows. Blocks.

    Args:
        result: the video of the dub.
        seen: what is found in this video.
    """
    is_scene = bool(outcome.of_lines())
    whole = _Figures() if is_scene else seen.faces[0].figures
    lines = zip(seen.faces, request.parts, strict=True) if is_scene else ()
    return DubReport(
        title=request.output.name,
        input=[
            *_facts(outcome.info, request.footage.name),
            *([Fact("reference", request.reference.name)] if request.reference is not None else []),
            *(Fact("face", f"{part.face_id}, {part.why}") for part in outcome.parts if part.face_id is not None and not is_scene),
        ],
        output=[*_facts(result, request.output.name), *(Fact("carried over", text) for text in outcome.written.carried)],
        consent=consent_sentence(request),
        has_consent=all(part.named_consent is not None for part in request.parts),
        method=request.method,
        synthetic=what_is_synthetic(request, dubbed=bool(outcome.plan.rendered().any())),
        reasons=[reason_name(number) for number in outcome.plan.reason],
        frame_rate=outcome.video.video.average_rate,
        mask_area_share=_mask_share(outcome),
        lag_frames=outcome.actor.lag_frames if outcome.actor is not None and not is_scene else None,
        times=outcome.times,
        pairs=[] if is_scene else seen.faces[0].pairs,
        frames=[(_label(outcome, frame), reduced(picture, FRAME_HEIGHT)) for frame, picture in seen.shown.items()],
        fitting=None if is_scene else _fitting(outcome, store, seen.shown, seen.tracked),
        head_motion=head_motion_of(request, outcome, workspace),
        commanded_opening=whole.commanded,
        tracked_opening=whole.tracked,
        motion=whole.motion,
        appearance=whole.appearance,
        lines=[_line_report(face, part) for face, part in lines],
        undubbed=in_words(outcome.undubbed, ROWS),
        warnings=[in_words(warning, ROWS) for warning in outcome.warnings],
    )


def _label(outcome: DubOutcome, frame: int) -> str:
    times = outcome.video.video
    return f"frame {frame}, {float((times.pts[frame] - times.pts[0]) * times.time_base):.2f} s"


@dataclass(frozen=True, slots=True)
class _Figures:
    """Figures of one face, as in DubReport."""

    commanded: Float32 | None = None
    tracked: Float32 | None = None
    motion: MotionMetrics | None = None
    appearance: AppearanceMetrics | None = None


async def _figures(
    stages: Stages,
    pictures: FacePictures,
    outcome: DubOutcome,
    workspace: Workspace,
    tracked: TrackedOutput | None,
    on_frame: Callable[[int], None],
) -> _Figures:
    return _Figures(
        await asyncio.to_thread(commanded_opening, outcome),
        tracked.opening if tracked is not None else None,
        await asyncio.to_thread(motion_of, outcome),
        await appearance_of(stages, pictures, outcome, workspace, tracked, on_frame),
    )


def _line_report(face: _SeenFace, request: DubRequest) -> LineReport:
    """Return what the report shows of a line.

    Args:
        request: dub of the line.
    """
    outcome, figures = face.outcome, face.figures
    (part,) = outcome.parts
    frames = slice(part.frames.start, part.frames.stop)
    who = f"{part.face_id}, {part.why}" if part.face_id is not None else part.why
    return LineReport(
        name=part.name,
        facts=[
            Fact("face", who),
            *([Fact("actor", part.actor_id)] if part.actor_id else []),
            *([Fact("speech", request.speech.name)] if request.speech is not None else []),
            Fact("frames", f"{part.frames.start} to {part.frames.stop - 1}, {part.num_dubbed} dubbed"),
        ],
        reasons=[reason_name(number) for number in outcome.plan.reason[frames]],
        start=part.frames.start,
        pairs=face.pairs,
        commanded_opening=figures.commanded[frames] if figures.commanded is not None else None,
        tracked_opening=figures.tracked[frames] if figures.tracked is not None else None,
        motion=figures.motion,
        appearance=figures.appearance,
    )


def _chosen(outcome: DubOutcome) -> list[int]:
    """Return the rendered frames that the report shows, evenly spread."""
    (rendered,) = np.nonzero(outcome.plan.rendered())
    if len(rendered) == 0:
        return []
    return list(dict.fromkeys(int(frame) for frame in rendered[np.linspace(0, len(rendered) - 1, PAIRS).astype(int)]))


def _fitting(outcome: DubOutcome, store: ArtefactStore, pictures: dict[int, UInt8], tracked: TrackedOutput | None) -> UInt8 | None:
    """Return the face model of the person drawn on frames of the output; None: there is no identity of the default model."""
    if tracked is None or outcome.actor is None or outcome.actor.identity is None:
        return None
    stored = store.get_arrays(ref_from_proto(outcome.actor.identity, "identity"))
    if model_of_identity(stored) != default_model().name:
        return None
    frames = [frame for frame in pictures if np.isfinite(tracked.landmarks[frame, 0, 0])]
    shown = [frames[index] for index in np.linspace(0, len(frames) - 1, min(FITTED, len(frames))).astype(int)]
    return fitting_sheet(
        identity_from_arrays(stored, default_model()),
        [TrackedPicture(pictures[frame], tracked.landmarks[frame]) for frame in shown],
    )


def _facts(info: MediaInfo, name: str) -> list[Fact]:
    video = info.video
    width, height = video.orientation.upright_size
    facts = [
        Fact("file", name),
        Fact("container", info.container),
        Fact("picture", f"{video.codec}, {width} x {height}, {video.stored_format}"),
        Fact("frames", f"{video.num_frames} at {float(video.average_rate):.3f} a second ({float(video.duration):.2f} s)"),
    ]
    sounds = [f"{audio.codec}, {audio.sample_rate_hz} Hz, {audio.channels} ch" for audio in info.audio]
    return [*facts, Fact("sound", "; ".join(sounds) or "none")]


def _mask_share(outcome: DubOutcome) -> Float32:
    video = outcome.video.video
    return np.asarray(outcome.facts.mask_area_px / (video.width * video.height), np.float32)
