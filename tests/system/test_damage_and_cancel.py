"""A damaged artefact, a full disk, Ctrl-C, and footage with too little of a face: what is said, and what is left behind."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.disk import JobDisk
from gateway.dub.state.journal import OwnBlobs
from gateway.media.probe import probe
from services.common.errors import ConsentWithdrawnError, InvalidRequestError, StorageFullError
from services.common.store.artefacts import ArtefactStore
from tests.file_limit import files_of_at_most
from tests.forked import Forked, run_forked
from tests.refusals import raised
from tests.system.dubbing import ROOT, SPEECH, UNPERSONALIZED, Dubber, cut, first_seconds
from tests.system.test_bad_input import assert_fails_well
from tests.written_pictures import write_pictures

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dubstage(forked_dubstage: Run) -> Run:
    return forked_dubstage


def environment(data: Path) -> dict[str, str]:
    return {**os.environ, "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts"), "COLUMNS": "200"}


@pytest.mark.long
def test_damaged_artefact_shows_both_digests(dubstage: Run, carphone: Path, output: Path, tmp_path: Path) -> None:
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, 1.2)
    created = dubstage("actor", "create", "ada", footage, "--no-personalize")
    assert created.returncode == 0, created.stderr
    bank = json.loads(dubstage("actor", "show", "ada").stdout)["artefacts"]["bank"]
    blob = tmp_path / "artefacts" / bank["sha256"][:2] / bank["sha256"]
    if not blob.is_file():
        (blob,) = (path for path in (tmp_path / "artefacts").rglob("*") if path.is_file() and bank["sha256"].endswith(path.name))
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)

    result = dubstage("dub", footage, "--audio", SPEECH, "-o", output, "--actor", "ada")
    assert_fails_well(result, output, bank["uri"], bank["sha256"], hashlib.sha256(content).hexdigest(), code=10)


def test_damaged_frames_are_dubbed_and_counted(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    source = first_seconds(clips.path("video/vr_face5.mp4"), tmp_path / "source.mp4", 2.2)
    with av.open(str(source)) as video:
        packet = next(packet for number, packet in enumerate(video.demux(video=0)) if number == 40)
        middle = packet.pos + packet.size // 2
    content = bytearray(source.read_bytes())
    content[middle : middle + 60] = bytes(byte ^ 0x5A for byte in content[middle : middle + 60])
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)

    outcome = dubber(DubRequest(footage=damaged, speech=SPEECH, output=tmp_path / "dub.mp4", method="dubstage"))
    assert outcome.plan.num_frames == probe(source).video.num_frames
    assert any("filled in by the decoder: 1, the first is frame 40" in warning for warning in outcome.warnings)


class Withdrawn(OwnBlobs):
    """The ledger of a job whose consent ends while the video is muxed and sealed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.looks = folder, 0

    def confirm(self) -> None:
        self.looks += 1
        if self.looks == 2:
            (video,) = self.folder.glob(".dubstage-*.partial")
            assert probe(video).video.num_frames == 36, "nothing is left to do but to name the video"
            raise ConsentWithdrawnError("the consent was withdrawn", subject="ada")


@pytest.mark.long
def test_consent_ends_during_sealing(dubber: Dubber, carphone: Path, tmp_path: Path) -> None:
    """A video whose consent ends while it is sealed gets no name."""
    footage, videos = cut(carphone, tmp_path / "short.mkv", 0.0, 1.2), tmp_path / "videos"
    videos.mkdir()
    asked = DubRequest(footage=footage, speech=SPEECH, output=videos / "dub.mp4", method="dubstage", enrol=UNPERSONALIZED)
    job = DubJob(asked, dubber.host.stages, dubber.store, tmp_path / "jobs", Withdrawn(videos))
    with pytest.raises(ConsentWithdrawnError):
        dubber.host.run(job.run(lambda *_: None))
    assert list(videos.iterdir()) == []


class SpeechGone(Withdrawn):
    """The ledger of a job whose speech is deleted when nothing is left to do but to name the video."""

    def __init__(self, speech: Path) -> None:
        super().__init__(speech.parent)
        self.speech = speech

    def confirm(self) -> None:
        try:
            super().confirm()
        except ConsentWithdrawnError:
            self.speech.unlink()


def test_named_video_needs_no_input(dubber: Dubber, carphone: Path, tmp_path: Path) -> None:
    """A dub whose video has its name does not fail any more: nothing of the request is read after that."""
    footage, speech = cut(carphone, tmp_path / "short.mkv", 0.0, 1.2), Path(shutil.copy(SPEECH, tmp_path / "speech.flac"))
    asked = DubRequest(footage=footage, speech=speech, output=tmp_path / "dub.mp4", method="dubstage", enrol=UNPERSONALIZED)
    job = DubJob(asked, dubber.host.stages, dubber.store, tmp_path / "jobs", SpeechGone(speech))
    assert dubber.host.run(job.run(lambda *_: None)).written.path == asked.output
    assert not speech.exists()


def test_impossible_dub_leaves_no_job(dubber: Dubber, carphone: Path, tmp_path: Path) -> None:
    footage, jobs = cut(carphone, tmp_path / "short.mkv", 0.0, 0.4), tmp_path / "jobs"
    asked = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="dubstage", enrol=UNPERSONALIZED)

    def fails(job: DubJob, said: str) -> None:
        with pytest.raises(InvalidRequestError, match=said):
            dubber.host.run(job.run(lambda *_: None))
        assert list(jobs.iterdir()) == []

    # Before the first pass, and after it.
    fails(DubJob(asked, dubber.host.stages, dubber.store, jobs, disk=JobDisk(1 << 18)), "DUBSTAGE_MAX_JOB_BYTES")
    other = replace(asked, face=FaceChoice("id", face_id=7))
    fails(DubJob(other, dubber.host.stages, dubber.store, jobs), "no face 7")


@pytest.mark.parametrize("limit", [150_000, 1_000_000], ids=["at-the-start", "in-the-first-pass"])
def test_full_disk_under_job(limit: int, dubber: Dubber, carphone: Path, output: Path) -> None:
    request = DubRequest(footage=carphone, speech=SPEECH, output=output, method="dubstage", codec="ffv1")
    with raised(StorageFullError, match=r"no space left.*DUBSTAGE_DATA_DIR", exit_code=11), files_of_at_most(limit):
        dubber(request)
    assert list(output.parent.iterdir()) == []


def test_full_disk_under_output(dubber: Dubber, carphone: Path, output: Path, tmp_path: Path) -> None:
    """The video is the largest file of this job: 20 MB, as the man stands before noise. The records of his 26 faces are 2 MB, a
    window is 10 MB.
    """
    noise = np.random.default_rng(5).integers(104, 152, (720, 1280, 3), np.uint8)
    with av.open(str(carphone)) as source:
        men = [picture.reformat(704, 576, "rgb24").to_ndarray() for picture in islice(source.decode(video=0), 26)]
    shown = np.repeat(noise[None], len(men), axis=0)
    shown[:, :576, :704] = men
    write_pictures(tmp_path / "footage.mkv", shown)
    request = DubRequest(footage=tmp_path / "footage.mkv", speech=SPEECH, output=output, method="dubstage", codec="ffv1")
    said = f"no space left to write.*{re.escape(str(output))}"
    with raised(StorageFullError, match=said, exit_code=11), files_of_at_most(13_000_000):
        dubber(request)
    assert list(output.parent.iterdir()) == []


@pytest.mark.long
def test_too_little_of_a_face_enrols_nobody(dubstage: Run, carphone: Path, tmp_path: Path) -> None:
    footage = cut(carphone, tmp_path / "blink.mp4", 0, 0.3)
    result = dubstage("actor", "create", "blink", footage)
    assert result.returncode == 11, result.stderr
    assert "at least 25" in result.stderr
    assert "Traceback" not in result.stderr
    assert "blink" not in dubstage("actor", "list").stdout
    assert list(ArtefactStore(tmp_path / "artefacts").stored()) == []


@pytest.mark.long
def test_interrupted_dub_resumes(carphone: Path, output: Path, tmp_path: Path) -> None:
    """An interrupted dub leaves no output and goes on when run again."""
    data = tmp_path / "data"
    # Long enough that two windows are left when the first window is finished.
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, 3.2)
    arguments = ["dub", str(footage), "--audio", str(SPEECH), "-o", str(output), "--no-personalize"]

    def journalled() -> int:
        return sum(1 for path in data.glob("jobs/*/journal/*") if not path.name.startswith("."))

    process = Forked(arguments, environment(data), cwd=ROOT)
    # The enrolment and one window.
    while process.runs and journalled() < 2:
        time.sleep(0.005)
    process.send(signal.SIGINT)
    assert_fails_well(process.ended(120), output, "interrupted", code=130)

    again = run_forked(arguments, environment(data), cwd=ROOT, timeout=600)
    assert again.returncode == 0, again.stderr
    assert "windows taken from an earlier run" in again.stderr
    assert output.exists()
