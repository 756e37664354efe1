"""Tests of scenes: three people beside each other, with lines of different people that overlap."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import rpcs
from gateway.actors.store import ActorStore
from gateway.batch.changes import revise
from gateway.batch.in_process import run_in_process
from gateway.batch.types import ShotRecord, ShotState
from gateway.batch.worker import WorkerContext
from gateway.consent.record import Consent, embedding_text
from gateway.dub.analyse.face_boxes import FrameBox
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.request.dub_request import DubLine, DubRequest
from gateway.dub.sound.timecode import parse_time
from gateway.dub.state.journal import Journal
from gateway.dub.state.workspace import JOURNAL, Workspace
from gateway.media.inspection import inspect_video
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from services.common.errors import ConsentOtherSubjectError, InvalidRequestError
from services.common.methods import method_named
from services.common.store.artefacts import ArtefactStore
from services.common.texts import Field
from tests.batches import open_store
from tests.refusals import raised
from tests.system.dubbing import (
    SPEECH,
    UNPERSONALIZED,
    Counted,
    Dubber,
    PersonClip,
    cut,
    decoded,
    enrol,
    joined,
    side_by_side,
    write_wav,
)
from tests.unit.batch.rows import read_manifest
from tests.unit.consent.records import record

SIDE = 288
SECONDS = 1.6
LINE_S = 0.8
"""Length of each speech: 20 frames."""
Spoken = tuple[str, Path, FaceChoice]
"""Start, speech and face of a line."""
FRAMES = (range(5, 25), range(13, 33), range(20, 40))
CUT = 20
"""First frame in which the people of `cut_video` stand elsewhere."""
PLACES = ([0, 1, 2], [2, 0, 1])
"""Person in each place, before and after the cut."""


@dataclass(frozen=True)
class Scenes:
    """Scenes of one footage of three people. Each has the face ids 0 to 2, in any order of places."""

    footage: Path
    speeches: Sequence[Path]
    dubber: Dubber
    jobs: Path
    """Folder of the job that all scenes of the footage share, so that the people are tracked and enrolled once."""

    def run(self, request: DubRequest) -> DubOutcome:
        """Dub. The job's folder stays: jobs of this footage have blobs in common, which `discard` would remove for all."""
        job = DubJob(request, self.dubber.host.stages, self.dubber.store, self.jobs)
        return self.dubber.host.run(job.run(lambda *_: None))

    def elsewhere(self, folder: Path) -> Scenes:
        """The same scenes with another job, which takes nothing from the shared job's journal."""
        return replace(self, jobs=folder / "jobs")

    def dub(self, output: Path, *lines: Spoken, consent: Consent | None = None) -> DubOutcome:
        """Dub lines.

        Args:
            consent: record of the person of each line.
        """
        request = self.request(output, *lines)
        request = replace(request, lines=tuple(replace(line, dub=replace(line.dub, consent=consent)) for line in request.lines))
        return self.run(request)

    def request(self, output: Path, *lines: Spoken) -> DubRequest:
        scene = DubRequest(footage=self.footage, speech=None, output=output, method="dubstage", codec="ffv1", enrol=UNPERSONALIZED)
        return replace(
            scene,
            lines=tuple(
                DubLine(name=Field(f"lines[{number}]"), start=parse_time(start), dub=replace(scene, speech=speech, face=face))
                for number, (start, speech, face) in enumerate(lines)
            ),
        )

    def changed(self, output: Path) -> npt.NDArray[np.bool_]:
        """The frames of each place that differ from the footage, bool [3, T]."""
        return differences(self.footage, output)


def differences(one: Path, other: Path) -> npt.NDArray[np.bool_]:
    """The frames of each place that differ between two videos, bool [3, T]."""
    found = []
    for before, after in zip(decoded(one), decoded(other), strict=True):
        thirds = [(np.array_split(old, 3, axis=1), np.array_split(new, 3, axis=1)) for old, new in zip(before, after, strict=True)]
        found.append([any(not np.array_equal(old[place], new[place]) for old, new in thirds) for place in range(3)])
    return np.array(found).T


def face(number: int) -> FaceChoice:
    return FaceChoice("id", face_id=number)


@pytest.fixture(scope="module")
def scenes(clips: Any, dubber: Dubber, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Speeches that begin at different places of the demo's speech."""
    folder = tmp_path_factory.mktemp("scene")
    people = [PersonClip(clips.path(name)) for name in ("people/dev_4.mp4", "video/hp_31.mp4", "people/dev_6.mp4")]
    samples = np.concatenate([chunk.samples for chunk in SoundReader(SPEECH)])
    rate = SoundReader(SPEECH).info.sample_rate_hz
    speeches = [
        write_wav(folder / f"{number}.wav", samples[round(begin * rate) : round((begin + LINE_S) * rate)].astype(np.float64), rate)
        for number, begin in enumerate((0.3, 1.0, 1.6, 2.2))
    ]
    footage = side_by_side(people, folder / "three.mkv", SECONDS, voices=[0, 1, 2], side=SIDE)
    return Scenes(footage, speeches, dubber, folder / "jobs")


@pytest.fixture(scope="module")
def lines(scenes: Scenes) -> list[Spoken]:
    """Each line overlaps the next one."""
    first, second, third, _ = scenes.speeches
    return [("0.2", first, face(0)), ("0.52", second, face(1)), ("00:00:00:20", third, face(2))]


@pytest.fixture(scope="module")
def kept(scenes: Scenes, lines: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> tuple[DubOutcome, Path]:
    """The scene of the lines, in a job of its own: the journal of a scene holds what the last call used."""
    output = tmp_path_factory.mktemp("kept") / "scene.mkv"
    return scenes.elsewhere(output.parent).dub(output, *lines), output


def places(scenes: Scenes, output: Path) -> dict[int, int]:
    """The place of each dubbed line by its first frame."""
    changed = scenes.changed(output)
    return {int(np.flatnonzero(changed[place])[0]): place for place in range(3) if changed[place].any()}


def test_every_line_dubs_its_own_frames(scenes: Scenes, kept: tuple[DubOutcome, Path]) -> None:
    """Every place of the picture changes in the frames of one line, and nowhere else."""
    outcome, output = kept
    assert [part.frames for part in outcome.parts] == list(FRAMES)
    assert [part.num_dubbed for part in outcome.parts] == [20, 20, 20]
    changed = scenes.changed(output)
    assert sorted(np.flatnonzero(place).tolist() for place in changed) == [list(frames) for frames in FRAMES]
    assert outcome.plan.counts()["NO_LINE"] == 5
    assert outcome.windows_computed == 5


def test_mouth_equals_its_single_dub(scenes: Scenes, lines: list[Spoken], kept: tuple[DubOutcome, Path], tmp_path: Path) -> None:
    """The person whose line overlaps both others looks as in a dub of that line only, in which the others keep every sample."""
    _, output = kept
    own = places(scenes, output)[FRAMES[1].start]
    single = tmp_path / "single.mkv"
    assert scenes.elsewhere(tmp_path).dub(single, lines[1]).windows_reused == 0
    assert not differences(output, single)[own].any()
    assert not np.delete(scenes.changed(single), own, axis=0).any()


@pytest.mark.long
def test_whole_line_equals_plain_dub(scenes: Scenes, tmp_path: Path) -> None:
    """A line as long as the footage gives the bytes of a dub without lines."""
    plain, scene = tmp_path / "plain.mkv", tmp_path / "scene.mkv"
    scenes.run(replace(scenes.request(plain), speech=SPEECH, face=face(1)))
    outcome = scenes.dub(scene, ("0", SPEECH, face(1)))
    assert outcome.warnings[0].startswith("lines[0]: the speech is longer than the rest of the footage")
    assert outcome.plan.rendered().all()
    assert not differences(plain, scene).any()


def test_changed_line_alone_is_rendered(scenes: Scenes, lines: list[Spoken], kept: tuple[DubOutcome, Path], tmp_path: Path) -> None:
    """A second call with one line changed takes the windows of the other lines from the journal."""
    _, output = kept
    again = tmp_path / "again.mkv"
    start, _, who = lines[2]
    outcome = scenes.elsewhere(output.parent).dub(again, *lines[:2], (start, scenes.speeches[3], who))
    assert (outcome.windows_computed, outcome.windows_reused) == (2, 3)
    changed = differences(output, again)
    own = places(scenes, output)[FRAMES[2].start]
    assert not np.delete(changed, own, axis=0).any()
    assert set(np.flatnonzero(changed[own]).tolist()) <= set(FRAMES[2])
    assert changed[own].sum() > 13


def test_sound_of_lines_replaces_footage(scenes: Scenes, kept: tuple[DubOutcome, Path]) -> None:
    """Before the first line the footage is heard, then the lines."""
    _, output = kept
    own, new = (
        np.concatenate([chunk.samples for chunk in SoundReader(path, origin=probe(path).video.start)])[:, 0]
        for path in (scenes.footage, output)
    )
    first = round(0.2 * 16000)
    assert len(new) == len(own)
    assert np.corrcoef(own[: first - 200], new[: first - 200])[0, 1] > 0.95
    assert abs(np.corrcoef(own[first + 400 : 4 * first], new[first + 400 : 4 * first])[0, 1]) < 0.3


def test_lines_of_one_face_may_not_overlap(scenes: Scenes, lines: list[Spoken], tmp_path: Path) -> None:
    start, speech, _ = lines[1]
    with raised(InvalidRequestError, match=r"^lines\[0\] and lines\[1\] overlap, and both are of face 0: ", field="lines"):
        scenes.dub(tmp_path / "never.mkv", lines[0], (start, speech, face(0)))
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_actor_is_measured_once(scenes: Scenes, clips: Any, settings: GatewaySettings, tmp_path: Path) -> None:
    """Lines that name their face by one actor measure the actor's face once, beside the tracking of the footage."""
    host, store = scenes.dubber.host, ArtefactStore(settings.artefacts_url)
    own = settings.model_copy(update={"data_dir": tmp_path / "data"})
    with ActorStore(own) as actors:
        person = enrol(host, own, actors, "ann", cut(clips.path("people/dev_4.mp4"), tmp_path / "ann.mkv", 0.0, 1.6))
    spoken = [(start, scenes.speeches[0], FaceChoice("actor")) for start in ("0", "0.8")]
    request = scenes.request(tmp_path / "ann-speaks.mkv", *spoken)
    lines = tuple(replace(line, dub=replace(line.dub, actor=person.enrolled, actor_record=person.record)) for line in request.lines)
    stages = Counted(host.stages)
    outcome = host.run(DubJob(replace(request, lines=lines), stages, store, tmp_path / "jobs").run(lambda *_: None))
    assert [part.num_dubbed for part in outcome.parts] == [20, 20]
    assert len({part.face_id for part in outcome.parts}) == 1
    assert stages.calls[rpcs.face.TRACK.path] == 2


@pytest.mark.long
def test_command_takes_a_file_of_lines(scenes, forked_dubstage, tmp_path) -> None:
    """The speaker of a line is who speaks in its frames. Mistakes name the file, the line and the field."""
    file = tmp_path / "lines.json"
    rows: list[dict[str, Any]] = [{"start": 0.1, "speech": str(scenes.speeches[0]), "face": "speaker"}]
    file.write_text(json.dumps([*rows, {"start": 99, "speech": str(scenes.speeches[1]), "face": 1}]))
    output = tmp_path / "out.mkv"
    wrong = forked_dubstage("dub", scenes.footage, "--lines", file, "-o", output, "--no-personalize")
    assert wrong.returncode == 10
    assert f"{file}: line 2: 99.000 s is after the end of the video" in wrong.stderr
    file.write_text(json.dumps(rows))
    report = tmp_path / "report"
    options = ("--lines", file, "-o", output, "--no-personalize", "--codec", "ffv1", "--report", report)
    done = forked_dubstage("dub", scenes.footage, *options)
    assert done.returncode == 0, done.stderr
    assert "line 1: face " in done.stderr
    assert "20 of 20 frames dubbed, from frame 2 on" in done.stderr
    changed = scenes.changed(output)
    assert changed.any(axis=1).sum() == 1
    assert np.flatnonzero(changed.any(axis=0)).tolist() == list(range(2, 22))
    (shown,) = json.loads((report / "report.json").read_text())["lines"]
    assert shown["name"] == "line 1"
    assert shown["frames"] == "2 to 21, 20 dubbed"
    assert sum(shown["reasons"].values()) == 20
    assert shown["r_opening"] > 0.3
    assert shown["motion"]["fastest_step"] > 0
    assert shown["appearance"]["face_distance"] < 0.43
    page = (report / "index.html").read_text()
    assert all((report / name).is_file() and name in page for name in ("line_1_opening.svg", "line_1_mouths.jpg"))
    plan = forked_dubstage("plan", scenes.footage, "--lines", file, "--json", "--no-personalize")
    assert json.loads(plan.stdout)["numRendered"] == "20"


@pytest.fixture(scope="module")
def cut_video(scenes: Scenes, clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Three people, who change places at a cut."""
    folder = tmp_path_factory.mktemp("cut")
    people = [clips.path(name) for name in ("people/dev_4.mp4", "video/hp_31.mp4", "people/dev_6.mp4")]
    parts = []
    for begin_s, order in zip((0.0, CUT / 25), PLACES, strict=True):
        shown = [PersonClip(people[person], begin_s) for person in order]
        parts.append(side_by_side(shown, folder / f"{begin_s}.mkv", CUT / 25, voices=[0], side=SIDE))
    return replace(scenes, footage=joined(parts, folder / "video.mkv"), jobs=folder / "jobs")


def frames_of(person: int) -> npt.NDArray[np.bool_]:
    """Where a person is in `cut_video`, bool [3, T]."""
    found = np.zeros((3, 2 * CUT), bool)
    for shot, order in enumerate(PLACES):
        found[order.index(person), shot * CUT : (shot + 1) * CUT] = True
    return found


def test_no_wrong_person_after_a_cut(cut_video: Scenes, tmp_path: Path) -> None:
    """The line follows its person over a cut, or passes through."""
    outcome = cut_video.dub(tmp_path / "out.mkv", ("0.4", cut_video.speeches[0], FaceChoice("largest")))
    changed = cut_video.changed(tmp_path / "out.mkv")
    (place,) = np.flatnonzero(changed[:, :CUT].any(axis=1))
    assert np.flatnonzero(changed[place, :CUT]).tolist() == list(range(10, CUT))
    assert not changed[~frames_of(PLACES[0][place])].any()
    assert changed[:, CUT:].sum() == outcome.parts[0].num_dubbed - 10


@pytest.mark.long
def test_overlapping_lines_over_a_cut(cut_video: Scenes, tmp_path: Path) -> None:
    """A mouth is that of its single dub before and after the cut, and the third face keeps every sample."""
    lines = [(start, cut_video.speeches[number], face(number)) for number, start in enumerate(("0.2", "0.44"))]
    output, single = tmp_path / "out.mkv", tmp_path / "single.mkv"
    outcome = cut_video.dub(output, *lines)
    changed = cut_video.changed(output)
    where = places(cut_video, output)
    people = [PLACES[0][where[begin]] for begin in (5, 11)]
    for part, person in zip(outcome.parts, people, strict=True):
        assert changed[frames_of(person)].sum() == part.num_dubbed > 15
    (unnamed,) = {0, 1, 2} - set(people)
    assert not changed[frames_of(unnamed)].any()

    assert cut_video.elsewhere(tmp_path).dub(single, lines[1]).windows_reused == 0
    own = frames_of(people[1])
    assert not differences(output, single)[own].any()
    assert not cut_video.changed(single)[~own].any()


@pytest.fixture(scope="module")
def tracked(cut_video: Scenes, tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    """Faces of `cut_video`."""

    async def track() -> FaceIndex:
        with Workspace(tmp_path_factory.mktemp("tracked") / "job") as workspace:
            info = inspect_video(cut_video.footage)
            stages = cut_video.dubber.host.stages
            analysis = await FootageAnalysis.open(stages, method_named("dubstage"), info, workspace, threads=2)
            return await analysis.track(lambda _: None, embed=True)

    return cut_video.dubber.host.run(track())


def box_in(index: FaceIndex, frame: int, place: int) -> FrameBox:
    """The box of the face in a place of `cut_video`, a tenth larger and a tenth too far right."""
    (row,) = np.flatnonzero((index.frame == frame) & (index.centre[:, 0] // SIDE == place))
    width, height = index.size[row] * 1.1
    left, top = index.centre[row] - index.size[row] * (0.45, 0.55)
    return FrameBox(frame, float(left), float(top), float(width), float(height))


@pytest.mark.long
def test_boxes_follow_over_a_cut(cut_video: Scenes, tracked: FaceIndex, tmp_path: Path) -> None:
    """One box a shot for each of three people, whose lines have different frames, and no frame with a wrong person."""
    begins, lines = (10, 7, 13), list[Spoken]()
    for person, begin in enumerate(begins):
        boxes = tuple(box_in(tracked, frame, order.index(person)) for frame, order in zip((0, CUT), PLACES, strict=True))
        lines.append((f"{begin / 25}", cut_video.speeches[person], FaceChoice("boxes", boxes=boxes)))
    outcome = cut_video.dub(tmp_path / "out.mkv", *lines)
    changed = cut_video.changed(tmp_path / "out.mkv")
    for person, (begin, part) in enumerate(zip(begins, outcome.parts, strict=True)):
        dubbed = np.flatnonzero((changed & frames_of(person)).any(axis=0))
        assert set(dubbed.tolist()) <= set(range(begin, begin + 20))
        assert (dubbed < CUT).sum() >= CUT - begin - 2
        assert (dubbed >= CUT).sum() >= begin + 20 - CUT - 2
        assert len(dubbed) == part.num_dubbed


@pytest.mark.long
def test_consent_holds_for_all_boxes(cut_video: Scenes, tracked: FaceIndex, tmp_path: Path) -> None:
    """From a box that no face overlaps on, frames keep every sample. Boxes that go on to another person after a cut are refused,
    though most frames show the person of the record.
    """
    own, after, other = (
        box_in(tracked, frame, order.index(person))
        for frame, order, person in ((0, PLACES[0], 0), (CUT, PLACES[1], 0), (CUT, PLACES[1], 1))
    )
    (row,) = np.flatnonzero((tracked.frame == 0) & (tracked.centre[:, 0] // SIDE == 0))
    face = tracked.embeddings[int(tracked.face_id[row])]
    consent = record(face={"network": face.network, "embedding": embedding_text(face.vector)})

    def dubbed(*boxes: FrameBox) -> DubOutcome:
        line = ("0.6", cut_video.speeches[0], FaceChoice("boxes", boxes=boxes))
        return cut_video.dub(tmp_path / "out.mkv", line, consent=consent)

    outcome = dubbed(own, after, FrameBox(30, 0.0, 0.0, 20.0, 20.0))
    changed = cut_video.changed(tmp_path / "out.mkv")
    assert np.flatnonzero(changed.any(axis=0)).tolist() == list(range(15, 30))
    assert not changed[~frames_of(0)].any()
    assert outcome.plan.counts()["TARGET_NOT_PRESENT"] == 5
    with pytest.raises(ConsentOtherSubjectError):
        dubbed(own, other)


def test_boxes_of_one_face_may_not_overlap(cut_video: Scenes, tracked: FaceIndex, tmp_path: Path) -> None:
    boxes = tuple(box_in(tracked, frame, place) for frame, place in ((0, 0), (CUT, 0)))
    lines = [(start, cut_video.speeches[0], FaceChoice("boxes", boxes=boxes)) for start in ("0.2", "0.6")]
    with pytest.raises(InvalidRequestError, match=r"^lines\[0\] and lines\[1\] overlap, and both are of one face in frame 15"):
        cut_video.dub(tmp_path / "never.mkv", *lines)
    outside = FaceChoice("boxes", boxes=(FrameBox(0, 900.0, 0.0, 20.0, 20.0),))
    told = r"^lines\[0\]: boxes\[0\]: the box .* lies outside of the picture of 864x288 pixels"
    with pytest.raises(InvalidRequestError, match=told):
        cut_video.dub(tmp_path / "never.mkv", ("0.2", cut_video.speeches[0], outside))


@pytest.mark.long
@pytest.mark.parametrize("worker_context", [{"watermark": False}], indirect=True)
async def test_batch_dubs_a_scene(scenes: Scenes, worker_context: WorkerContext, tmp_path: Path) -> None:
    """A worker dubs the frames of the lines. With one line changed in the file of lines, the row renders that line only.

    test_scenes_are_rows in tests/integration/test_batches.py holds the same of one person, and that other rows stay.
    """
    file, manifest = tmp_path / "lines.json", tmp_path / "night.jsonl"
    store = open_store(tmp_path / "data")
    rows: list[dict[str, Any]] = [
        {"start": start, "speech": str(scenes.speeches[place]), "face": place} for place, start in enumerate((0.2, 0.52, 0.8))
    ]
    shot = {"id": "scene", "footage": str(scenes.footage), "output": "scene.mkv", "lines": "lines.json"}
    manifest.write_text(json.dumps({"codec": "ffv1", "personalize": False, **shot}) + "\n")

    async def run() -> tuple[ShotRecord, int]:
        found = read_manifest(manifest)
        if not revise(store, found, "local"):
            store.create(found, "local")
        idle = nullcontext(lambda *_: None)
        options = {"slots": idle, "workers": 1, "confirm": lambda: None, "check_videos": True, "pause_s": 0.0}
        await run_in_process(worker_context, store, "night", **options)
        (folder,) = worker_context.engine.jobs.iterdir()
        (record,) = store.records("night")
        return record, len(list(Journal(folder / JOURNAL, worker_context.installation.artefacts).refs()))

    file.write_text(json.dumps(rows))
    before, windows = await run()
    assert before.state is ShotState.DONE, before
    assert before.frames_dubbed == 35
    assert before.r_opening is not None
    assert before.motion is not None
    own_frames = sorted(np.flatnonzero(place).tolist() for place in scenes.changed(tmp_path / "scene.mkv"))
    assert own_frames == [list(frames) for frames in FRAMES]
    plain = tmp_path / "plain.mkv"
    plain.write_bytes((tmp_path / "scene.mkv").read_bytes())

    rows[2]["speech"] = str(scenes.speeches[3])
    file.write_text(json.dumps(rows))
    after, more = await run()
    assert after.state is ShotState.DONE, after
    assert more - windows == 3, "two windows, and the motion of the line"
    changed = differences(plain, tmp_path / "scene.mkv")
    assert sorted(changed.sum(axis=1).tolist())[:2] == [0, 0]
    assert set(np.flatnonzero(changed.any(axis=0)).tolist()) <= set(FRAMES[2])
