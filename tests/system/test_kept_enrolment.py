"""Enrolments and dubs of one footage share its analysis. A stopped enrolment goes on, and the actor has the same bytes."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.stored import ENROLMENT, FILES, StoredActor
from gateway.consent.record import Consent, digest_of
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.learn.enrol import actor_arrays
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.disk import JobDisk
from gateway.dub.state.workspace import JOURNAL
from gateway.housekeeping import list_jobs
from gateway.settings import GatewaySettings
from services.common.errors import ConsentWithdrawnError
from tests.erasing import erase
from tests.forked import Forked
from tests.integration.client_calls import until
from tests.system.dubbing import ROOT, UNPERSONALIZED, Counted, Dubber, cut, write_wav
from tests.system.test_kept_analysis import PERSONALIZE, QUICKLY, TRACK
from tests.system.test_speech_lengths import demo_speech
from tests.unit.consent.records import record

DUBSTAGE = "dubstage"
"""Method of the enrolments and dubs."""


@dataclass
class Studio:
    """One data folder in which people are enrolled and videos are dubbed."""

    dubber: Dubber
    folder: Path
    footage: Path
    stages: Counted
    actors: ActorStore

    @property
    def jobs(self) -> Path:
        return self.folder / "data" / "jobs"

    def enrolling(
        self,
        name: str,
        *files: Path,
        options: EnrolOptions = QUICKLY,
        keeps: bool = True,
        consent: Consent | None = None,
        on_progress: Callable[..., None] = lambda *_: None,
    ) -> Any:
        """An enrolment that has not begun."""
        first, *more = files or (self.footage,)
        takes = {"footage": first, "more_footage": tuple(more)}
        request = EnrolRequest(actor_id=name, **takes, method=DUBSTAGE, options=options, consent=consent)
        disk = JobDisk(keeps_analysis=keeps)
        return create_actor(request, self.stages, self.actors, self.dubber.store, self.jobs, on_progress=on_progress, disk=disk)

    def enrol(self, name: str, *files: Path, **changed: Any) -> StoredActor:
        enrolled: StoredActor = self.dubber.host.run(self.enrolling(name, *files, **changed))
        return enrolled

    def dub(self, footage: Path) -> None:
        speech = write_wav(self.folder / "speech.wav", demo_speech(16000, 1.2), 16000)
        request = DubRequest(footage=footage, speech=speech, output=self.folder / "dub.mkv", method=DUBSTAGE, enrol=QUICKLY)
        disk = JobDisk(keeps_analysis=True)
        job = DubJob(request, self.stages, self.dubber.store, self.jobs, JobLedger(self.actors), disk=disk)
        self.dubber.host.run(job.run(lambda *_: None))
        job.discard()
        request.output.unlink()

    def kinds(self) -> list[str]:
        return [job.fact("kind") for job in list_jobs(self.jobs)]


@pytest.fixture
def studio(dubber: Dubber, settings: GatewaySettings, clips: Any, tmp_path: Path) -> Iterator[Studio]:
    """The face of the footage is wider than a render box, so that the bank has native detail."""
    footage = cut(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mkv", 0.0, 1.2)
    own = settings.model_copy(update={"data_dir": tmp_path / "data"})
    with ActorStore(own) as actors:
        (tmp_path / "data" / "jobs").mkdir(parents=True, exist_ok=True)
        yield Studio(dubber, tmp_path, footage, Counted(dubber.host.stages), actors)


def blobs_of(actor: StoredActor) -> dict[str, str]:
    return {kind: ref.sha256 for kind, ref in actor.artefacts.items() if not kind.startswith("superseded")}


def check_same(actor: StoredActor, other: StoredActor) -> None:
    """Both actors have the same bytes."""
    assert blobs_of(actor) == blobs_of(other)
    (mine, facts), (theirs, other_facts) = actor_arrays(actor.enrolled), actor_arrays(other.enrolled)
    assert facts == other_facts
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_enrolment_takes_over_dub(studio: Studio) -> None:
    """With the dub's options the person is there; with others the person is learned from the tracked faces."""
    studio.dub(studio.footage)
    calls = studio.stages.calls
    assert (calls[TRACK], calls[PERSONALIZE]) == (1, 1)
    same, other = studio.enrol("same"), studio.enrol("other", options=UNPERSONALIZED)
    assert (calls[TRACK], calls[PERSONALIZE]) == (1, 1)
    assert studio.kinds() == ["analysis"]
    check_same(same, studio.enrol("same-alone", keeps=False))
    check_same(other, studio.enrol("other-alone", keeps=False, options=UNPERSONALIZED))
    assert calls[TRACK] == 3
    erase(studio.actors, "other")
    assert studio.kinds() == []


@pytest.mark.long
def test_dub_takes_over_enrolment_analysis(studio: Studio) -> None:
    """The dub takes over the tracked faces, and learns the person for itself."""
    studio.enrol("ada")
    assert studio.kinds() == ["analysis"]
    (analysis,) = list_jobs(studio.jobs)
    assert not (analysis.folder / JOURNAL).exists(), "the analysis holds nothing of the person"
    studio.dub(studio.footage)
    assert (studio.stages.calls[TRACK], studio.stages.calls[PERSONALIZE]) == (1, 2)
    erase(studio.actors, "ada")
    assert studio.kinds() == []


@pytest.mark.long
def test_enrolments_of_takes_share_nothing(studio: Studio, clips: Any) -> None:
    """The erasure removes what dubs have kept of each take."""
    takes = [studio.footage, cut(clips.path("video/vr_face5.mp4"), studio.folder / "second.mkv", 3.0, 4.2)]
    studio.dub(takes[1])
    first = studio.enrol("ada", *takes)
    assert studio.kinds() == ["analysis"], "that of the dub"
    check_same(first, studio.enrol("alone", *takes, keeps=False))
    assert FILES in first.artefacts
    erase(studio.actors, "ada")
    assert studio.kinds() == []


@pytest.mark.parametrize("keeps", [True, False])
def test_cancelled_enrolment_goes_on(studio: Studio, keeps: bool) -> None:
    """The second run tracks nothing. Nothing but the kept analysis is left."""

    async def cancelled() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def look(step: str, *_: int) -> None:
            if step == "enrol renderer":
                loop.call_soon_threadsafe(begun.set)

        work = asyncio.create_task(studio.enrolling("ada", keeps=keeps, on_progress=look))
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    studio.dubber.host.run(cancelled())
    assert sorted(studio.kinds()) == (["analysis", "enrol"] if keeps else ["enrol"])
    check_same(studio.enrol("ada", keeps=keeps), studio.enrol("alone", keeps=False))
    assert studio.stages.calls[TRACK] == 2
    assert studio.kinds() == (["analysis"] if keeps else [])


@pytest.mark.long
def test_erased_stopped_enrolment_leaves_nothing(studio: Studio) -> None:
    """The person has never become an actor."""

    def stop(step: str, *_: int) -> None:
        if step == "enrol renderer":
            raise KeyError("the process ends")

    with pytest.raises(KeyError):
        studio.enrol("ada", on_progress=stop)
    assert sorted(studio.kinds()) == ["analysis", "enrol"]
    studio.actors.erasures.erase_or_ask("ada")
    assert studio.kinds() == []


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2])
def test_withdrawal_leaves_no_analysis(studio: Studio, clips: Any, number: int) -> None:
    """The analysis of a dub of the last file goes too."""
    files = [studio.footage, cut(clips.path("video/vr_face5.mp4"), studio.folder / "second.mkv", 3.0, 4.2)][:number]
    studio.dub(files[-1])
    consent = record()

    def withdraw(step: str, *_: int) -> None:
        if step == "enrol bank":
            studio.actors.consents.withdraw(digest_of(consent))

    with pytest.raises(ConsentWithdrawnError):
        studio.enrol("ada", *files, consent=consent, options=UNPERSONALIZED, on_progress=withdraw)
    assert studio.kinds() == []


@pytest.mark.long
def test_kills_change_no_actor(studio: Studio) -> None:
    """An enrolment is killed at any moment, and goes on. The actor has the bytes of one enrolled alone."""
    data = studio.folder / "data of commands"
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts")}
    environment |= {"DUBSTAGE_ANALYSIS_MAX_AGE_DAYS": "1"}
    generator = random.Random(3)

    def begun(*line: str) -> Forked:
        return Forked(["actor", *line], environment, cwd=ROOT)

    def kill(killed: Forked) -> bool:
        killed.send(signal.SIGKILL)
        return killed.ended(60).returncode == 0

    create = ("create", "ada", str(studio.footage), "--no-personalize")
    first = begun(*create)
    until(lambda: bool(list((data / "jobs").glob("*/faces.done"))))
    has_ended = kill(first)
    tracked = {file.stat().st_ino for file in (data / "jobs").glob("*/faces.bin")}
    for _ in range(6):
        if not has_ended:
            again = begun(*create)
            time.sleep(generator.uniform(1.0, 8.0))
            has_ended = kill(again)
    if not has_ended:
        ended = begun(*create).ended(600)
        assert ended.returncode == 0, ended.stderr
        assert "damaged" not in ended.stderr
    (analysis,) = list_jobs(data / "jobs")
    assert analysis.fact("kind") == "analysis"
    assert {(analysis.folder / "faces.bin").stat().st_ino} == tracked, "the footage was tracked once"
    shown = json.loads(begun("show", "ada").ended(60).stdout)
    alone = blobs_of(studio.enrol("alone", keeps=False, options=UNPERSONALIZED))
    # This blob names the store, and the stores of the commands and of this process are two.
    del alone[ENROLMENT], shown["artefacts"][ENROLMENT]
    assert {kind: ref["sha256"] for kind, ref in shown["artefacts"].items()} == alone
    assert begun("erase", "ada").ended(60).returncode == 0
    assert list_jobs(data / "jobs") == []
