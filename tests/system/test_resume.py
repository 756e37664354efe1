"""A dub that was killed or whose records were damaged goes on where it was and gives the same bytes."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.request.dub_request import DubRequest
from gateway.provenance.binding import media_sha256
from gateway.provenance.installation import open_sealer
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.forked import Forked
from tests.system.dubbing import ROOT, SPEECH, UNPERSONALIZED, Dubber, cut, sha256


def start(footage: Path, output: Path, data: Path) -> Forked:
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts")}
    # A video of this process, which has no watermark, is compared with it.
    environment["DUBSTAGE_WATERMARK"] = "false"
    return Forked(["dub", str(footage), "--audio", str(SPEECH), "-o", str(output), "--no-personalize"], environment, cwd=ROOT)


def windows_journalled(data: Path) -> int:
    """Finished steps in all jobs' journals; the enrolment is one of them."""
    return sum(1 for path in data.glob("jobs/*/journal/*") if not path.name.startswith("."))


@pytest.mark.long
def test_resume_after_kills_same_bytes(dubber: Dubber, carphone: Path, tmp_path: Path) -> None:
    """A job that is killed at random windows and run again gives the same bytes."""
    # Two windows and a part of one: three steps, and the enrolment.
    footage, whole = cut(carphone, tmp_path / "footage.mkv", 0.0, 2.5), tmp_path / "whole.mp4"
    # The disclosure record is part of signed videos only.
    sealer = open_sealer(GatewaySettings(data_dir=tmp_path / "signer", watermark=False))
    dubber(DubRequest(footage=footage, speech=SPEECH, output=whole, method="dubstage"), sealer=sealer)

    generator = random.Random(7)
    output, data = tmp_path / "killed.mp4", tmp_path / "data"
    kept = 0
    for steps in sorted(generator.sample(range(1, 4), 2)):
        process = start(footage, output, data)
        while process.runs and windows_journalled(data) < steps:
            time.sleep(0.01)
        process.send(signal.SIGKILL)
        killed = process.ended(600)
        assert not output.exists() or killed.returncode == 0
        kept = windows_journalled(data)

    last = start(footage, output, data).ended(600)
    assert last.returncode == 0, last.stderr
    assert media_sha256(output) == media_sha256(whole)
    # The enrolment is a step too; every window that was journalled is taken, none is computed again.
    assert f"{max(0, kept - 1)} windows taken from an earlier run" in last.stderr or kept <= 1


def flip(file: Path) -> None:
    """Damage one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def entry_of(ref: ArtefactRef) -> str:
    """A journal's entry."""
    return json.dumps({"uri": ref.uri, "sha256": ref.sha256, "size_bytes": ref.size_bytes})


def cut_short(folder: Path, _: ArtefactStore) -> None:
    """Two thirds of the face records, as a disk leaves them that lost its last writes."""
    size = (folder / "faces.bin").stat().st_size
    os.truncate(folder / "faces.bin", size * 2 // 3)


def flipped_bits(folder: Path, _: ArtefactStore) -> None:
    """A bit of each record file."""
    for name in ("faces.bin", "speech.bin"):
        flip(folder / name)


def notes_of_nothing(folder: Path, _: ArtefactStore) -> None:
    """Notes and journal entries that are JSON and say nothing."""
    for file in (*folder.glob("*.done"), *(folder / "journal").iterdir()):
        file.write_text("{}")


def blobs_of_something_else(folder: Path, store: ArtefactStore) -> None:
    """Journal entries of whole blobs in which other arrays lie, and of another store."""
    other = store.put_arrays({"box": np.zeros(3, np.uint8)})
    nowhere = replace(other, uri=f"file:///nowhere/{other.sha256[:2]}/{other.sha256}")
    for number, file in enumerate(sorted((folder / "journal").iterdir())):
        file.write_text(entry_of(other if number % 2 else nowhere))


def a_lost_bank(folder: Path, store: ArtefactStore) -> None:
    """The enrolment is journalled, but what it names is damaged."""
    entries = [json.loads(file.read_text()) for file in (folder / "journal").iterdir()]
    found = [store.get_arrays(ArtefactRef(**entry)) for entry in entries]
    (actor,) = (stored for stored in found if "bank" in stored.metadata)
    uri, _, _ = json.loads(actor.metadata["bank"])
    blob = Path(str(uri).removeprefix("file://"))
    blob.chmod(0o600)
    flip(blob)


@pytest.mark.long
def test_resume_with_damaged_records(dubber: Dubber, carphone: Path, tmp_path: Path) -> None:
    """A job that resumes gives the same bytes whatever became of its records."""
    footage = cut(carphone, tmp_path / "short.mkv", 0.0, 1.3)
    jobs = tmp_path / "jobs"

    def dub(name: str) -> tuple[DubOutcome, Path]:
        request = DubRequest(
            footage=footage, speech=SPEECH, output=tmp_path / f"{name}.mp4", method="dubstage", enrol=UNPERSONALIZED
        )
        job = DubJob(request, dubber.host.stages, dubber.store, jobs)
        outcome = dubber.host.run(job.run(lambda *_: None))
        assert job.folder is not None
        return outcome, job.folder

    first, folder = dub("first")
    assert first.plan.counts()["DUBBED"] > 20
    for damage in (cut_short, flipped_bits, notes_of_nothing, blobs_of_something_else, a_lost_bank):
        damage(folder, dubber.store)
        outcome, _ = dub(damage.__name__)
        assert sha256(outcome.written.path) == sha256(first.written.path), damage.__name__
        assert any("made anew" in warning for warning in outcome.warnings), damage.__name__

    outcome, _ = dub("whole")
    assert (outcome.windows_computed, outcome.warnings) == (0, first.warnings)
