"""Tests of the choice of the speaker among two people, and of the lag of the sound."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from gateway.actors.store import ActorStore
from gateway.dub.analyse.face_choice import AUTOMATIC, ChosenFace, FaceChoice, parse_face
from gateway.dub.analyse.motion_clip import MotionClip, SoundLag, clip_of, credible_lag, enrolment_rows, measured_lag
from gateway.dub.learn import analysis as analysis_module
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.learn.slow_expression import own_motion
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.sound.speech import extract_features
from gateway.dub.state.records import FEATURE_RECORD, RecordFile
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from research.stage_host import StageHost
from services.common.array_types import Array, Float32
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import bank_from_arrays
from services.common.methods import LAG_FEATURES, method_named
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import ref_from_proto
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, decoded, enrol, first_seconds

Run = Callable[..., subprocess.CompletedProcess[str]]
TWO_FACES = "derived/d06_two_faces_left_speaks.mp4"


def test_speaker_dubbed_listener_unchanged(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The speaker is dubbed, and the listener keeps every sample."""
    footage, output = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 2.4), tmp_path / "dub.mp4"
    who = FaceChoice("speaker")
    request = DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", face=who, codec="ffv1")
    dub = dubber.with_faces(request)
    centre = {int(face["face_id"]): face["box"][0] + face["box"][2] / 2 for face in dub.faces}
    assert len(centre) == 2
    assert dub.outcome.parts[0].face_id == min(centre, key=lambda face: centre[face])
    assert dub.outcome.plan.rendered().mean() > 0.98
    assert abs(dub.outcome.actor.lag_frames or 0) <= 2
    assert not [warning for warning in dub.outcome.warnings if "face" in warning or "voice" in warning]

    changed = 0
    for before, after in zip(decoded(footage), decoded(output), strict=True):
        for old, new in zip(before, after, strict=True):
            half = old.shape[1] // 2
            np.testing.assert_array_equal(old[:, half:], new[:, half:])
        changed += int(not np.array_equal(before[0], after[0]))
    assert changed > 40


@pytest.mark.long
def test_listener_learns_nothing_from_speaker(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 2.4)
    output, who = tmp_path / "dub.mp4", FaceChoice("largest")
    dub = dubber.with_faces(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", face=who))
    centre = {int(face["face_id"]): face["box"][0] + face["box"][2] / 2 for face in dub.faces}
    listener, speaker = max(centre, key=lambda face: centre[face]), min(centre, key=lambda face: centre[face])
    outcome = dub.outcome
    assert outcome.parts[0].face_id == listener
    assert outcome.actor.lag_frames is None
    assert outcome.actor.lag_doubt.startswith(f"the mouth of face {speaker} fits the sound better")
    several, voice = (warning for warning in outcome.warnings if "face" in warning)
    assert f"face {listener} (at " in several
    assert "is taken: the largest of 2 faces. " in several
    assert outcome.actor.lag_doubt in voice


def test_person_seen_after_sound_ends(clips: Any, dubber: Dubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person is enrolled whose frames go on after the last second of sound that is read."""
    monkeypatch.setattr(analysis_module, "SOUND_SECONDS", 3)
    footage = first_seconds(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mp4", 5.0)

    async def enrolled() -> EnrolledActor:
        with Workspace(tmp_path / "job") as workspace:
            shot = await FootageAnalysis.open(dubber.host.stages, method_named("dubstage"), probe(footage), workspace, threads=2)
            await shot.track(lambda _: None)
            await shot.select(FaceChoice("largest"))
            return await shot.enrol(UNPERSONALIZED, lambda *_: None)

    actor = dubber.host.run(enrolled())
    assert actor.lag_frames is not None
    assert actor.speaking is not None
    assert actor.speaking.opening_range > 0.0


def faces_by_column(host: StageHost, footage: Path, folder: Path) -> tuple[list[int], ChosenFace]:
    """Return the faces of a video, the leftmost first, and the face that a dub without a choice takes."""

    async def chosen() -> tuple[list[int], ChosenFace]:
        with Workspace(folder) as workspace:
            shot = await FootageAnalysis.open(host.stages, method_named("dubstage"), probe(footage), workspace, threads=2)
            index = await shot.track(lambda _: None)
            await shot.select(AUTOMATIC)
            assert shot.chosen is not None
            return sorted(set(index.face_id.tolist()), key=lambda face: index.centre[index.face_id == face, 0].mean()), shot.chosen

    return host.run(chosen())


def with_sound(video: Path, sound: Path | None, target: Path) -> None:
    """Write the pictures of a video with a part of another sound, or without sound."""
    with av.open(str(video)) as pictures, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(pictures.streams.video[0])
        rate = soundfile.info(sound).samplerate if sound is not None else 0
        spoken = output.add_stream("aac", rate=rate) if sound is not None else None
        for packet in pictures.demux(pictures.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
        if sound is not None and isinstance(spoken, av.AudioStream):
            samples, frame_rate = soundfile.read(sound, dtype="float32", start=4 * rate, stop=int(6.4 * rate), always_2d=True)
            frame = av.AudioFrame.from_ndarray(samples.mean(axis=1)[None], format="fltp", layout="mono")
            frame.sample_rate = frame_rate
            output.mux(spoken.encode(frame))
            output.mux(spoken.encode(None))


@pytest.mark.long
def test_default_face_is_the_speaker(clips: Any, host: StageHost, tmp_path: Path, forked_dubstage: Run) -> None:
    """The command line and a batch row without a face take the speaker, though another face is larger, and say why."""
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 2.4)
    (speaker, listener), _ = faces_by_column(host, footage, tmp_path / "job")
    row = {"id": "a", "footage": "footage.mp4", "speech": str(SPEECH), "output": "row.mp4", "personalize": False}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    result = forked_dubstage("dub", footage, "--audio", SPEECH, "-o", tmp_path / "dub.mp4", "--no-personalize", COLUMNS="2000")
    assert result.returncode == 0, result.stderr
    batch = forked_dubstage("batch", "submit", tmp_path / "rows.jsonl", "--name", "night", COLUMNS="2000")
    assert batch.returncode == 0, batch.stderr
    shots = forked_dubstage("batch", "report", "night", tmp_path / "report", COLUMNS="2000")
    assert shots.returncode == 0, shots.stderr
    written = (tmp_path / "report" / "shots.json").read_text()
    for said in (result.stderr, written):
        assert f"the footage shows 2 faces, and face {speaker} (at " in said
        assert "is taken: the face that speaks: the mouth that fits the sound of the footage best" in said
        assert f"The others stay as they are: face {listener} (at " in said
        assert "Choose another face with " in said


@pytest.mark.long
def test_default_without_certain_speaker_is_the_largest(clips: Any, host: StageHost, tmp_path: Path) -> None:
    """The speaker is taken; if another person speaks, or nobody, the largest face is taken, and the reason says so."""
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 2.4)
    (left, _), chosen = faces_by_column(host, footage, tmp_path / "speaks")
    assert (chosen.face_id, chosen.speaks) == (left, True)
    assert chosen.why.startswith("the face that speaks: ")
    foreign, silent = tmp_path / "foreign.mp4", tmp_path / "silent.mp4"
    with_sound(footage, clips.path("speech/jfk_inaugural_1961.flac"), foreign)
    with_sound(footage, None, silent)
    for number, (file, why) in enumerate(((foreign, "the sound does not tell for certain who speaks"), (silent, "has no sound"))):
        (_, right), chosen = faces_by_column(host, file, tmp_path / str(number))
        assert (chosen.face_id, chosen.speaks) == (right, False)
        assert chosen.why.startswith("the largest of 2 faces; ")
        assert why in chosen.why


def test_face_point_selects_face(clips: Any, host: StageHost, tmp_path: Path) -> None:
    info = probe(first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 0.4))

    async def chosen() -> float:
        """Column of the centre of the chosen face in the first frame, pixels."""
        with Workspace(tmp_path / "job") as workspace:
            shot = await FootageAnalysis.open(host.stages, method_named("dubstage"), info, workspace, threads=2)
            index = await shot.track(lambda _: None)
            await shot.select(parse_face("960,320"))
            (row,) = np.flatnonzero((index.frame == 0) & (index.face_id == shot.chosen.face_id))
            return float(index.centre[row, 0])

    assert host.run(chosen()) > 640


def test_point_without_face_refused(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """A point without a face is refused and leaves no output."""
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 0.4)
    request = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="dubstage", face=parse_face("640,5"))
    with pytest.raises(InvalidRequestError, match="faces are at"):
        dubber(request)
    assert list(tmp_path.iterdir()) == [footage]


@pytest.fixture(scope="module")
def footages(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two videos of one person: in the second one, the sound is delayed by five frames."""
    folder = tmp_path_factory.mktemp("footages")
    names = ("video/vr_face2.mp4", "derived/d09_audio_late_200ms.mp4")
    return [first_seconds(clips.path(name), folder / f"{number}.mp4", 2.6) for number, name in enumerate(names)]


@pytest.fixture(scope="module")
def punctual_and_late(footages, host, settings, tmp_path_factory) -> list[EnrolledActor]:
    """The person, enrolled from each of the two videos."""
    folder = tmp_path_factory.mktemp("lags")
    own = settings.model_copy(update={"data_dir": folder / "data"})
    with ActorStore(own) as actors:
        return [enrol(host, own, actors, f"person-{number}", footage).enrolled for number, footage in enumerate(footages)]


@pytest.mark.long
def test_delayed_sound_reports_lag(punctual_and_late: list[EnrolledActor]) -> None:
    """Sound that was delayed by five frames is reported five frames later."""
    punctual, late = (actor.lag_frames for actor in punctual_and_late)
    assert punctual is not None
    assert late is not None
    assert abs(punctual) <= 1
    assert abs(late - punctual - 5) <= 1


@pytest.mark.long
def test_bank_holds_mouths_of_own_speech(punctual_and_late: list[EnrolledActor], settings: GatewaySettings) -> None:
    """Mouths that are predicted for the person's own speech open when the person's mouth does, whatever the lag of the sound."""
    store = ArtefactStore(settings.artefacts_url)
    for actor in punctual_and_late:
        bank = bank_from_arrays(store.get_arrays(ref_from_proto(actor.bank, "bank")))
        assert bank.spoken_mouth is not None
        check_open_together(mouth_opening(bank.spoken_mouth), mouth_opening(bank.mouth))


@pytest.mark.long
def test_own_motion_agrees_with_the_picture(footages, punctual_and_late, host, tmp_path) -> None:
    """Mouths that a whole video's own sound predicts open when the video's mouth does, whatever the lag of the sound."""

    async def openings(footage: Path, actor: EnrolledActor, workspace: Workspace) -> tuple[Float32, Float32]:
        analysis = await FootageAnalysis.open(host.stages, method_named("dubstage"), probe(footage), workspace, threads=2)
        await analysis.track(lambda _: None)
        await analysis.select(FaceChoice("largest"))
        async with own_motion(analysis, actor.style, lambda *_: None) as motion:
            predicted = mouth_opening(motion.read(0, motion.num_rows)["mouth"])
        return predicted, mouth_opening(workspace.faces.read_rows(analysis.rows.tolist())["mouth"])

    for number, (footage, actor) in enumerate(zip(footages, punctual_and_late, strict=True)):
        with Workspace(tmp_path / str(number)) as workspace:
            check_open_together(*host.run(openings(footage, actor, workspace)))


def check_open_together(predicted: Float32, tracked: Float32) -> None:
    agreements = {by: np.corrcoef(np.roll(predicted, by)[5:-5], tracked[5:-5])[0, 1] for by in range(-5, 6)}
    assert agreements[0] > 0.6
    assert max(agreements, key=lambda by: agreements[by]) in {-1, 0, 1}


@dataclass(frozen=True)
class Person:
    """Somebody who talks for five seconds: motion, and the features of the same frames of the own sound."""

    host: StageHost
    clip: MotionClip
    features: Array

    def lag(self, features: Array, frames: slice = slice(None)) -> SoundLag:
        """The lag of a sound against the mouth of some frames."""
        clip = replace(self.clip, mouth=self.clip.mouth[frames], usable=self.clip.usable[frames])
        return self.host.run(measured_lag(self.host.stages, clip, features))


@pytest.fixture(scope="module")
def person(clips: Any, host: StageHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    info = probe(clips.path("video/vr_face5.mp4"))

    async def learn(workspace: Workspace) -> Person:
        shot = await FootageAnalysis.open(host.stages, method_named("dubstage"), info, workspace, threads=2)
        await shot.track(lambda _: None)
        await shot.select(FaceChoice("largest"))
        clip, heard = clip_of(workspace.faces, enrolment_rows(shot.rows, shot.index.reason, shot.seconds), shot.seconds)
        return Person(host, clip, (await shot.extract_sound()).read_rows(heard))

    with Workspace(tmp_path_factory.mktemp("person") / "job") as workspace:
        yield host.run(learn(workspace))


def test_known_lags_are_found(person: Person) -> None:
    """Lags that were put into a video are found."""
    own, count = person.lag(person.features), len(person.features)
    assert own.frames is not None
    assert credible_lag(own, {}) is own
    for late in range(-8, 9):
        frames, sound = slice(max(0, late), count + min(0, late)), slice(max(0, -late), count + min(0, -late))
        found = person.lag(person.features[sound], frames)
        assert found.frames is not None
        assert abs(found.frames - own.frames - late) <= 1
        assert credible_lag(found, {}) is found


@pytest.mark.parametrize(
    "voice",
    ["speech/jfk_inaugural_1961.flac", "audio/st_bus_chinese.wav", pytest.param("audio/dh_audio0.wav", marks=pytest.mark.long)],
)
def test_other_voice_gives_no_lag(clips: Any, person: Person, tmp_path: Path, voice: str) -> None:
    """The lag of another person's voice is not applied."""
    count = len(person.features)
    with RecordFile(tmp_path / "voice.features", FEATURE_RECORD) as features:
        speech, length = SoundReader(clips.path(voice)).speech(), Fraction(count, 25)
        person.host.run(extract_features(person.host.stages, speech, features, count, length, LAG_FEATURES))
        found = person.lag(features.read(0, count))
    assert found.frames is not None
    answer = credible_lag(found, {})
    assert answer.frames is None
    assert answer.doubt.startswith(f"the confidence is {found.confidence:.2f}, and {found.num_frames} frames need 0.2")
