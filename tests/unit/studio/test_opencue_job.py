"""Jobs of OpenCue, written and submitted by OpenCue's own packages."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import opencue
import pytest

from gateway.studio.opencue_job import submit_to_opencue
from services.common.errors import BackendUnavailableError, InvalidRequestError
from tests.contract.cuebot import running_cuebot


def submit(show: str = "myshow", rows: int = 3) -> list[str]:
    return submit_to_opencue("night", rows, show=show, shot="dubs", cores=4)


@pytest.mark.parametrize("rows", [1, 100_000])
def test_one_frame_for_each_row(rows: int) -> None:
    """Cuebot gets one layer with a frame for each row. Cuebot's refusal is one sentence."""
    jobs: list[ElementTree.Element] = []

    def launch(job: ElementTree.Element) -> str:
        if job.findtext("show") != "myshow":
            raise ValueError("the show does not exist")
        jobs.append(job)
        return "myshow-dubs-root_night"

    with running_cuebot(launch) as address:
        opencue.Cuebot.setHosts([address])
        assert submit(rows=rows) == ["myshow-dubs-root_night"]
        with pytest.raises(InvalidRequestError, match="the show does not exist"):
            submit("other")
        opencue.Cuebot.closeChannel()
    (job,) = jobs
    (layer,) = job.iter("layer")
    assert layer.findtext("range") == f"0-{rows - 1}"
    assert layer.findtext("cmd") == "dubstage batch run night --index #IFRAME#"
    assert (layer.findtext("chunk"), layer.findtext("cores"), job.findtext("job/maxretries")) == ("1", "4.0", "3")


def test_no_cuebot_and_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    opencue.Cuebot.closeChannel()
    monkeypatch.setattr(opencue.Cuebot, "Hosts", ["127.0.0.1:9"])
    monkeypatch.setenv("CUEBOT_HOSTS", "127.0.0.1:9")
    with pytest.raises(BackendUnavailableError, match="no Cuebot answers"):
        submit()
    monkeypatch.setitem(sys.modules, "outline.cuerun", None)
    with pytest.raises(InvalidRequestError, match=r"pip install 'dubstage-suite\[opencue\]'"):
        submit()
