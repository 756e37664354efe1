"""`dubstage dub --say`: a command speaks the words once, after the checks, and the video names the synthetic voice."""

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import dubstage
from tests.forked import run_forked
from tests.integration.servers import RunningStages
from tests.integration.videos import Media

ROOT = Path(__file__).parents[3]
SPEAKER = """
    import os, sys, wave
    with open(sys.argv[1], "a") as calls:
        calls.write(" ".join(sys.argv[3:]) + "\\n")
    with wave.open(sys.argv[2], "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(os.urandom(32000))
"""
"""A program that speaks differently every time, and counts its calls."""
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    (tmp_path / "speaker.py").write_text(textwrap.dedent(SPEAKER))
    return tmp_path / "calls"


@pytest.fixture
def environment(stages: RunningStages, tmp_path: Path, calls: Path) -> dict[str, str]:
    command = [sys.executable, str(tmp_path / "speaker.py"), str(calls), "{output}", "{seconds}", "{text}"]
    settings = {"data_dir": str(tmp_path / "data"), "artefacts_url": str(stages.artefacts), **stages.endpoints()}
    settings |= {"speech_command": shlex.join(command), "analysis_max_age_days": "1"}
    return {**os.environ, "COLUMNS": "1000", **{f"DUBSTAGE_{name.upper()}": value for name, value in settings.items()}}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*arguments: object, **more: str) -> CompletedProcess[str]:
        return run_forked([str(argument) for argument in arguments], {**environment, **more}, cwd=ROOT, timeout=300)

    return run


@pytest.mark.long
def test_words_are_spoken_once(run: Run, media: Media, calls: Path, tmp_path: Path) -> None:
    """A second video of the same words has the same speech, also by a program that never speaks alike; --force speaks again."""
    (tmp_path / "words.txt").write_text("-h Good morning.\n")
    dub = ("dub", media.footage, "--language", "en", "--no-personalize", "-o")
    digests = []
    for name, more in (
        ("a.mp4", ["--say", "-h Good morning."]),
        ("b.mkv", ["--say-file", tmp_path / "words.txt"]),
        ("c.mkv", ["--say", "-h Good morning.", "--force"]),
    ):
        done = run(*dub, tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
        assert ("speaking with" in done.stderr) == (name != "b.mkv")
        said = run("inspect", tmp_path / name, "--no-watermark", "--json")
        digests.append([source["sha256"] for source in json.loads(said.stdout)["dub"]["sources"]])
    assert calls.read_text().splitlines() == ["1.600  -h Good morning."] * 2
    assert digests[0] == digests[1]
    assert digests[0][1] != digests[2][1]
    assert not list((tmp_path / "data" / "fetched").iterdir())

    facts = json.loads(run("inspect", tmp_path / "a.mp4", "--no-watermark", "--json").stdout)
    voice = {"program": Path(sys.executable).name, "voice": "", "language": "en"}
    assert facts["dub"]["sources"][1]["voice"] == voice
    assert facts["actions"][1]["description"] == "The mouth and the voice in this video are synthetic."
    lines = run("inspect", tmp_path / "a.mp4", "--no-watermark").stdout
    assert f"made of: speech, synthetic voice by {voice['program']}, language en, sha256" in lines
    assert str(tmp_path) not in lines.replace(str(tmp_path / "a.mp4"), "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fit", "pad", "--method", "portrait"], "are always as long as the speech"),
        (["-o", "video.unknown"], "unknown"),
        (["--audio", "speech.wav"], "--say and --audio: give one of them"),
        (["--lines", "lines.json"], "--say and --lines: give one of them"),
        (["--audio-channel", "1"], "--say and --audio-channel: give one of them"),
        (["--say-file", "words.txt"], "--say and --say-file: give one of them"),
        (["--voice", "ann"], "takes no voice"),
        (["--language", "-h"], "is no language tag"),
        (["--actor", "nobody"], "nobody"),
    ],
)
def test_request_is_checked_before(run: Run, media: Media, calls: Path, tmp_path: Path, options: list[str], said: str) -> None:
    """No command is called for a dub that is refused."""
    done = run("dub", media.footage, "--say", "Hello", "-o", tmp_path / "out.mp4", *options)
    assert done.returncode == 10 or "nobody" in options
    assert said in done.stderr
    assert not calls.exists()


def test_no_dub_without_speech(run: Run, media: Media, tmp_path: Path) -> None:
    """The last line of the command, its exit code and the remedy are reported, and nothing is written."""
    dub = ("dub", media.footage, "-o", tmp_path / "out.mp4")
    done = run(*dub, "--say", "Hello", DUBSTAGE_SPEECH_COMMAND="sh -c 'echo no server >&2; exit 7' {output}")
    assert (done.returncode, done.stdout) == (20, "")
    assert "sh, the command of DUBSTAGE_SPEECH_COMMAND, ended with exit code 7: no server; expected: exit code 0" in done.stderr
    done = run(*dub, "--say", "Hello", DUBSTAGE_SPEECH_COMMAND="")
    assert "set DUBSTAGE_SPEECH_COMMAND to one" in done.stderr
    done = run(*dub, "--say", "Hello", DUBSTAGE_SPEECH_COMMAND="espeak-ng -v {voice} -w {output} {text}")
    assert "takes the voice: give --voice" in done.stderr
    done = run(*dub, "--voice", "ann")
    assert "--voice is the voice of --say or --say-file" in done.stderr
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe")
    done = run(*dub, "--say-file", tmp_path / "words.txt")
    assert "words.txt cannot be read: no text in UTF-8" in done.stderr
    assert sorted(os.listdir(tmp_path / "data" / "fetched")) == []
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.long
def test_batch_rows_speak_words(run: Run, media: Media, calls: Path, tmp_path: Path) -> None:
    """Local workers speak the words of rows once, the video names the voice, and a machine without a command refuses the rows."""
    row = {"id": "a", "footage": str(media.footage), "output": "a.mp4", "say": "Good morning.", "language": "en"}
    (tmp_path / "night.jsonl").write_text(json.dumps({**row, "personalize": False}))
    refused = run("batch", "submit", tmp_path / "night.jsonl", DUBSTAGE_SPEECH_COMMAND="")
    assert refused.returncode == 10
    assert "night.jsonl:1: say: speech of words needs a command: set DUBSTAGE_SPEECH_COMMAND" in refused.stderr
    done = run("batch", "submit", tmp_path / "night.jsonl", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().splitlines() == ["1.600 Good morning."]
    facts = json.loads(run("inspect", tmp_path / "a.mp4", "--no-watermark", "--json").stdout)
    assert facts["dub"]["sources"][1]["voice"]["language"] == "en"
    assert run("batch", "report", "night", tmp_path / "report").returncode == 0
    (shot,) = json.loads((tmp_path / "report" / "shots.json").read_text())["shots"]
    assert (shot["say"], shot["speech"]) == ("Good morning.", None)


@pytest.mark.long
def test_scene_lines_speak_words(run: Run, media: Media, calls: Path, tmp_path: Path) -> None:
    """A line of a scene has words or a sound file. A command that knows the time speaks until the next line begins."""
    line = {"face": "largest", "start": 1.2, "speech": str(media.speech)}
    (tmp_path / "lines.json").write_text(json.dumps([line, {"face": "largest", "start": 0.2, "say": "Good morning."}]))
    dub = ("dub", media.footage, "--lines", tmp_path / "lines.json", "--no-personalize", "-o", tmp_path / "a.mp4")
    refused = run(*dub, DUBSTAGE_SPEECH_COMMAND="espeak-ng -v {language} -w {output} {text}")
    assert refused.returncode == 10
    assert f"{tmp_path / 'lines.json'}: " in refused.stderr
    assert "takes the language" in refused.stderr
    done = run(*dub)
    assert done.returncode == 0, done.stderr
    assert "line 2: speaking with" in done.stderr
    assert calls.read_text().splitlines() == ["1.000 Good morning."]
    facts = json.loads(run("inspect", tmp_path / "a.mp4", "--no-watermark", "--json").stdout)
    assert [source.get("voice") is not None for source in facts["dub"]["sources"]] == [False, False, True]
    assert facts["actions"][1]["description"] == "The mouth and the voice in this video are synthetic."


@pytest.mark.long
def test_python_lines_speak_words(
    environment: dict[str, str], media: Media, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dubstage.dub` in this process takes words in lines, as the command line does."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DUBSTAGE_GATEWAY", raising=False)
    late = {"face_rule": "FACE_RULE_LARGEST", "start_time": timedelta(seconds=1.2), "speech_uri": str(media.speech)}
    early = {"face_rule": "FACE_RULE_LARGEST", "start_time": timedelta(seconds=0.2), "say": "Good morning."}
    video = dubstage.dub(media.footage, None, tmp_path / "a.mp4", lines=[late, early], personalize=False)
    assert video.dubbed > 0
    assert calls.read_text().splitlines() == ["1.000 Good morning."]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (apt-get install espeak-ng)")
def test_real_program_dubs(environment: dict[str, str], media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dubstage.dub` in this process speaks words too, and the same words again give the same video."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DUBSTAGE_GATEWAY", raising=False)
    monkeypatch.setenv("DUBSTAGE_SPEECH_COMMAND", "espeak-ng -v {language} -w {output} {text}")
    options = {"say": "Guten Morgen!", "language": "de", "personalize": False, "fit": "pad"}
    first = dubstage.dub(media.footage, None, tmp_path / "a.mp4", **options)  # type: ignore[arg-type]
    again = dubstage.dub(media.footage, None, tmp_path / "b.mp4", **options)  # type: ignore[arg-type]
    assert first.dubbed > 0
    assert first.media_sha256 == again.media_sha256
    assert len(list((tmp_path / "data" / "speech").iterdir())) == 1
