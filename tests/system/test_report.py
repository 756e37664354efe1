"""The report of a real dub whose head moves: what only the finished video can tell."""

import json
from pathlib import Path

import av
import pytest

from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.reports.dub_report import COLUMNS, FITTED, write_outcome_report
from gateway.settings import GatewaySettings
from research.stage_host import StageHost
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import UNPERSONALIZED, cut, write_wav
from tests.system.test_speech_lengths import demo_speech


@pytest.mark.long
def test_report_of_moved_head(carphone: Path, host: StageHost, settings: GatewaySettings, tmp_path: Path) -> None:
    """A moved head has frames face model and motion in its report."""
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, 1.05)
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, 1.0), 16000)
    request = DubRequest(footage=footage, speech=speech, output=tmp_path / "dub.mp4", method="portrait", enrol=UNPERSONALIZED)
    store = ArtefactStore(settings.artefacts_url)
    job = DubJob(request, host.stages, store, tmp_path / "jobs")

    async def dub_and_report() -> Path:
        outcome = await job.run(lambda *_: None)
        return await write_outcome_report(request, outcome, job.workspace, host.stages, store, tmp_path / "report")

    with job:
        page = host.run(dub_and_report())
        job.discard()
    text = page.read_text(encoding="utf-8")
    for shown in ("footage.mkv", "dub.mp4", "Frames of the video", "Motion of the head", "The face model", *COLUMNS):
        assert shown in text, shown
    with av.open(str(page.with_name("fitting.jpg"))) as sheet:
        (picture,) = sheet.decode(video=0)
    assert (picture.width, picture.height) == (256 * len(COLUMNS), 256 * FITTED)
    assert "predicted" in page.with_name("head_motion.svg").read_text(encoding="utf-8")
    assert "Motion of the mouth against the person&#39;s own" in text
    document = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))
    assert document["frames"] == 30
    assert {"opening_spread", "width_spread", "fastest_step"} <= document["motion"].keys()
    assert document["motion"]["fastest_step"] > 0.0
    assert "What eyes see of the mouth" in text
    assert 0.0 < document["appearance"]["face_distance"] < 0.43
    assert document["appearance"]["nostril_alarms"] is not None
    assert {"backgrounds", "identity"} <= {stage["name"] for stage in document["times"]["stages"]}
