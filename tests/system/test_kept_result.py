"""The command line answers an identical request at once while its output is there, and dubs again after any change."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.provenance.binding import media_sha256
from services.common.errors import ConsentWithdrawnError
from tests.system.dubbing import cut, write_wav
from tests.system.test_resume import flip
from tests.system.test_speech_lengths import demo_speech
from tests.unit.consent.records import RECORD

SENTENCE = "is already the result of this request; --force makes it again"
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Command:
    """`dubstage dub` with the same footage, speech and output."""

    run: Run
    line: list[str]
    output: Path

    def answers(self, *more: object, **settings: str) -> bool:
        """Run the command, and return whether nothing was computed."""
        before = self.output.stat().st_ino if self.output.exists() else 0
        done = self.run(*self.line, *more, **{"DUBSTAGE_ANALYSIS_MAX_AGE_DAYS": "1", **settings})
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == str(self.output)
        is_said = SENTENCE in done.stderr.replace("\n", " ")
        assert is_said == (self.output.stat().st_ino == before)
        return is_said


@pytest.fixture(params=["mp4"])
def command(carphone: Path, tmp_path: Path, forked_dubstage: Run, request: pytest.FixtureRequest) -> Command:
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, 1.2)
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, 1.0), 16000)
    output = tmp_path / f"out.{request.param}"
    return Command(
        forked_dubstage, ["dub", str(footage), "--audio", str(speech), "-o", str(output), "--no-personalize", "--overwrite"], output
    )


@pytest.mark.long
def test_identical_request_is_answered(command: Command) -> None:
    """The second command computes nothing; a changed byte of the output is dubbed again, with the same media."""
    assert not command.answers()
    made = media_sha256(command.output)
    assert command.answers()
    flip(command.output)
    assert not command.answers()
    assert media_sha256(command.output) == made


@pytest.mark.long
@pytest.mark.parametrize("command", ["mkv"], indirect=True)
def test_every_change_dubs_again(command: Command, tmp_path: Path) -> None:
    """The force of the user, options, settings, speech, the manifest beside the video, and reports count."""
    report = tmp_path / "report"
    assert not command.answers("--report", report)
    assert command.answers("--report", report)
    assert not command.answers("--force")
    assert not command.answers("--report", report), "the command before wrote no report"
    (report / "report.json").unlink()
    assert not command.answers("--report", report)
    assert command.answers()
    assert not command.answers("--expressiveness", 1.1)
    assert not command.answers(DUBSTAGE_WATERMARK="false")
    flip(tmp_path / "out.mkv.c2pa")
    assert not command.answers(DUBSTAGE_WATERMARK="false")
    assert not command.answers(DUBSTAGE_WATERMARK="false", DUBSTAGE_ANALYSIS_MAX_AGE_DAYS="0")
    write_wav(tmp_path / "speech.wav", demo_speech(16000, 0.9), 16000)
    assert not command.answers(DUBSTAGE_WATERMARK="false")


@pytest.mark.long
def test_withdrawn_consent_is_refused(command: Command, tmp_path: Path) -> None:
    """The consent is looked up before the output is."""
    record = tmp_path / "consent.json"
    record.write_text(json.dumps(RECORD))
    assert not command.answers("--consent", record)
    assert command.answers("--consent", record)
    assert not command.answers(), "another record is another request"
    assert command.run("consent", "revoke", record).returncode == 0
    refused = command.run(*command.line, "--consent", record, DUBSTAGE_ANALYSIS_MAX_AGE_DAYS="1")
    assert refused.returncode == ConsentWithdrawnError.exit_code
    assert SENTENCE not in refused.stderr
