"""The command that fits the maps of files and of all look-aheads of live speech, and the curve of the look-ahead."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from research.methods.dubstage.motion import ALL_DEV, CURVE, LEFT_OUT, PICTURE, main
from research.training.trainset import MANIFEST, manifest_line
from services.motion.speech_map import INPUT_WINDOWS, LIVE_INPUT_WINDOWS, MODEL_FILE, SpeechMapModel
from tests.unit.motion.made_clips import made_clip, row_of, write_arrays, write_set

LENGTH = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with weights and the curve, from two speakers, a recording without a picture, and a clip of each dev split."""
    folder = tmp_path_factory.mktemp("fit")
    train = [made_clip(index, num_frames=LENGTH, speaker=name) for index, name in enumerate(("anna", "ben"))]
    dev = [made_clip(8, "dev", LENGTH, "carl"), made_clip(9, "dev_people", LENGTH, "dora")]
    write_set(folder / "set", [*train, *dev])
    clip = made_clip(10, num_frames=LENGTH, speaker="eve")
    recording = replace(row_of(clip), has_face=False, source="audiobooks", licence="CC BY 4.0")
    write_arrays(folder / "set", recording, clip, face=False)
    with (folder / "set" / MANIFEST).open("a", encoding="utf-8") as manifest:
        manifest.write(manifest_line(recording))
    assert main(["--data", str(folder / "set"), "--output", str(folder), "--curve", str(folder)]) == 0
    return folder


def test_the_fit_writes_every_map(folder: Path) -> None:
    """The file has a map of files, a map for each look-ahead, and one voice activity."""
    model = SpeechMapModel(folder)
    assert tuple(model.maps) == INPUT_WINDOWS
    assert model.voice_activity is not None
    versions = {model.version(hearing) for hearing in INPUT_WINDOWS}
    assert len(versions) == len(INPUT_WINDOWS)


def test_card_names_recordings_without_picture(folder: Path) -> None:
    card = (folder / MODEL_FILE).with_suffix(".card.md").read_text(encoding="utf-8")
    assert "| audiobooks | CC BY 4.0 | 1 | 1 | 0.1 |" in card
    assert "| made | CC0 | 2 | 2 | 0.2 |" in card


def test_curve_has_every_look_ahead(folder: Path) -> None:
    """The curve has the scores of each look-ahead, of people left out and of the dev splits together, and the delay in ms."""
    with (folder / CURVE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["group"], int(row["frames"])) for row in rows] == [
        (group, frames) for group in (LEFT_OUT, ALL_DEV) for frames in LIVE_INPUT_WINDOWS
    ]
    assert [(int(row["least_delay_ms"]), int(row["most_delay_ms"])) for row in rows[:4]] == [
        (70, 110),
        (110, 150),
        (150, 190),
        (190, 230),
    ]
    assert all(-1.0 <= float(row["r_opening"]) <= 1.0 for row in rows)
    assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")
