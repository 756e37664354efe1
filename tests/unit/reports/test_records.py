"""Motion of a dub against the person's own motion, and pictures of the dub, from the records in the job's folder."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.dub.analyse.face_records import FaceIndex, cut_box
from gateway.dub.job.outcome import TargetRecords
from gateway.dub.learn.target_mouths import TargetMouths
from gateway.dub.state.records import FACE_RECORD, FEATURE_RECORD, MOTION_RECORD, RecordSpan, pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from gateway.reports import records as reports_records
from gateway.reports.appearance import appearance_metrics, clothing_moved, mouth_appearance, skin_light
from gateway.reports.pictures import cut_around
from gateway.reports.records import FacePictures, OutputPictures, TrackedOutput, appearance_of, motion_of, track_output
from services.common.face.crops import CROP_SIZE, HeadPose, apply_affine, box_from_frame, crop_from_frame, invert
from services.common.face.landmarks import lip_width, mouth_opening
from services.common.face.sampling import sample_patch
from services.common.wire.mouth_curves import SpeakingMotion, speaking_motion
from tests.unit.motion.synthesised import mouths
from tests.unit.reports.test_appearance import faces, meshes

FPS = 50
FRAMES, SHOWN = 20, (3, 11)
PLACE = np.array([80.0, 90.0, 0.0])
"""Centre of the box in frame 0. The face moves by a pixel per frame."""


def opening_at(seconds: np.ndarray) -> np.ndarray:
    """A mouth that speaks from 1 to 3 s, four times a second, and is open until 3.3 s."""
    wave = 6.0 - 6.0 * np.cos(2 * np.pi * 4.0 * (seconds - 1.0))
    return np.where((seconds >= 1.0) & (seconds < 3.0), wave, np.where((seconds >= 3.0) & (seconds < 3.3), 6.0, 0.0))


def rounded(opening: np.ndarray) -> np.ndarray:
    """Mouths whose lips are narrower when they are open."""
    made = mouths(opening.astype(np.float32))
    made[:, :40, 0] *= 1.0 - 0.01 * opening[:, None]
    return made


def person() -> SpeakingMotion:
    """The person of the footage, at 25 frames per second, at rest from 3 s on."""
    seconds = np.arange(125) / 25
    seen = rounded(np.where(seconds < 3.0, opening_at(seconds), 0.0))
    found = speaking_motion(mouth_opening(seen), lip_width(seen), (seconds >= 1.0) & (seconds < 3.0))
    assert found is not None
    return found


def job(folder: Path, speaking: SpeakingMotion | None, rendered: np.ndarray) -> tuple[Any, Workspace]:
    workspace = Workspace(folder)
    count = len(rendered)
    seconds = np.arange(count) / FPS
    motion = np.zeros(count, MOTION_RECORD)
    motion["mouth"] = rounded(opening_at(seconds))
    motion["speech_probability"] = (seconds >= 1.0) & (seconds < 3.0)
    workspace.motion.append(motion)
    workspace.motion.sync()
    workspace.speech.append(np.zeros(count // 2 + 11, FEATURE_RECORD))
    workspace.speech.sync()
    video = SimpleNamespace(pts=np.arange(count), time_base=Fraction(1, FPS))
    outcome = SimpleNamespace(
        line=None,
        records=TargetRecords(workspace.motion, RecordSpan(workspace.speech, 0, count // 2 + 11), TargetMouths(workspace.motion)),
        actor=SimpleNamespace(speaking=speaking),
        plan=SimpleNamespace(rendered=lambda: rendered, num_frames=count),
        video=SimpleNamespace(video=video),
    )
    return outcome, workspace


def test_other_rate_compared_on_grid(tmp_path: Path) -> None:
    """A video of another rate is compared on the person's grid."""
    outcome, workspace = job(tmp_path / "job", person(), np.ones(250, np.bool_))
    with workspace:
        figures = motion_of(outcome)
    assert figures is not None
    # The same motion as the person's, but for the mouth that stays half open after the voice: one of two silences.
    assert (figures.opening_spread, figures.width_spread) == pytest.approx((1.0, 1.0), abs=0.05)
    assert figures.fastest_step == pytest.approx(1.0, abs=0.05)
    assert figures.silence_opening == pytest.approx(0.25, abs=0.03)


def test_mouths_as_filmed_do_not_count(tmp_path: Path) -> None:
    """The mouth that stays open after the voice is the footage's own."""
    outcome, workspace = job(tmp_path / "job", person(), np.ones(250, np.bool_))
    with workspace:
        share = (np.arange(250) / FPS >= 3.0).astype(np.float32)
        outcome.records = replace(outcome.records, mouths=TargetMouths(workspace.motion, share=share))
        figures = motion_of(outcome)
    assert figures is not None
    assert figures.silence_opening == pytest.approx(0.0, abs=0.01)


def test_frames_that_are_not_rendered_do_not_count(tmp_path: Path) -> None:
    rendered = np.ones(250, np.bool_)
    rendered[150:170] = False
    outcome, workspace = job(tmp_path / "job", person(), rendered)
    with workspace:
        figures = motion_of(outcome)
    assert figures is not None
    assert figures.silence_opening == pytest.approx(0.0, abs=0.01)


def test_nothing_compared_without_motion(tmp_path: Path) -> None:
    """Without the person's own motion or a dubbed frame, nothing is compared."""
    for name, speaking, rendered in (("old", None, True), ("undubbed", person(), False)):
        outcome, workspace = job(tmp_path / name, speaking, np.full(250, rendered))
        with workspace:
            assert motion_of(outcome) is None


def dub_of(video: MediaInfo, folder: Path) -> tuple[Any, Workspace]:
    """A dub of the first FRAMES frames of a video, of which frames 10 and 11 are not rendered."""
    workspace = Workspace(folder)
    records = np.zeros(FRAMES, FACE_RECORD)
    records["scale"], records["rotation"] = 0.8, np.eye(3)
    records["translation"] = PLACE + np.arange(FRAMES)[:, None] * [1.0, 0.0, 0.0]
    workspace.faces.append(records)
    workspace.faces.sync()
    rendered = np.arange(FRAMES) // 2 != 5
    plan = SimpleNamespace(rendered=lambda: rendered, num_frames=FRAMES, row=np.arange(FRAMES))
    return SimpleNamespace(line=None, plan=plan, video=video, info=video), workspace


def test_one_pass_takes_all_pictures(carphone: Path, tmp_path: Path) -> None:
    """The pass takes the same mouths, faces, squares and whole frames as separate readers of the same frames."""
    video = probe(carphone)
    with VideoReader(video) as reader:
        frames = [to_rgb(frame) for frame in reader.frames(0, FRAMES)]
    outcome, workspace = dub_of(video, tmp_path / "job")
    box = (40, 20, 60, 80)
    with workspace:
        poses = [pose_of(record) for record in workspace.faces.read(0, FRAMES)]
        pictures = OutputPictures(
            video, outcome, [outcome], workspace, chosen=[dict.fromkeys(SHOWN, box)], shown=SHOWN, measured=True, small=True
        )
        pairs = list(pictures.pairs())
    (face,) = pictures.faces
    expected = np.stack([cut_box(frame, pose) for frame, pose in zip(frames, poses, strict=True)])
    expected[10:12] = 0
    np.testing.assert_array_equal(face.boxes, expected)
    assert len(face.video_faces) == len(face.dub_faces) == 8
    for before, after in zip(face.video_faces, face.dub_faces, strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(face.dub_faces[0], sample_patch(frames[0], crop_from_frame(poses[0]), (CROP_SIZE, CROP_SIZE)))
    assert pictures.whole.keys() == face.before.keys() == face.after.keys() == set(SHOWN)
    for frame in SHOWN:
        np.testing.assert_array_equal(pictures.whole[frame], frames[frame])
        np.testing.assert_array_equal(face.after[frame], cut_around(frames[frame], box))
    assert len(pairs) == video.video.num_frames
    assert {pair.shape for pair in pairs} == {(360, 2 * 482, 3)}
    np.testing.assert_array_equal(pairs[7][:, :482], pairs[7][:, 482:])


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((40, 20, 60, 80), slice(12, 108), slice(22, 118)),
        ((0, 2, 40, 30), slice(0, 48), slice(0, 48)),
        ((30, 60, 180, 140), slice(0, 150), slice(0, 200)),
        ((170, 130, 40, 50), slice(90, 150), slice(140, 200)),
    ],
)
def test_square_around_a_box(box: tuple[int, int, int, int], rows: slice, columns: slice) -> None:
    """The square is a fifth larger than the box, around its middle, and inside the picture."""
    picture = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    expected = cv2.resize(picture[rows, columns], (256, 256), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(cut_around(picture, box), expected)


def test_a_pass_reads_no_further_than_it_must(carphone: Path, tmp_path: Path) -> None:
    """Without figures and small pairs, reading ends behind the last frame that is shown. A stopped pass ends."""
    video = probe(carphone)
    outcome, workspace = dub_of(video, tmp_path / "job")
    with workspace:
        seen = OutputPictures(video, outcome, [outcome], workspace, shown=SHOWN, measured=False)
        seen.read()
        assert seen.whole.keys() == set(SHOWN)
        assert seen.faces[0].boxes.shape[0] == 0
        stopped = OutputPictures(video, outcome, [outcome], workspace, shown=SHOWN, measured=True, small=True)
        taken = []
        for pair in stopped.pairs():
            taken.append(pair)
            stopped.stop()
        assert len(taken) == 1
        assert stopped.whole == {}


async def test_face_nearest_to_box_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The face about the middle of the box, in the frame of the box, is followed through the video."""
    centres = np.array([[130, 70], [70, 70], [130, 10], [190, 70], [130, 130], [120, 70], [130, 60]], np.float32)
    count = len(centres)

    async def track_footage(stages: Any, video: Any, workspace: Workspace, *, threads: int, on_frame: Any) -> FaceIndex:
        # Each face in frames 1 and 2, and in frame 0 a face about the middle of the box that is not there later.
        found = np.zeros(1 + 2 * count, FACE_RECORD)
        found["frame"] = [0, *[1] * count, *[2] * count]
        found["face_id"] = [9, *range(count), *range(count)]
        found["landmarks"] = found["face_id"][:, None, None]
        found["scale"], found["rotation"] = 1.0, np.eye(3)
        workspace.faces.append(found)
        workspace.faces.sync()
        centre = np.concatenate([centres[:1], centres, centres])
        area = np.ones(len(found), np.float32)
        return FaceIndex(found["frame"], found["face_id"], found["reason"], area, centre, (), num_frames=4)

    monkeypatch.setattr(reports_records, "track_footage", track_footage)
    video: Any = SimpleNamespace(video=SimpleNamespace(num_frames=4, pts=np.arange(4), time_base=Fraction(1, 25)))
    stages: Any = None
    found, nobody, undubbed = await track_output(stages, video, [(2, (100, 40, 60, 60)), (3, (100, 40, 60, 60)), None])
    assert undubbed is None
    assert found is not None
    assert nobody is not None
    np.testing.assert_array_equal(found.landmarks[:, 0, 0], [np.nan, 0.0, 0.0, np.nan])
    assert np.isnan(nobody.landmarks).all()


async def test_appearance_of_the_lines_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a line compare its own frames, and leave out those that are not rendered."""
    count, first, left_out = 40, 7, 5
    openings = (6.0 + 3.0 * np.sin(np.arange(count))).astype(np.float32)
    video, dub, points = faces(openings), faces(openings, seed=1, teeth=(90, 120, 200)), meshes(openings)
    pose = HeadPose(1.1, np.eye(3), np.array([90.0, 70.0, 0.0]))
    in_frame = np.stack([apply_affine(invert(box_from_frame(pose)), mesh) for mesh in points])
    workspace = Workspace(tmp_path / "job")
    records = np.zeros(first + count, FACE_RECORD)
    records["scale"], records["rotation"], records["translation"] = pose.scale, pose.rotation, pose.translation
    records["landmarks"][first:, :, :2], records["pixels"][first:] = in_frame, video
    workspace.faces.append(records)
    workspace.faces.sync()
    rendered = np.ones(first + count, np.bool_)
    rendered[first + left_out] = False
    file = SimpleNamespace(path=Path("plate.mp4"))
    plan = SimpleNamespace(rendered=lambda: rendered, row=np.arange(first + count))
    outcome: Any = SimpleNamespace(plan=plan, video=file, info=file)
    # The tracked face of the dub lies a little lower.
    tracked = TrackedOutput(np.zeros(0, np.float32), records["landmarks"] + np.array([0.0, 1.0, 0.0], np.float32))
    dub[left_out] = 0
    pictures = FacePictures(range(first, first + count), dub, video_faces=[video[0]], dub_faces=[dub[0]])
    done: list[int] = []

    async def face_distance(stages: Any, own: Any, drawn: Any) -> float:
        return 0.25

    monkeypatch.setattr(reports_records, "face_distance", face_distance)
    stages: Any = None
    with workspace:
        found = await appearance_of(stages, pictures, outcome, workspace, tracked, done.append)
    lower = in_frame + np.array([0.0, 1.0], np.float32)
    points, in_dub = (np.stack([apply_affine(box_from_frame(pose), mesh) for mesh in each]) for each in (in_frame, lower))
    video[left_out], points[left_out], in_dub[left_out] = 0, np.nan, np.nan
    light = skin_light(video, points)
    own, drawn = mouth_appearance(video, points, light), mouth_appearance(dub, in_dub, light)
    expected = appearance_metrics(own, drawn, clothing_moved(video, dub, points), 0.25)
    assert found is not None
    assert vars_of(found) == pytest.approx(vars_of(expected), rel=1e-3, nan_ok=True)
    assert done == [count]


def vars_of(metrics: Any) -> dict[str, float]:
    return {field.name: getattr(metrics, field.name) for field in fields(metrics)}
