"""Speech by a command of the user, where a person has words and no recording (settings `speech_command`, `speech_deadline_s`).

The arguments of the command that are placeholders become values, and no shell reads them. The command writes a WAV file. The file
is kept in the data folder: the same words, command, voice and language are spoken once, and so give the same dub, also by a program
that speaks differently every time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import wave
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

from gateway.async_utilities import in_thread
from gateway.dub.state.disk import job_folder
from gateway.dub.state.journal import step_key
from gateway.media.inspection import inspect_sound
from gateway.provenance.claim import MOST_OF_A_NAME, VoiceFacts
from gateway.provenance.signer import last_line
from gateway.settings import SPEECH_PLACEHOLDERS, GatewaySettings
from services.common.errors import BackendUnavailableError, InvalidRequestError, MediaUnsupportedError
from services.common.files import file_sha256
from services.common.texts import Option, Text

SETTING: Final = "DUBSTAGE_SPEECH_COMMAND"
SPEECH: Final = "speech"
"""Folder of the data folder that holds the speech of commands."""
MOST_CHARACTERS: Final = 100_000
"""Longest text: about two hours."""
LARGEST_SPEECH: Final = 2 << 30
"""Largest WAV file, bytes."""
_MAX_STDERR_BYTES: Final = 16 << 20
"""Most bytes on the command's standard error. A command that writes more is ended."""
_SECRET_FROM: Final = 6
"""Fewest characters of an argument, or of a part of one, that errors leave out: the argument may be a key."""
_POLL_S: Final = 0.05
_HEAD: Final = 12
"""Bytes by which a WAV file is known."""
_EXPECTED: Final = "expected: exit code 0, and a WAV file at the path that stands for {output}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenText:
    """Text, and the command that speaks it. `spoken_text` makes and checks it.

    Attributes:
        command: program and arguments with placeholders (`gateway.settings.SPEECH_PLACEHOLDERS`).
        text: the text, without white space around it.
        language: language of the text (BCP 47); empty: not named.
        voice: name of a voice that the command knows; empty: its own choice.
        deadline_s: longest time of the command, seconds.
    """

    command: tuple[str, ...]
    text: str
    language: str = ""
    voice: str = ""
    deadline_s: float

    @property
    def facts(self) -> VoiceFacts:
        """Facts about the voice for the manifest of a video, without arguments of the command: they may be secrets."""
        return VoiceFacts(program=self.program[:MOST_OF_A_NAME], voice=self.voice, language=self.language)

    @property
    def program(self) -> str:
        """Name of the program, without its folder."""
        return Path(self.command[0]).name

    @property
    def takes_seconds(self) -> bool:
        """Whether the command takes the seconds available."""
        return "{seconds}" in self.command

    def key(self, seconds: Fraction) -> str:
        """Return the key of the speech. Commands that do not take the seconds give the same key for all of them.

        Args:
            seconds: seconds available; 0: no limit.
        """
        return step_key(
            "speech",
            command=[*self.command, *_digests(self.command)],
            text=self.text,
            language=self.language,
            voice=self.voice,
            seconds=_decimal(seconds) if self.takes_seconds else "",
        )


def spoken_text(settings: GatewaySettings, text: str, *, language: str = "", voice: str = "") -> SpokenText:
    """Return text with the command of the settings that speaks it.

    Args:
        language: language of the text (BCP 47); empty: not named.
        voice: name of a voice that the command knows; empty: none.

    Raises:
        InvalidRequestError: there is no command, the text cannot be spoken, or the command lacks a value or has no place for one.
    """
    if not settings.speech_command:
        raise InvalidRequestError(
            f"speech of words needs a command: set {SETTING} to one, such as 'espeak-ng -v {{language}} -w {{output}} {{text}}'",
            field="say",
        )
    words = tuple(shlex.split(settings.speech_command))
    check_words(text, voice)
    if voice and "{voice}" not in words:
        raise InvalidRequestError(f"the command of {SETTING} takes no voice: it has no argument {{voice}}", field="voice")
    for name, value in (("voice", voice), ("language", language)):
        if f"{{{name}}}" in words and not value:
            raise InvalidRequestError(
                Text("the command of {setting} takes the {name}: give {option}", setting=SETTING, name=name, option=Option(name)),
                field=name,
            )
    return SpokenText(command=words, text=text.strip(), language=language, voice=voice, deadline_s=settings.speech_deadline_s)


def _digests(command: Sequence[str]) -> list[str]:
    """Return the digests of the program and of files that the command names: an edited script speaks differently."""
    files = [shutil.which(command[0]) or "", *command[1:]]
    return [file_sha256(Path(file)) if file and "{" not in file and os.path.isfile(file) else "" for file in files]


def check_words(text: str, voice: str) -> None:
    """Check words by themselves, whatever command speaks them.

    Args:
        text: the words.
        voice: name of a voice; empty: none.

    Raises:
        InvalidRequestError: the text cannot be spoken, or the voice is no name.
    """
    problem = ""
    if not text.strip():
        problem = "there are no words to say"
    elif len(text) > MOST_CHARACTERS:
        problem = f"{len(text)} characters to say, and at most {MOST_CHARACTERS} are taken: dub the parts one by one"
    elif "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        problem = "the words are no text in UTF-8"
    if problem:
        raise InvalidRequestError(problem, field="say")
    if voice and (len(voice) > MOST_OF_A_NAME or not voice.isprintable() or voice.startswith("-")):
        raise InvalidRequestError(
            f"{voice[:40]!r} is no name of a voice: give at most {MOST_OF_A_NAME} printable characters that do not begin with -",
            field="voice",
        )


def kept_speech(words: SpokenText, seconds: Fraction, data_dir: Path) -> Path | None:
    """Return the speech that was made before, and count it as used now; None: there is none. Blocks."""
    files: list[tuple[float, Path]] = []
    for file in (data_dir / SPEECH).glob(f"{words.key(seconds)}-*.wav"):
        with suppress(OSError):  # removed meanwhile
            files.append((file.stat().st_mtime, file))
    for _, file in sorted(files, reverse=True):
        with suppress(OSError):
            if file.stem.endswith(file_sha256(file)):
                os.utime(file)
                return file
            file.unlink()  # a disk that was full, or lost its power, has damaged the file
    return None


async def speak(words: SpokenText, seconds: Fraction, data_dir: Path, folder: Path) -> Path:
    """Call the command, and return its speech, which is kept below the data folder. A cancelled call ends the command.

    Args:
        seconds: seconds available; 0: no limit.
        data_dir: data folder.
        folder: folder on the disk of the data folder, for what the command writes.

    Raises:
        BackendUnavailableError: the command failed, or took longer.
        InvalidRequestError: the command cannot be started, or wrote no WAV file with sound in it, or too large a file.
        StorageFullError: no space is left.
    """
    output = folder / "speech.wav"
    with job_folder(folder), tempfile.TemporaryFile() as stderr:
        await _run(words, _decimal(seconds), output, stderr)
        await in_thread(_check_speech, words, output, stderr)
    return await in_thread(_keep, output, data_dir / SPEECH, words.key(seconds))


def remove_old_speech(data_dir: Path, before: float) -> None:
    """Remove speech that was last used before a time, Unix time in seconds. Blocks."""
    for file in (data_dir / SPEECH).glob("*.wav"):
        with suppress(OSError):
            if file.stat().st_mtime < before:
                file.unlink()


def write_silence(file: Path) -> Path:
    """Write a second of silence, which stands for the speech in the checks before the command is called. Return the file."""
    with wave.open(str(file), "wb") as silence:
        silence.setnchannels(1)
        silence.setsampwidth(2)
        silence.setframerate(16_000)
        silence.writeframes(bytes(32_000))
    return file


def _decimal(seconds: Fraction) -> str:
    return f"{float(seconds):.3f}"


async def _run(words: SpokenText, seconds: str, output: Path, stderr: IO[bytes]) -> None:
    """Run the command to its end, and check how it ended."""
    process = _start(words, seconds, output, stderr)
    try:
        ends = time.monotonic() + words.deadline_s
        while process.poll() is None:
            _check_sizes(words, output, stderr)
            if time.monotonic() >= ends:
                late = f"did not end in {words.deadline_s:g} s, the time of DUBSTAGE_SPEECH_DEADLINE_S"
                raise BackendUnavailableError(f"{_named(words)} {late}{_last_line(words, stderr)}; {_EXPECTED}")
            await asyncio.sleep(_POLL_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _check_sizes(words, output, stderr)
    if process.returncode != 0:
        end = f"exit code {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
        raise BackendUnavailableError(f"{_named(words)} ended with {end}{_last_line(words, stderr)}; {_EXPECTED}")


def _start(words: SpokenText, seconds: str, output: Path, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the command, in a session of its own: all of its processes can be ended, and Ctrl-C goes to this process alone."""
    text_file = output.with_name("text.txt")
    text_file.write_text(words.text, encoding="utf-8", newline="")
    # A program could take a first character such as - or @ for an option or a file. A space is not spoken.
    text = words.text if words.text[0].isalnum() else f" {words.text}"
    values = (text, str(text_file.absolute()), words.language, words.voice, seconds, str(output.absolute()))
    placed = dict(zip(SPEECH_PLACEHOLDERS, values, strict=True))
    arguments = [placed.get(word, word) for word in words.command]
    # Without a placeholder for the text, the command reads the text from its standard input.
    reads = {"{text}", "{text_file}"}.isdisjoint(words.command)
    try:
        with open(text_file if reads else os.devnull, "rb") as given:
            return subprocess.Popen(arguments, stdin=given, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
    except OSError as problem:
        why = problem.strerror or str(problem)
        if problem.errno == errno.E2BIG and "{text}" in words.command:
            why = "the text is too long for an argument: give the command {text_file}, or neither to read from standard input"
        raise InvalidRequestError(f"{arguments[0]} of {SETTING} cannot be started: {why}", field=SETTING) from problem


def _check_sizes(words: SpokenText, output: Path, stderr: IO[bytes]) -> None:
    written = 0
    with suppress(FileNotFoundError):  # not begun yet, or replaced just now
        written = output.lstat().st_size
    if written > LARGEST_SPEECH:
        raise _wrong(words, f"wrote more than {LARGEST_SPEECH >> 20} MiB of sound", stderr)
    if os.fstat(stderr.fileno()).st_size > _MAX_STDERR_BYTES:
        raise _wrong(words, f"wrote more than {_MAX_STDERR_BYTES >> 20} MiB to its standard error", stderr)


def _check_speech(words: SpokenText, output: Path, stderr: IO[bytes]) -> None:
    try:
        facts = output.lstat()
    except FileNotFoundError:
        raise _wrong(words, "wrote no file", stderr) from None
    if not stat.S_ISREG(facts.st_mode) or not facts.st_size:
        raise _wrong(words, "wrote an empty file" if stat.S_ISREG(facts.st_mode) else "wrote no regular file", stderr)
    with output.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise _wrong(words, f"wrote a file that begins with {head.decode('utf-8', 'replace')!r}, which is no WAV file", stderr)
    try:
        inspect_sound(output)
    except MediaUnsupportedError as problem:
        raise _wrong(words, f"wrote a WAV file that cannot be used ({problem})", stderr) from problem


def _wrong(words: SpokenText, what: str, stderr: IO[bytes]) -> InvalidRequestError:
    return InvalidRequestError(f"{_named(words)} {what}{_last_line(words, stderr)}; {_EXPECTED}", field=SETTING)


def _named(words: SpokenText) -> str:
    return f"{words.program}, the command of {SETTING},"


def _last_line(words: SpokenText, stderr: IO[bytes]) -> str:
    """Return the last line of the command's errors, as the rest of a sentence, without the command's own arguments."""
    line = last_line(stderr)
    given = [part for word in words.command[1:] if word not in SPEECH_PLACEHOLDERS for part in (word, *re.split(r"[=:@/?&]", word))]
    for part in sorted(given, key=len, reverse=True):
        if len(part) >= _SECRET_FROM:
            line = line.replace(part, "...")
    return f": {line}" if line else ""


def _keep(file: Path, folder: Path, key: str) -> Path:
    """Move the speech to its path. The name has the digest of the content, so no speech that another dub reads is replaced."""
    with job_folder(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = folder / f"{key}-{file_sha256(file)}.wav"
        file.chmod(0o600)
        os.replace(file, kept)
        os.utime(kept)
    return kept
