"""Jobs of OpenCue, written and submitted by OpenCue's own packages."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import opencue
import pytest

from gateway.batch.opencue_job import opencue_job
from gateway.cli.app import run
from tests.contract.cuebot import running_cuebot


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Manifest of two shots."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))
    (tmp_path / "plate.mp4").write_bytes(b"no film")
    rows = [{"id": f"s{number}", "footage": "plate.mp4", "output": f"{number}.mp4"} for number in range(2)]
    path = tmp_path / "night.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.fixture
def cuebot() -> Iterator[list[ElementTree.Element]]:
    """Jobs that a Cuebot was given. The Cuebot knows the show `myshow`."""
    jobs: list[ElementTree.Element] = []

    def launch(job: ElementTree.Element) -> str:
        if job.findtext("show") != "myshow":
            raise ValueError("the show does not exist")
        jobs.append(job)
        return "myshow-dubs-root_night"

    with running_cuebot(launch) as address:
        opencue.Cuebot.setHosts([address])
        yield jobs
        opencue.Cuebot.closeChannel()


@pytest.mark.parametrize("rows", [1, 100_000])
def test_one_frame_for_each_row(rows: int) -> None:
    job = ElementTree.fromstring(opencue_job("night", rows, "s3://studio/b&b", show="myshow", shot="dubs", cores=4))
    (layer,) = job.iter("layer")
    assert layer.findtext("range") == f"0-{rows - 1}"
    assert layer.findtext("cmd") == "dubstage batch run night --index #IFRAME#"
    assert (layer.findtext("chunk"), layer.findtext("cores")) == ("1", "4.0")
    assert [(one.get("name"), one.text) for one in layer.iter("key")] == [("DUBSTAGE_BATCHES_URL", "s3://studio/b&b")]
    assert (job.findtext("show"), job.findtext("shot"), job.findtext("job/maxretries")) == ("myshow", "dubs", "3")


def test_job_is_submitted(
    manifest: str, cuebot: list[ElementTree.Element], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch is made, the job goes to Cuebot, and its name is printed. Cuebot's refusal is one sentence."""
    assert run(["batch", "opencue", manifest, "--show", "myshow"]) == 0
    assert capsys.readouterr().out == "myshow-dubs-root_night\n"
    (job,) = cuebot
    assert job.findtext("job/layers/layer/range") == "0-1"
    assert [one.text for one in job.iter("key")] == [str(tmp_path / "data" / "batches")]
    assert run(["batch", "opencue", "night", "--show", "other"]) == 10
    assert "error: Cuebot refuses the job: " in (shown := capsys.readouterr().err)
    assert "the show does not exist" in shown


def test_job_is_written_to_file(manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.xml"
    assert run(["batch", "opencue", manifest, "--show", "myshow", "--shot", "sc010", "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert ElementTree.fromstring(file.read_text()).findtext("shot") == "sc010"
    assert run(["batch", "opencue", "night", "--show", "myshow", "--output", str(tmp_path / "no" / "job.xml")]) == 10
    assert "job.xml cannot be written: No such file or directory" in capsys.readouterr().err


def test_no_cuebot_and_no_packages(manifest: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opencue.Cuebot.closeChannel()
    monkeypatch.setattr(opencue.Cuebot, "Hosts", ["127.0.0.1:9"])
    monkeypatch.setenv("CUEBOT_HOSTS", "127.0.0.1:9")
    assert run(["batch", "opencue", manifest, "--show", "myshow"]) == 20
    assert "no Cuebot answers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "outline.cuerun", None)
    assert run(["batch", "opencue", "night", "--show", "myshow"]) == 10
    assert "not installed here: pip install 'dubstage-suite[opencue]'" in capsys.readouterr().err
