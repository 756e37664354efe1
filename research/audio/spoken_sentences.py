"""Speak sentences with flite: `python -m research.audio.spoken_sentences --output FOLDER`.

The command writes FOLDER/flite-VOICE/000.wav and 000.txt, one pair a sentence of sentences.txt. The folder is a corpus like any
other: `dubstage trainset` takes it in, with the folders' names as speakers. The voices are synthetic, so their speech can only add
to recorded speech. Needs flite on the PATH (Debian: apt install flite).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from research.training.command import command_line
from services.common.errors import InvalidRequestError

VOICES: Final = ("slt", "rms", "awb")
SENTENCES_PATH: Final = Path(__file__).with_name("sentences.txt")
_STRETCHES: Final = ("0.9", "1.0", "1.15")
"""Lengths of the sounds relative to the voice's own, in turns."""


def speak_sentences(output: Path) -> int:
    """Write all sentences in all voices, and return the number of sound files.

    Raises:
        InvalidRequestError: flite is missing or fails.
    """
    sentences = [line for line in SENTENCES_PATH.read_text(encoding="utf-8").splitlines() if line.strip()]
    for voice in VOICES:
        folder = output / f"flite-{voice}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, sentence in enumerate(sentences):
            stretch = _STRETCHES[index % len(_STRETCHES)]
            partial, path = folder / ".partial.wav", folder / f"{index:03d}.wav"
            command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", sentence, "-o", str(partial)]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as problem:
                raise InvalidRequestError(
                    f"flite: {problem}; install flite with its voices (Debian: apt install flite)"
                ) from problem
            path.with_suffix(".txt").write_text(sentence + "\n", encoding="utf-8")
            partial.replace(path)
    return len(VOICES) * len(sentences)


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets one folder a voice")
    print(f"{speak_sentences(parser.parse_args().output)} sentences")
    return 0


if __name__ == "__main__":
    sys.exit(main())
