"""Dubs of one footage share its analysis: a further language costs the mouths and the video, and has the bytes of a dub alone."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import rpcs
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.cli.app import run
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.choices import EnrolOptions
from gateway.dub.job import kept_analysis
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.request import dub_request
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.disk import JobDisk
from gateway.dub.state.workspace import LOCK, lock_folder
from gateway.housekeeping import list_jobs
from gateway.media.probe import probe
from gateway.provenance.binding import media_sha256
from gateway.provenance.installation import open_sealer
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from tests.forked import Forked
from tests.system.dubbing import ROOT, UNPERSONALIZED, Counted, Dubber, cut, sha256, write_wav
from tests.system.test_resume import flip
from tests.system.test_speech_lengths import demo_speech

QUICKLY = EnrolOptions(renderer_steps=2)
TRACK, PERSONALIZE = rpcs.face.TRACK.path, rpcs.render.PERSONALIZE.path


@dataclass
class Languages:
    """Dubs of one footage with several speeches, in one folder of jobs."""

    dubber: Dubber
    footage: Path
    folder: Path
    stages: Counted
    actors: ActorStore
    jobs: Path = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = self.folder / "jobs"

    def request(self, language: str, **changed: Any) -> DubRequest:
        samples = demo_speech(16000, 2.4)
        speech = samples[: len(samples) // 2] if language == "de" else samples[len(samples) // 2 :]
        return DubRequest(
            footage=self.footage,
            speech=write_wav(self.folder / f"{language}.wav", speech, 16000),
            output=self.folder / f"{language}.mkv",
            method="dubstage",
            codec="ffv1",
            enrol=QUICKLY,
            **changed,
        )

    def job(self, language: str, **changed: Any) -> DubJob:
        request, ledger, disk = self.request(language, **changed), JobLedger(self.actors), JobDisk(keeps_analysis=True)
        return DubJob(request, self.stages, self.dubber.store, self.jobs, ledger, disk=disk)

    def dubbed(self, language: str) -> tuple[str, DubOutcome]:
        """Dub, and return the digest of the video, and the outcome. The folder of the dub is removed, as after every dub."""
        job = self.job(language)
        outcome = self.dubber.host.run(job.run(lambda *_: None))
        job.discard()
        return sha256(self.folder / f"{language}.mkv"), outcome

    def alone(self, language: str) -> str:
        request = replace(self.request(language), output=self.folder / f"alone-{language}.mkv")
        job = DubJob(request, self.dubber.host.stages, self.dubber.store, self.folder / "other")
        self.dubber.host.run(job.run(lambda *_: None))
        return sha256(request.output)

    def kept(self) -> list[Path]:
        return sorted(self.jobs.iterdir())


@pytest.fixture
def languages(dubber: Dubber, settings: GatewaySettings, carphone: Path, tmp_path: Path) -> Iterator[Languages]:
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, 1.2)
    own = settings.model_copy(update={"data_dir": tmp_path / "data"})
    with ActorStore(own) as actors:
        yield Languages(dubber, footage, tmp_path, Counted(dubber.host.stages), actors)


def test_second_language_learns_nothing(languages: Languages) -> None:
    languages.dubbed("de")
    assert (languages.stages.calls[TRACK], languages.stages.calls[PERSONALIZE]) == (1, 1)
    second, outcome = languages.dubbed("fr")
    assert (languages.stages.calls[TRACK], languages.stages.calls[PERSONALIZE]) == (1, 1)
    assert outcome.analysis_reused
    assert second == languages.alone("fr")
    assert len(languages.kept()) == 1, "the folders of the dubs are gone, and the analysis is there"


@pytest.mark.long
def test_preview_shares_whole_analysis(languages: Languages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preview leaves the analysis of all frames to the dub. The next preview shows the person whom the dub has learned."""
    monkeypatch.setattr(dub_request, "PREVIEW_S", 1)

    def preview() -> tuple[str, DubOutcome]:
        job = languages.job("de", preview=True)
        outcome = languages.dubber.host.run(job.run(lambda *_: None))
        job.discard()
        return sha256(languages.folder / "de.mkv"), outcome

    untrained, outcome = preview()
    assert (outcome.plan.num_frames, outcome.info.video.num_frames) == (30, 36)
    assert probe(languages.folder / "de.mkv").video.num_frames == 30
    assert any("preview" in warning for warning in outcome.warnings)
    whole, outcome = languages.dubbed("de")
    assert (outcome.analysis_reused, outcome.plan.num_frames) == (True, 36)
    assert whole == languages.alone("de")
    learned = languages.stages.calls[PERSONALIZE]
    trained, outcome = preview()
    assert languages.stages.calls[TRACK] == 1
    assert languages.stages.calls[PERSONALIZE] == learned
    assert trained != untrained


@pytest.mark.long
def test_dubs_at_once_analyse_once(languages: Languages) -> None:
    jobs = [languages.job("de"), languages.job("fr")]

    async def both() -> None:
        await asyncio.gather(*(job.run(lambda *_: None) for job in jobs))

    languages.dubber.host.run(both())
    assert (languages.stages.calls[TRACK], languages.stages.calls[PERSONALIZE]) == (1, 1)
    assert sha256(languages.folder / "fr.mkv") == languages.alone("fr")


def test_wrong_face_keeps_tracked_faces(languages: Languages) -> None:
    """A face number that is not in the footage does not cost the tracking of the footage."""
    wrong = languages.job("de", face=FaceChoice("id", face_id=7))
    with pytest.raises(InvalidRequestError, match="no face 7"):
        languages.dubber.host.run(wrong.run(lambda *_: None))
    assert len(languages.kept()) == 1, "the folder of the dub is gone, and the analysis is there"
    assert languages.dubbed("de")[1].analysis_reused
    assert languages.stages.calls[TRACK] == 1


@pytest.mark.long
def test_waiting_dub_analyses_after_failure(languages: Languages) -> None:
    fails, works = languages.job("de", face=FaceChoice("id", face_id=7)), languages.job("fr")

    async def both() -> list[Any]:
        return await asyncio.gather(*(job.run(lambda *_: None) for job in (fails, works)), return_exceptions=True)

    failed, done = languages.dubber.host.run(both())
    assert isinstance(failed, InvalidRequestError)
    assert isinstance(done, DubOutcome)
    works.discard()
    assert len(languages.kept()) == 1


@pytest.mark.parametrize("when", ["wait for a dub", "track"])
def test_exchanged_footage_leaves_no_analysis(languages: Languages, tmp_path: Path, carphone: Path, when: str) -> None:
    """Footage is written anew while a dub waits for another dub, or tracks the faces. Nothing is kept under the old digest."""
    other = cut(carphone, tmp_path / "other.mkv", 1.2, 2.4)
    handle: int | None = None
    if when == "wait for a dub":
        languages.dubbed("de")
        (analysis,) = languages.kept()
        handle = lock_folder(analysis)

    def exchange(step: str, done: int, total: int) -> None:
        nonlocal handle
        if step == when and other.exists():
            os.replace(other, languages.footage)
            if handle is not None:
                os.close(handle)
                handle = None

    with pytest.raises(InvalidRequestError, match="changed while it was read: begin again when no program writes the file"):
        languages.dubber.host.run(languages.job("fr").run(exchange))
    assert languages.kept() == []
    assert not (languages.folder / "fr.mkv").exists()


@pytest.mark.parametrize(("field", "late"), [("footage", False), ("footage", True), ("speech", True)])
def test_exchanged_file_leaves_no_video(languages: Languages, tmp_path: Path, carphone: Path, *, field: str, late: bool) -> None:
    """A file is written anew before the frames are read again, or after the last frame."""
    job = languages.job("fr")
    if field == "footage":
        old, other = languages.footage, cut(carphone, tmp_path / "other.mkv", 1.2, 2.4)
    else:
        old, other = languages.folder / "fr.wav", write_wav(tmp_path / "other.wav", demo_speech(16000, 1.2), 16000)

    def exchange(step: str, done: int, total: int) -> None:
        if step == "dub" and other.exists() and (not late or done == total):
            os.replace(other, old)

    with pytest.raises(InvalidRequestError, match="changed while it was read: begin again") as refused:
        languages.dubber.host.run(job.run(exchange))
    assert refused.value.field == field
    assert not other.exists()
    assert not [path for path in languages.folder.iterdir() if path.name.startswith(("fr.mkv", ".fr.mkv"))]


@pytest.mark.long
def test_paused_dub_is_passed(languages: Languages, monkeypatch: pytest.MonkeyPatch) -> None:
    languages.dubbed("de")
    (analysis,) = languages.kept()
    handle = lock_folder(analysis)
    os.utime(analysis / LOCK, (0, 0))
    monkeypatch.setattr(kept_analysis, "_DEAD_S", 0.5)
    languages.dubbed("fr")
    os.close(handle)
    assert languages.stages.calls[TRACK] == 2


@pytest.mark.long
def test_damaged_analysis_is_made_anew(languages: Languages) -> None:
    languages.dubbed("de")
    (analysis,) = languages.kept()
    flip(analysis / "faces.bin")
    second, outcome = languages.dubbed("fr")
    assert second == languages.alone("fr")
    assert any("faces.bin" in warning and "made anew" in warning for warning in outcome.warnings)
    assert languages.kept() == [], "the next dub does not meet the damage"
    languages.dubbed("de")
    assert len(languages.kept()) == 1


@pytest.mark.long
def test_withdrawn_dub_leaves_no_analysis(languages: Languages) -> None:
    job = languages.job("de")
    languages.dubber.host.run(job.run(lambda *_: None))
    assert len(languages.kept()) == 2
    job.forget()
    assert languages.kept() == []


@pytest.mark.long
def test_kills_change_no_byte(languages: Languages, tmp_path: Path) -> None:
    """Dubs are killed while they analyse, keep and take over; what they leave serves the next one, or is made anew."""
    data = tmp_path / "data of commands"
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts")}
    environment |= {"DUBSTAGE_WATERMARK": "false", "DUBSTAGE_ANALYSIS_MAX_AGE_DAYS": "1"}
    generator = random.Random(3)

    def begun(language: str) -> Forked:
        asked = languages.request(language)
        line = ["dub", str(asked.footage), "--audio", str(asked.speech), "-o", str(tmp_path / f"killed-{language}.mkv")]
        return Forked([*line, "--no-personalize", "--codec", "ffv1", "--overwrite"], environment, cwd=ROOT)

    for number in range(20):
        killed = begun("de" if number % 2 else "fr")
        time.sleep(generator.uniform(0.2, 6.0))
        killed.send(signal.SIGKILL)
        killed.ended(60)
    whole = {}
    for language in ("de", "fr"):
        ended = begun(language).ended(600)
        assert ended.returncode == 0, ended.stderr
        assert "damaged" not in ended.stderr
        whole[language] = media_sha256(tmp_path / f"killed-{language}.mkv")
    assert [job.fact("kind") for job in list_jobs(data / "jobs")] == ["analysis"]
    for language, digest in whole.items():
        request = replace(languages.request(language), output=tmp_path / f"whole-{language}.mkv", enrol=UNPERSONALIZED)
        sealer = open_sealer(GatewaySettings(data_dir=tmp_path / "signer", watermark=False))
        languages.dubber(request, sealer=sealer)
        assert media_sha256(request.output) == digest


@pytest.mark.long
def test_one_command_dubs_languages(languages: Languages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All speeches are read before the first dub; each language has its video."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data of commands"))
    monkeypatch.setenv("DUBSTAGE_ANALYSIS_MAX_AGE_DAYS", "1")
    spoken = {language: languages.request(language).speech for language in ("de", "fr")}
    line = ["dub", str(languages.footage), "--no-personalize", "--output", str(tmp_path / "video.{language}.mkv")]
    audio = [part for language, file in spoken.items() for part in ("--audio", f"{language}={file}")]
    assert run([*line, *audio, "--audio", f"es={tmp_path / 'nothing.wav'}"]) != 0
    assert list(tmp_path.glob("video.*")) == []
    assert run([*line, *audio]) == 0
    assert sorted(path.name for path in tmp_path.glob("video.*.mkv")) == ["video.de.mkv", "video.fr.mkv"]
    assert [job.fact("kind") for job in list_jobs(tmp_path / "data of commands" / "jobs")] == ["analysis"]
