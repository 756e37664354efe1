"""Speech by a command of the user: what the command gets, what goes wrong, and what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.dub.sound.speech_command import (
    MOST_CHARACTERS,
    SpokenText,
    kept_speech,
    remove_old_speech,
    speak,
    spoken_text,
    write_silence,
)
from gateway.media.inspection import inspect_sound
from gateway.media.sound import sound_file
from gateway.provenance.claim import VoiceFacts
from gateway.settings import GatewaySettings
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError
from services.common.server.settings import load_settings

SPEAKER = """
    import json, os, sys, wave
    with open(sys.argv[1], "w") as file:
        json.dump([sys.argv[2:], sys.stdin.read()], file)
    with wave.open(sys.argv[2], "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(os.urandom(16000))
"""
"""A program that speaks differently every time, and notes its arguments and its standard input."""
FAULTS = {
    "print('model loaded', file=sys.stderr); sys.exit('no such voice')": "ended with exit code 1: no such voice; expected",
    "sys.exit('bad argument ' + sys.argv[2])": "ended with exit code 1: bad argument ...; expected",
    "os.kill(os.getpid(), 9)": "ended with signal 9; expected",
    "pass": "wrote no file; expected: exit code 0, and a WAV file",
    "open(out, 'w')": "wrote an empty file",
    "os.mkfifo(out)": "wrote no regular file",
    "os.symlink('/dev/zero', out)": "wrote no regular file",
    "open(out, 'w').write('{\"error\": \"busy\"}')": 'begins with \'{"error": "b\', which is no WAV file',
    "open(out, 'wb').write(b'RIFF\\4\\0\\0\\0WAVE')": "wrote a WAV file that cannot be used",
    "os.truncate(os.open(out, os.O_CREAT | os.O_RDWR), 3 << 30)": "wrote more than 2048 MiB of sound",
    "open(out, 'w').truncate(3 << 30); time.sleep(60)": "wrote more than 2048 MiB of sound",
    "sys.stderr.write('x' * (17 << 20)); sys.stderr.flush(); time.sleep(60)": "16 MiB to its standard error",
    "print('loading', file=sys.stderr, flush=True); time.sleep(60)": "did not end in 1.5 s, .*SPEECH_DEADLINE_S: loading",
}
"""Programs that write no speech, and what the error says."""
ODD_TEXTS = (
    "--help",
    "-w /tmp/other.wav",
    "@/etc/passwd",
    "'; touch injected; '",
    '"$(touch injected)" `touch injected` %s \\n',
    "{output} {text} {voice}",
    "Grüße, 你好, שלום\nsecond line\ttab",
)


def command_of(folder: Path, source: str, *arguments: str) -> str:
    program = folder / "speak with.py"
    program.write_text(textwrap.dedent(source))
    return shlex.join([sys.executable, str(program), *arguments])


def words_of(command: str, text: str = "Good morning.", *, deadline_s: float = 60.0, **more: str) -> SpokenText:
    return spoken_text(load_settings(GatewaySettings, speech_command=command, speech_deadline_s=deadline_s), text, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data" / "scratch"
    made.mkdir(parents=True)
    return made


def spoken(words: SpokenText, folder: Path, seconds: Fraction = Fraction(7, 3)) -> Path:
    return asyncio.run(speak(words, seconds, folder.parent, folder))


def test_command_gets_its_values(tmp_path: Path, folder: Path) -> None:
    arguments = ("{output}", "{language}", "{voice}", "{seconds}", "{text}")
    command = command_of(tmp_path, SPEAKER, str(tmp_path / "said"), *arguments)
    file = spoken(words_of(command, " Good morning.\n", language="en-GB", voice="Ann B."), folder)
    (output, *values), read = json.loads((tmp_path / "said").read_text())
    assert values == ["en-GB", "Ann B.", "2.333", "Good morning."]
    assert read == ""
    assert not Path(output).exists()
    assert file.parent == tmp_path / "data" / "speech"
    assert sum(len(chunk) for chunk in sound_file(file).speech().chunks) == 8000


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_text_is_never_interpreted(tmp_path: Path, folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dashes, quotes and braces arrive as they are, as an argument, in a file and by standard input."""
    monkeypatch.chdir(tmp_path)
    said = str(tmp_path / "said")
    spoken(words_of(command_of(tmp_path, SPEAKER, said, "{output}", "{text}"), text), folder)
    assert json.loads(Path(said).read_text())[0][1] == (text if text[0].isalnum() else f" {text}")
    spoken(words_of(command_of(tmp_path, SPEAKER, said, "{output}"), text), folder)
    assert json.loads(Path(said).read_text())[1] == text
    reader = SPEAKER.replace("sys.stdin", "open(sys.argv[3])")
    spoken(words_of(command_of(tmp_path, reader, said, "{output}", "{text_file}"), text), folder)
    assert json.loads(Path(said).read_text())[1] == text
    assert not (tmp_path / "injected").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_name_the_command(tmp_path: Path, folder: Path, fault: str) -> None:
    """Nothing of a command that fails is kept, and no process of it goes on."""
    source = f"import os, sys, time\nout = sys.argv[1]\n{fault}\n"
    words = words_of(command_of(tmp_path, source, "{output}", "--key=secret"), deadline_s=1.5)
    program = Path(sys.executable).name
    with pytest.raises(DubstageError, match=rf"^{program}, the command of DUBSTAGE_SPEECH_COMMAND, .*{FAULTS[fault]}") as caught:
        spoken(words, folder)
    assert "secret" not in caught.value.message
    assert kept_speech(words, Fraction(7, 3), folder.parent) is None
    assert not [child for child in psutil.Process().children() if str(tmp_path) in " ".join(child.cmdline())]


def test_missing_program_is_named(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"no-such-program of DUBSTAGE_SPEECH_COMMAND cannot be started: No such file"):
        spoken(words_of("no-such-program {output}"), folder)
    with pytest.raises(InvalidRequestError, match=r"too long for an argument: give the command \{text_file\}"):
        spoken(words_of("true {text} {output}", "你" * 90_000), folder)


def test_cancelled_command_ends(tmp_path: Path, folder: Path) -> None:
    """Ctrl-C ends the command and the processes that the command has started."""
    source = f"import os, time\nos.fork()\nopen({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w')\ntime.sleep(60)\n"
    words = words_of(command_of(tmp_path, source, "{output}"))

    async def cancelled() -> None:
        task = asyncio.create_task(speak(words, Fraction(1), folder.parent, folder))
        while len(started := [name for name in os.listdir(tmp_path) if name.isdecimal()]) < 2:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        alive = [psutil.Process(int(pid)) for pid in started if psutil.pid_exists(int(pid))]
        # A killed process of another parent is gone a moment after the signal.
        assert not [process for process in psutil.wait_procs(alive, timeout=20)[1] if process.status() != "zombie"]

    asyncio.run(asyncio.wait_for(cancelled(), 60))


def test_speech_is_kept(tmp_path: Path, folder: Path) -> None:
    """The same words are spoken once; other words, voices, languages and commands have other speech. Old speech is removed."""
    command = command_of(tmp_path, SPEAKER, str(tmp_path / "said"), "{output}", "{voice}")
    words, data = words_of(command, voice="a"), folder.parent
    first = spoken(words, folder)
    assert kept_speech(words, Fraction(9), data) == first
    for other in (words_of(command, voice="b"), words_of(command, "x", voice="a"), words_of(command, voice="a", language="de")):
        assert kept_speech(other, Fraction(9), data) is None
    assert kept_speech(words_of(f"{command} -x", voice="a"), Fraction(9), data) is None
    script = tmp_path / "speak with.py"
    source = script.read_text()
    script.write_text(f"{source}# edited\n")
    assert kept_speech(words, Fraction(9), data) is None
    script.write_text(source)
    timed = words_of(f"{command} {{seconds}}", voice="a")
    assert timed.key(Fraction(1)) != timed.key(Fraction(2))

    os.utime(first, (time.time() - 100,) * 2)
    second = spoken(words, folder)
    assert first.read_bytes() != second.read_bytes()
    assert kept_speech(words, Fraction(9), data) == second
    second.write_bytes(second.read_bytes()[:1000])
    assert kept_speech(words, Fraction(9), data) == first
    remove_old_speech(data, time.time() - 50)
    assert first.exists()
    remove_old_speech(data, time.time() + 50)
    assert not list((data / "speech").iterdir())


@pytest.mark.parametrize(
    ("command", "text", "more", "said"),
    [
        ("", "Hello", {}, "set DUBSTAGE_SPEECH_COMMAND to one, such as 'espeak-ng"),
        ("say {output}", " \n", {}, "there are no words to say"),
        ("say {output}", "a\0b", {}, "no text in UTF-8"),
        ("say {output}", "a\udcffb", {}, "no text in UTF-8"),
        ("say {output}", "a" * (MOST_CHARACTERS + 1), {}, "at most 100000 are taken"),
        ("say {output}", "Hello", {"voice": "ann"}, "takes no voice: it has no argument {voice}"),
        ("say {voice} {output}", "Hello", {}, "takes the voice: give voice"),
        ("say {voice} {output}", "Hello", {"voice": "-f/etc/passwd"}, "is no name of a voice"),
        ("say {language} {output}", "Hello", {}, "takes the language: give language"),
    ],
)
def test_unusable_words_are_refused(command: str, text: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        words_of(command, text, **more)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("say 'it", "not written as for a shell"),
        ("say {text}", r"one of them \{output\}"),
        ("{text} {output}", r"give a program and its arguments"),
        ("say --out={output}", r"\{output\} is a part of an argument"),
        ("say {lang} {output}", r"there is no \{lang\}: there are \{text\}"),
    ],
)
def test_unusable_commands_are_refused(command: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"DUBSTAGE_SPEECH_COMMAND: .*{said}"):
        load_settings(GatewaySettings, speech_command=command)


def test_facts_leave_arguments_out() -> None:
    words = words_of("/opt/tts/say --key secret -v {voice} -o {output}", voice="ann", language="de")
    assert words.facts == VoiceFacts(program="say", voice="ann", language="de")
    assert str(words.facts) == "synthetic voice by say, voice ann, language de"


@pytest.mark.parametrize(
    "command",
    [
        "espeak-ng -v {language} -w {output} {text}",
        "espeak-ng -v {language} -w {output} -f {text_file}",
        "flite -t {text} -o {output}",
    ],
)
@pytest.mark.parametrize("text", ["Good morning.", "-w other.wav", "--version"])
def test_real_programs_speak(command: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (apt-get install espeak-ng flite)")
    monkeypatch.chdir(tmp_path)
    file = spoken(words_of(command, text, language="en-GB"), folder)
    info = inspect_sound(file)
    samples = sum(len(chunk) for chunk in sound_file(file).speech().chunks)
    assert 0.3 < samples / info.sample_rate_hz < 5
    assert os.listdir(tmp_path) == ["data"]


def test_silence_stands_for_speech(tmp_path: Path) -> None:
    assert inspect_sound(write_silence(tmp_path / "silence.wav")).sample_rate_hz == 16_000


def test_failed_command_may_be_repeated(tmp_path: Path, folder: Path) -> None:
    """A server that does not answer may answer later; a file that is no sound stays none."""
    with pytest.raises(BackendUnavailableError):
        spoken(words_of("false {output}"), folder)
    with pytest.raises(InvalidRequestError):
        spoken(words_of("true {output}"), folder)
