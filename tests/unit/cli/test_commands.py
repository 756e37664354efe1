"""Wrong use of the command line: the answer is one line and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from gateway.cli.app import run
from gateway.cli.demo import SPEECH, demo_footage
from tests.refusals import error_line

VIDEO = demo_footage() or Path("carphone_pristine.mp4")
"""Video without sound."""
DUB, LIVE = ["dub", "in.mp4", "-o", "out.mp4"], ["live", "ann", "--audio", "speech.wav"]
LIVE_FILE = [*LIVE, "-o", "live.mp4"]
CONSENT = {"subject": "Ann", "granted_by": "Ann", "scope": "one video", "date": "2026-02-01", "reference": "folder 3"}


def consent_file(folder: Path, **changes: object) -> str:
    path = folder / "consent.json"
    record = {name: value for name, value in {**CONSENT, **changes}.items() if value is not None}
    path.write_text(json.dumps(record))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["serve", "everything"], 10, "no server 'everything'"),
        (LIVE, 10, "--output"),
        ([*LIVE, "--show-latency"], 10, "speech.wav"),
        ([*DUB, "--face", "the left one"], 10, "face takes"),
        ([*DUB, "--consent", "none.json"], 10, "none.json"),
        ([*DUB, "--actor", "\udcff"], 10, "no text in UTF-8"),
        ([*DUB, "--actor", "nobody"], 11, "no actor 'nobody'"),
        (["actor", "show", "nobody"], 11, "no actor 'nobody'"),
        (["actor", "erase", "nobody"], 11, "no actor 'nobody'"),
        ([*DUB, "--method", "magic"], 10, "there are: dubstage, everybody, everyone, headpose, hetero, portrait, ugc"),
        ([*DUB, "--motion", "magic"], 10, "there are: dubstage, portrait, ugc, everybody, headpose"),
        ([*DUB, "--codec", "vp9"], 10, "h264, hevc, ffv1, prores, mpeg2video, dnxhr, av1"),
        ([*DUB, "--report", "r" * 300], 10, "a name has at most 255 bytes"),
        (["dub", "in.mp4", "-o", "o" * 300 + ".mp4", "--consent", "none.json"], 10, "none.json"),
        ([*LIVE_FILE, "--gateway", "here"], 10, "--gateway takes HOST:PORT"),
        ([*LIVE_FILE, "--gateway", "\udcff:1"], 10, "--gateway takes HOST:PORT"),
        (["evaluate", "/"], 10, "folder"),
        (["evaluate", ""], 10, "folder"),
        (["trainset", "missing", "--output", "set"], 10, "missing: no such folder"),
        ([*LIVE_FILE, "--label", "由AI配音"], 10, "labels cannot show '由'"),
        ([*LIVE, "-o", "live.wav"], 10, "live.wav: live videos are written as .mp4"),
        ([*DUB, "--device", "tpu"], 10, "--device 'tpu' is unknown; there are: auto, cpu, cuda"),
        ([*DUB, "--device", "cuda", "--stages", "far"], 10, "the render stage runs at far:50055"),
        ([*LIVE, "-o", "b.mp4", "--device", "cpu", "--gateway", "far:1"], 10, "with --gateway"),
        (["batch", "submit", "x.jsonl", "--engine", "farm", "--device", "cpu"], 10, "--device is an option of --engine local"),
    ],
)
def test_wrong_command_exit_code(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command is answered with one line and its code."""
    assert run(arguments) == code
    assert said in error_line(capsys)


@pytest.mark.parametrize("arguments", [["dub"], ["dub", "in.mp4"], ["nonsense"], ["serve"], ["live", "ann"]])
def test_missing_arguments_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("others", [[], ["-o", "out.mp4"], ["third.wav"]])
def test_second_argument_suggests_audio_option(others: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Speech that is given as a second argument gets an error that names the option."""
    assert run(["dub", "video.mp4", "my speech.wav", *others]) == 2
    assert "give new speech as --audio 'my speech.wav'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATA_DIR", "/dev/null"),
        ("DATA_DIR", "/proc/x"),
        ("DATA_DIR", "x" * 300),
        ("DATA_DIR", "\udcff"),
        ("COMPUTE_THREADS", "100000"),
        ("STAGES_HOST", "localhost:51051"),
        ("AUDIO_ENDPOINT", "\udcff:1"),
        ("ARTEFACTS_URL", "nonsense://x"),
    ],
)
def test_wrong_settings_are_answered_with_one_line(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"DUBSTAGE_{variable}", value)
    assert run(["actor", "list"]) in (10, 11)
    error_line(capsys)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *((DUB, "--seed", value) for value in ("-1", str(1 << 31), str(1 << 64), "9" * 400, "1.5", "0x10", "")),
        *((DUB, "--expressiveness", value) for value in ("0.4", "1.6", "0", "-1", "inf", "nan", "loud", "")),
        *((LIVE_FILE, "--expressiveness", value) for value in ("0.4", "1.6", "0", "-1", "inf", "nan", "loud", "")),
        *((LIVE_FILE, "--look-ahead", value) for value in ("-1", "4", "1.5", "far", "")),
    ],
)
def test_numbers_out_of_range(command: list[str], option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number out of range is a usage error."""
    assert run([*command, option, value]) == 2
    assert option in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"dubstage {version('dubstage-suite')}\n"


@pytest.mark.parametrize("command", ["dub", "evaluate", "actor create"])
def test_help_lists_the_methods(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert "dubstage|portrait|ugc|everybody|headpose" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--audio", "--consent"])
@pytest.mark.parametrize("through", ["itself", "symbolic link", "hard link"])
def test_an_output_that_the_command_reads_is_refused(
    option: str, through: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(consent_file(tmp_path)) if option == "--consent" else tmp_path / "speech.mp4"
    if option == "--audio":
        source.write_bytes(SPEECH.read_bytes())
    content = source.read_bytes()
    output = source if through == "itself" else tmp_path / "link.mp4"
    if through == "symbolic link":
        output.symlink_to(source)
    elif through == "hard link":
        output.hardlink_to(source)
    given = ["--audio", str(SPEECH)] if option == "--consent" else []
    assert run(["dub", str(VIDEO), option, str(source), *given, "-o", str(output), "--overwrite"]) == 10
    assert str(output) in capsys.readouterr().err
    assert source.read_bytes() == content


@pytest.mark.parametrize("command", [["dub", str(VIDEO), "--audio", str(SPEECH)], ["live", "ann", "--audio", str(SPEECH)]])
def test_foreign_file_is_kept(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing file that dubstage did not write is kept."""
    letter = tmp_path / "letter.mp4"
    letter.write_text("dear reader")
    assert run([*command, "-o", str(letter)]) == 10
    assert "--overwrite" in capsys.readouterr().err
    assert letter.read_text() == "dear reader"


def test_unwritable_report_refused_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that cannot be written is refused before the footage is read."""
    (tmp_path / "file").write_text("a file")
    for command in (["dub", "missing.mp4", "-o", str(tmp_path / "out.mp4")], ["evaluate", "missing.mp4"]):
        assert run([*command, "--report", str(tmp_path / "file")]) == 10
        assert "is a file; give the name of a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("clip.mp4", "a video", "is read by this command"),
        ("letter.txt", "dear reader", "--overwrite"),
        ("list.json", "[]", "--overwrite"),
        (".", "", "not a file"),
        ("x" * 300, "", "File name too long"),
        ("clip.mp4/x.json", "", "cannot be written"),
    ],
)
def test_unwritable_results_refused_early(
    name: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results that cannot be written are refused before any work."""
    (tmp_path / "clip.mp4").write_text("a video")
    if content:
        (tmp_path / name).write_text(content)
    assert run(["evaluate", str(tmp_path / "clip.mp4"), "--result", str(tmp_path / name)]) == 10
    assert said in capsys.readouterr().err
    assert not content or (tmp_path / name).read_text() == content


def test_clips_checked_before_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    """All clips are checked before the first is evaluated."""
    assert run(["evaluate", str(VIDEO), "missing.mp4"]) == 10
    assert str(VIDEO) in capsys.readouterr().err, "the video has no sound"


def test_unexpected_error_names_details(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error ends with its exit code and the place of the details."""

    def break_down(_: object) -> None:
        raise ZeroDivisionError("[/] \udcff")

    monkeypatch.setattr("gateway.dub.analyse.face_choice.parse_face", break_down)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(DUB) == 12
    (details,) = tmp_path.glob("dubstage-error-*.txt")
    assert str(details) in capsys.readouterr().err
    assert "ZeroDivisionError" in details.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert run(DUB) == 12
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DUBSTAGE_MAX_CONCURRENT_JOBS", "many")
    assert run(["actor", "list"]) == 10
    assert "DUBSTAGE_MAX_CONCURRENT_JOBS" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"scope": None}, {"date": "yesterday"}, {"subject": " "}, {"signature": "x"}],
)
def test_wrong_consent_record_names_field(tmp_path: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong consent record is refused with the name of the field."""
    assert run([*DUB, "--consent", consent_file(tmp_path, **changes)]) == 10
    assert f"consent.json: {next(iter(changes))}" in capsys.readouterr().err


def test_missing_required_consent_stops_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing but required consent record stops the command before any work."""
    monkeypatch.setenv("DUBSTAGE_REQUIRE_CONSENT", "1")
    assert run(["dub", str(tmp_path / "in.mp4"), "-o", str(tmp_path / "out.mp4")]) == 11
    assert "--consent FILE" in capsys.readouterr().err


def test_device_reaches_settings_of_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--device is the setting of the render stage, also in processes of the command, and ends with the command."""
    monkeypatch.delenv("DUBSTAGE_DEVICE", raising=False)
    seen: list[str | None] = []

    def settings(*_: object) -> None:
        seen.append(os.environ.get("DUBSTAGE_DEVICE"))
        raise typer.Exit(0)

    monkeypatch.setattr("gateway.cli.options.gateway_settings", settings)
    assert run([*DUB, "--device", "cuda"]) == 0
    assert run(DUB) == 0
    assert seen == ["cuda", None]
