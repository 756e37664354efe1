"""The preparation `phones` of a training set."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from research.audio.networks import PREPARATIONS
from research.audio.recordings import IGNORED
from research.audio.relabel import relabel
from research.training.trainset import ClipRow, TrainSet, part_path, read_manifest
from services.audio.models import WEIGHTS
from services.common.array_types import Float32
from services.common.wire.phones import NUM_PHONES
from tests.unit.research.audio.speech_sets import speech_set, write_part, write_rows

(PHONES,) = PREPARATIONS


def prepared(folder: Path, processes: int = 1) -> tuple[dict[str, str], list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    reasons = PHONES.prepare(folder, folder / "clips", processes, lambda done, total: seen.append((done, total)))
    return dict(reasons), seen


def clip(name: str, transcript: str = "") -> ClipRow:
    return ClipRow(
        name=name, shard="00000", file=f"{name}.wav", sha256=name, source="", speaker=name, split="train", transcript=transcript
    )


@pytest.fixture
def spoken(tmp_path: Path, speech: Float32) -> Path:
    """Return a set with a transcribed clip, a clip with times of words, a clip with sound alone, and a silent clip."""
    return write_spoken(tmp_path, speech)


@pytest.fixture(scope="module")
def labelled(speech: Float32, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], list[tuple[int, int]]]:
    """Return such a set with labels, the reasons that were given, and the progress that was shown."""
    folder = write_spoken(tmp_path_factory.mktemp("labelled"), speech)
    return folder, *prepared(folder)


def write_spoken(folder: Path, speech: Float32) -> Path:
    rows = [clip("told", "Hello, and welcome."), clip("timed"), clip("heard"), clip("silent")]
    hello = np.round(32767 * speech[:24000]).astype(np.int16)
    words = json.dumps([["sil", 0.0, 0.1], ["hello", 0.1, 0.5], ["and", 0.5, 0.75], ["welcome", 0.75, 1.2]])
    for row in rows:
        metadata = {"words": words} if row.name == "timed" else {}
        write_part(folder, row, "sound", {"samples": hello * np.int16(row.name != "silent")}, **metadata)
    write_rows(folder, rows)
    return folder


def origins(folder: Path) -> dict[str, str]:
    """Return the origin of the labels of each clip that has a file with labels."""
    found = {}
    for row in read_manifest(folder):
        path = part_path(folder, row.shard, row.name, "phones")
        if path.is_file():
            with safe_open(path, "numpy") as file:
                found[row.name] = file.metadata()["origin"]
    return found


def test_labels_name_their_origin(labelled) -> None:
    """Every clip with sound gets labels that say where they come from."""
    folder, reasons, seen = labelled
    assert origins(folder) == {"told": "aligned", "timed": "aligned", "heard": "recognised"}
    assert reasons == {"silent": "no phones: the clip has no sound"}
    assert seen[-1] == (4, 4)
    with safe_open(part_path(folder, "00000", "told", "phones"), "numpy") as file:
        assert file.get_tensor("labels").shape == file.get_tensor("heard").shape == (150,)
        assert file.get_tensor("labels").dtype == file.get_tensor("heard").dtype == np.uint8


def test_done_clips_stay_until_their_transcript_changes(spoken: Path) -> None:
    rows = list(read_manifest(spoken))
    write_rows(spoken, rows[:1])
    prepared(spoken)
    path = part_path(spoken, "00000", "told", "phones")
    before = path.stat().st_mtime_ns
    assert prepared(spoken) == ({}, [(1, 1)])
    assert path.stat().st_mtime_ns == before
    write_rows(spoken, [replace(rows[0], transcript="Something else was said.")])
    prepared(spoken)
    assert path.stat().st_mtime_ns != before


@pytest.mark.long
def test_processes_write_the_same_bytes(spoken: Path, labelled: tuple[Path, dict[str, str], list[tuple[int, int]]]) -> None:
    prepared(spoken, processes=2)
    for name in ("told", "timed", "heard"):
        made, alone = (part_path(folder, "00000", name, "phones").read_bytes() for folder in (spoken, labelled[0]))
        assert made == alone


def test_damaged_sound_named_others_labelled(spoken: Path) -> None:
    write_rows(spoken, list(read_manifest(spoken))[:2])
    damaged = part_path(spoken, "00000", "timed", "sound")
    damaged.write_bytes(b"no sound")
    reasons, _ = prepared(spoken)
    assert list(reasons) == ["timed"]
    assert str(damaged) in reasons["timed"]
    assert origins(spoken) == {"told": "aligned"}


@pytest.mark.long
def test_network_labels_unknown_words(tmp_path: Path) -> None:
    rows = speech_set(tmp_path, speakers=2, clips=1)
    write_rows(tmp_path, [rows[0], replace(rows[1], phones="allphone")])
    assert relabel(TrainSet(tmp_path), WEIGHTS) == 1
    assert [row.phones for row in read_manifest(tmp_path)] == ["aligned", "network"]
    with safe_open(part_path(tmp_path, "00000", rows[1].name, "phones"), "numpy") as file:
        labels = file.get_tensor("labels")
        assert file.metadata()["origin"] == "network"
        assert labels.shape == file.get_tensor("heard").shape
    assert set(labels.tolist()) <= {*range(NUM_PHONES), IGNORED}
    prepared(tmp_path)
    assert origins(tmp_path)[rows[1].name] == "network"
