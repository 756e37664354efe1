from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.reports.appearance import AppearanceMetrics
from gateway.reports.dub_report import COLUMNS, SIDE_BY_SIDE, TrackedPicture, fitting_sheet, mean_mask_share, write_page
from gateway.reports.folder import report_folder
from gateway.reports.pages import counts_of, spans_of
from gateway.reports.pictures import beside, write_side_by_side
from gateway.reports.types import BeforeAfter, DubReport, Fact, SideBySide
from gateway.stages.timing import StageClock, StageTime, StageTimes
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, to_frame
from services.common.face.identity import FaceIdentity
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import matrix_from_euler
from services.common.wire.mouth_curves import MotionMetrics
from tests.unit.render.drawn_person import person

RATE = Fraction(25)
REASONS = ("DUBBED",) * 30 + ("NO_FACE",) * 10 + ("DUBBED",) * 8 + ("OCCLUDED_MOUTH",) * 2


@pytest.fixture
def identity() -> FaceIdentity:
    """The mean person with a red texture."""
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[..., 0] = 200
    return replace(person(), texture=texture, landmark_error=0.1, photometric_error=1.0)


def tracked(expression: float, yaw_degrees: float) -> TrackedPicture:
    model = default_model()
    coefficients = np.zeros(model.num_expression, np.float32)
    coefficients[0] = expression
    shape = model.shape(np.zeros(model.num_identity, np.float32), coefficients)
    turn = np.asarray(matrix_from_euler(np.array([0.0, np.radians(yaw_degrees), 0.1])))
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[:468] = to_frame(shape, HeadPose(0.8, turn, np.array([150.0, 170.0, 0.0])))
    return TrackedPicture(np.full((320, 300, 3), 90, np.uint8), landmarks)


def test_row_shows_mesh_and_faces(identity: FaceIdentity) -> None:
    """A frame has a row with the mesh and the drawn faces."""
    sheet = fitting_sheet(identity, [tracked(0.0, 0.0), tracked(3.0, 20.0)])
    assert sheet is not None
    assert sheet.shape == (2 * 256, len(COLUMNS) * 256, 3)
    for row in np.split(sheet, 2):
        crop, mesh, plain, detailed, alone = np.split(row, len(COLUMNS), axis=1)
        assert (crop == 90).all()
        green = (mesh[..., 1].astype(int) - mesh[..., 0]) > 60
        assert 0.02 < green.mean() < 0.5
        assert (plain != crop).any(axis=2).mean() > 0.2
        red = (detailed[..., 0] > 60) & (detailed[..., 1] < 10)
        assert 0.2 < red.mean() < 0.8
        assert (alone[~red] == 0).all()


def test_the_mesh_follows_expression_and_pose(identity: FaceIdentity) -> None:
    still, same, open_mouth = (
        fitting_sheet(identity, [frame]) for frame in (tracked(0.0, 0.0), tracked(0.0, 0.0), tracked(6.0, 0.0))
    )
    assert still is not None
    assert open_mouth is not None
    np.testing.assert_array_equal(still, same)
    assert (still != open_mouth).any(axis=2).mean() > 0.02


def test_no_sheet_without_frames(identity: FaceIdentity) -> None:
    """There is no sheet without frames or for another model."""
    assert fitting_sheet(identity, []) is None
    assert fitting_sheet(replace(identity, model="bfm"), [tracked(0.0, 0.0)]) is None


def mouths(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (80, 104, 3)).astype(np.uint8)


def report() -> DubReport:
    opening = 6 + 5 * np.sin(np.arange(50) * 0.7).astype(np.float32)
    tracked = opening.copy()
    tracked[30:40] = np.nan
    return DubReport(
        title="interview <1>.mp4",
        input=(Fact("codec", "h264"), Fact("size", "1280 x 720")),
        output=(Fact("codec", "ffv1"),),
        consent="no consent on record",
        has_consent=False,
        method="dubstage",
        synthetic="The mouth in this video is synthetic",
        reasons=REASONS,
        frame_rate=RATE,
        mask_area_share=np.where(np.array(REASONS) == "DUBBED", 0.0312, 0.0).astype(np.float32),
        lag_frames=-1,
        times=StageTimes(
            stages=(StageTime("track", 0.6, 0.5, 50), StageTime("render", 1.234, 1.1, 38)),
            frames=50,
            end_to_end_s=2.5,
            personalize_s=41.75,
            cpu_s=4.0,
        ),
        pairs=(BeforeAfter("frame 3, 0.12 s", mouths(1), mouths(2)), BeforeAfter("frame 9, 0.36 s", mouths(3), mouths(4))),
        commanded_opening=opening,
        tracked_opening=tracked,
        frames=tuple((f"frame {n}", mouths(n)) for n in range(6)),
        fitting=np.zeros((256, 1280, 3), np.uint8),
        head_motion={"video": np.cumsum(np.full((50, 6), 0.01), axis=0), "predicted": np.zeros((50, 6))},
        motion=MotionMetrics(0.05, 0.83, 0.53, 1.41, 31.6, float("nan")),
        appearance=AppearanceMetrics(0.03, 0.0, -0.02, 1.08, 0.91, 1.2, float("nan"), 1.4, 0.17),
        warnings=("the speech is longer than the footage (2.00 s): it is cut there",),
    )


def write_report(written: DubReport, folder: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write a report with pictures as its side-by-side video."""
    with report_folder(folder) as partial:
        write_side_by_side(partial / SIDE_BY_SIDE, SideBySide(pictures, RATE, np.zeros(32_000, np.float32)))
        write_page(written, partial)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report. No test changes the folder."""
    folder = tmp_path_factory.mktemp("dub") / "report"
    left = np.full((64, 64, 3), 200, np.uint8)
    write_report(report(), folder, [beside(left, left // 2)] * 50)
    return folder


def test_page_shows_given_figures(written: Path) -> None:
    """The page holds the figures that it was given."""
    text = (written / "index.html").read_text()
    for shown in (
        "interview &lt;1&gt;.mp4",
        "no consent on record",
        "38 / 50",
        "20.0</b><span>frames per second: 50 frames in 2.5 s, learning the person not counted",
        "44.2 s</b><span>for the whole run: 41.8 s to learn the person, 2.5 s to dub",
        "spread of the lip width over the person&#39;s own (1 is the person&#39;s own)</td><td>0.53 <b ",
        '<b class="bad">below the usual range</b>',
        "ms by which the mouth is later than real people&#39;s at open vowels (0 is on time)</td><td>32</td>",
        "ms by which the lips are later than real people&#39;s at p, b, m (0 is on time)</td><td>–</td>",
        '<td class="soft">0.68 to 1.47</td>',
        '<td>1.08</td><td class="soft">at most 1.27</td>',
        "Look at the mouths before you use the video",
        "teeth have another colour than the person&#39;s own (0)</td><td>0.03</td>",
        "clothing beside the jaw moves (0)</td><td>–</td>",
        "3.12 %",
        "NO_FACE <b>10</b>",
        "r = 1.000",
        "32.47",  # ms a frame of render
        "it is cut there",
        "1280 x 720",
        "frame 5",
        "Motion of the head",
        "low-frequency albedo",
    ):
        assert shown in text, shown
    for name in (
        "mouths.jpg",
        "opening.svg",
        "side_by_side.mp4",
        "report.json",
        "frames.jpg",
        "fitting.jpg",
        "head_motion.svg",
    ):
        assert (written / name).stat().st_size > 100, name


def test_page_with_strange_names(tmp_path: Path) -> None:
    """A page of names with any bytes is written."""
    name = b"caf\xe9 [x]\n.mp4".decode("utf-8", "surrogateescape")
    named = replace(report(), title=name, input=(Fact("file", name),), warnings=(name,), head_motion=None)
    write_page(named, tmp_path)
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count(r"caf\udce9 [x]") == 4
    assert json.loads((tmp_path / "report.json").read_text())["title"] == name


def test_failed_report_keeps_older(written: Path, tmp_path: Path) -> None:
    """A report that fails leaves the older one as it was."""
    older = shutil.copytree(written, tmp_path / "report")
    before = {file.name: file.read_bytes() for file in older.iterdir()}

    def break_off() -> Iterator[np.ndarray]:
        yield np.zeros((64, 64, 3), np.uint8)
        raise OSError(5, "Input/output error")

    for folder in (older, tmp_path / "new"):
        with pytest.raises(InvalidRequestError, match=r"cannot be written: Input/output error"):
            write_report(replace(report(), head_motion=None), folder, break_off())
    assert {file.name: file.read_bytes() for file in older.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_frames_stand_in_rows_of_four(written: Path) -> None:
    with av.open(str(written / "frames.jpg")) as picture:
        (frame,) = picture.decode(video=0)
    assert (frame.width, frame.height) == (4 * 104 + 3 * 4, 2 * 80 + 4)


def test_head_motion_plot(written: Path) -> None:
    """The head motion is plotted in degrees with a panel an angle."""
    text = (written / "head_motion.svg").read_text()
    for shown in ("pitch, degrees", "yaw, degrees", "roll, degrees", "predicted", "seconds"):
        assert shown in text
    assert ">20<" in text, "fifty steps of .01 rad are 28.6 degrees"


def test_the_page_refers_to_nothing_outside_its_folder(written: Path) -> None:
    text = (written / "index.html").read_text()
    assert "http" not in text
    assert str(written.parent) not in text


def test_the_json_beside_the_page_has_the_times(written: Path) -> None:
    document = json.loads((written / "report.json").read_text())
    assert f"r = {document['r_opening']:.3f} between" in (written / "index.html").read_text()
    assert document["times"]["frames_per_second"] == pytest.approx(20.0)
    assert document["times"]["total_s"] == pytest.approx(44.25)
    assert document["times"]["stages"][1] == {"name": "render", "wall_s": 1.234, "cpu_s": 1.1, "frames": 38}
    assert document["reasons"] == {"DUBBED": 38, "NO_FACE": 10, "OCCLUDED_MOUTH": 2}
    assert document["mask_area_share"] == pytest.approx(0.0312)


def test_undubbed_video_makes_page(tmp_path: Path) -> None:
    """A video without any dubbed frame makes a page too."""
    bare = DubReport(
        title="landscape.mp4",
        input=(),
        output=(),
        consent="consent of A. Person",
        has_consent=True,
        method="dubstage",
        synthetic="No mouth in this video is synthetic",
        reasons=("NO_FACE",) * 5,
        frame_rate=Fraction(30000, 1001),
        mask_area_share=np.zeros(5, np.float32),
        lag_frames=None,
        times=StageTimes((), 5, 0.0),
        undubbed="none of the 5 frames is dubbed",
    )
    write_page(bare, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert "0 / 5" in text
    assert "No mouth in this video is synthetic" in text
    assert "<h2>This video is not dubbed</h2>\n  <p>none of the 5 frames is dubbed</p>" in text
    document = json.loads((tmp_path / "report.json").read_text())
    assert (document["undubbed"], document["r_opening"]) == ("none of the 5 frames is dubbed", None)
    assert "<img" not in text
    assert mean_mask_share(bare) == 0.0


def test_spans_cover_the_video_without_gaps() -> None:
    spans = spans_of(REASONS, RATE)
    assert [(span.reason, span.start, span.stop) for span in spans] == [
        ("DUBBED", 0, 30),
        ("NO_FACE", 30, 40),
        ("DUBBED", 40, 48),
        ("OCCLUDED_MOUTH", 48, 50),
    ]
    assert sum(span.width_percent for span in spans) == pytest.approx(100.0)
    assert spans[1].start_s == pytest.approx(1.2)
    assert [count.reason for count in counts_of(REASONS)] == ["DUBBED", "NO_FACE", "OCCLUDED_MOUTH"]
    assert spans_of((), RATE) == ()


def test_side_by_side_video(tmp_path: Path) -> None:
    """The side by side video keeps frames rate and sound."""
    tone = np.sin(np.arange(16_000) * 0.1).astype(np.float32)
    rate = Fraction(30000, 1001)
    written = write_side_by_side(tmp_path / "v.mp4", SideBySide([mouths(n) for n in range(15)], rate, tone))
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert written == 15
        assert len(list(container.decode(video=0))) == 15
        assert container.streams.video[0].average_rate == rate
        assert container.streams.audio[0].rate == 16_000
    assert write_side_by_side(tmp_path / "none.mp4", SideBySide([], rate)) == 0
    assert not (tmp_path / "none.mp4").exists()


def test_the_stage_clock_adds_up_calls_by_stage() -> None:
    clock = StageClock()
    clock.add("track", wall_s=0.5, cpu_s=0.25, frames=10)
    clock.add("track", wall_s=0.5, cpu_s=0.25, frames=15)
    with clock.measure("render", frames=4):
        sum(range(1000))
    track, render = clock.stages()
    assert (track.ms_per_frame, track.frames_per_second, track.cpu_s) == (40.0, 25.0, 0.5)
    assert render.frames == 4
    assert render.wall_s > 0.0
