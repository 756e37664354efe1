"""Write docs/reference/licences.md: whose footage and recordings each committed network learned from, and under which licences.

    python docs/generate/licences.py

The tables come from the cards NAME.card.md beside the networks, which trainings write from the manifest of their training set.
Networks of earlier trainers have no such card; facts about their data stand in EARLIER, from their model cards. PRETRAINED
names the networks that others trained.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

CHECKOUT: Final = Path(__file__).resolve().parents[2]
OUTPUT: Final = CHECKOUT / "docs/reference/licences.md"
_HEAD: Final = "| source | licence | clips | speakers | minutes |"
_ENDING: Final = ".card.md"

_INTRODUCTION: Final = """# Data of the committed networks

`python docs/generate/licences.py` writes this page from the cards beside the networks. The cards come from the manifests of the
training sets. The [model cards](../models/) have the attributions in full. No network learned from test footage, and no renderer
from footage whose pixels the catalogue excludes (`train_motion`).
"""
_GRID: Final = "CC BY 4.0 (GRID corpus, Cooke et al. 2006, doi 10.5281/zenodo.3625687; licence read second-hand)"
_FILMED: Final = "Apache-2.0 (filmed by contracted models, says the publisher)"
PRETRAINED: Final = (
    (
        "speech_encoder",
        "Whisper tiny.en, OpenAI",
        "weights MIT",
        "about 438,000 hours of English sound from the web; OpenAI names no sources",
    ),
    ("silero_vad", "Silero VAD 6.2.3, Silero Team", "weights MIT", "not stated"),
    (
        "face_embedding",
        "dlib's face recognition network, Davis E. King, from @vladmandic/face-api 1.7.15",
        "package MIT, original weights public domain",
        "about 3 million pictures of 7,485 people, says the author; not checked",
    ),
)
"""Network, origin, licence, and facts about the data of the networks that others trained."""


class LearnedSource(NamedTuple):
    """One row of a table: what a network learned from one source under one licence."""

    network: str
    source: str
    licence: str
    clips: str
    speakers: str
    minutes: str


def _earlier() -> Iterator[LearnedSource]:
    synthesised = "synthesised with flite 2.2 (Carnegie Mellon University) from sentences written for dubstage: free to use"
    yield LearnedSource("posteriorgram (first leg)", "flite voices slt, rms, awb", synthesised, "", "3", "22.9")
    for source, licence, speakers, minutes in (
        ("flite voices slt, rms, awb", synthesised, "3", "22.9"),
        ("grid", _GRID, "13", "22.1"),
        ("librispeech", "CC BY 4.0 (LibriSpeech, Panayotov et al. 2015)", "100", "20.2"),
        ("vctk", "CC BY 4.0 (VCTK 0.92, Yamagishi et al.)", "3", "2.6"),
        ("ljspeech", "public domain (LJ Speech)", "1", "2.0"),
        ("jfk", "public domain", "1", "0.2"),
        ("ls_demo2", _FILMED, "1", "0.3"),
    ):
        yield LearnedSource("id_removal (two of three recordings)", source, licence, "", speakers, minutes)
    pictures = "perceptual, identity_embedding, mouth_interior, ugc_renderer, everybody_renderer, headpose_renderer"
    for network, clips in (
        ("temporal_warp (no pixels)", "428"),
        (pictures, "at most 16 a person"),
        ("the default face model", "428"),
    ):
        yield LearnedSource(network, "grid", _GRID, clips, "13", "")
        yield LearnedSource(network, "ls_demo2", _FILMED, "1", "1", "0.3")


EARLIER: Final = tuple(_earlier())
"""Networks of earlier trainers, which wrote no card."""


def read_card(path: Path) -> list[LearnedSource]:
    """Return the rows of the licence table of a card.

    Raises:
        ValueError: the card has no such table. The message names the file.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if _HEAD not in lines:
        raise ValueError(f"{path}: the card has no table {_HEAD!r}")
    rows = []
    for line in lines[lines.index(_HEAD) + 2 :]:
        if not line.startswith("|"):
            break
        source, licence, clips, speakers, minutes = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append(LearnedSource(lines[0].removeprefix("# "), source, licence, clips, speakers, minutes))
    return rows


def cards() -> list[Path]:
    """Return the cards beside the committed networks, ordered by name."""
    return sorted(CHECKOUT.glob(f"services/*/weights/*{_ENDING}"), key=lambda path: path.name)


def _rows(parts: Iterable[LearnedSource]) -> Iterator[str]:
    """Yield the rows of a table. Networks that learned from the same clips share a row."""
    learned: dict[LearnedSource, list[str]] = {}
    for part in parts:
        learned.setdefault(part._replace(network=""), []).append(part.network)
    for part, networks in learned.items():
        yield f"| {' | '.join(part._replace(network=', '.join(networks)))} |"


def page(parts: Iterable[LearnedSource], earlier: Iterable[LearnedSource]) -> str:
    """Return the page as Markdown."""
    head = ["| network | source | licence | clips | speakers | minutes |", "|---|---|---|---|---|---|"]
    lines = [_INTRODUCTION, *head, *_rows(parts)]
    lines += ["", "Networks of earlier trainers, which wrote no card:", "", *head, *_rows(earlier)]
    lines += ["", "Networks that others trained:", "", "| network | origin | licence | data |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(network)} |" for network in PRETRAINED]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, and return the exit code."""
    OUTPUT.write_text(page([part for path in cards() for part in read_card(path)], EARLIER), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
