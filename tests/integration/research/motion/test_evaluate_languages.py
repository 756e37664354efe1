"""The judge of a served predictor on a made-up set: rows by clip and by language, and recordings without a picture."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.motion import evaluate_languages as command
from research.motion.clips import TrainingClip
from research.motion.protocol import ClipScores, evaluate_clip
from research.training.trainset import MANIFEST, manifest_line
from services.common.face.landmarks import mouth_opening
from services.common.wire.phones import PHONE_INDEX
from services.motion.models import MotionModels
from services.motion.style import Style, encode_style
from services.motion.types import SpeechFeatures
from tests.unit.motion.made_clips import made_clip, row_of, write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips in two languages, and a recording."""
    folder = tmp_path_factory.mktemp("evaluated")
    clips = [made_clip(0, "train", 150, "anna"), made_clip(1, "dev", 150, "ben"), made_clip(2, "speech", 100, "carl")]
    data = write_set(folder, clips)
    said = [replace(row, language=language) for row, language in zip(data.rows, ("en", "zh", ""), strict=True)]
    said[2] = replace(said[2], has_face=False, usable_frames=0)
    (folder / MANIFEST).write_text("".join(map(manifest_line, said)), encoding="utf-8")
    return folder


def test_clips_languages_and_recordings_have_their_rows(folder, tmp_path, monkeypatch, capsys) -> None:
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["judge", "--predictor", "dubstage", "--data", str(folder), "--json", str(report)])
    assert command.main() == 0
    found = json.loads(report.read_text())
    shown = [(row["name"], row["language"], row["split"]) for row in found["clips"]]
    assert shown == [("clip0", "en", "train"), ("clip1", "zh", "dev")]
    assert [(row["name"], row["people"]) for row in found["languages"]] == [("en", 1), ("zh", 1)]
    # By default the people outside of the split `train` speak the recordings.
    ((recording),) = found["speech"]
    assert (recording["name"], recording["language"], recording["person"]) == ("clip2", "unknown", "ben")
    for row in (*found["clips"], *found["languages"]):
        assert -1.0 <= row["r_opening"] <= 1.0
        assert row["lmd_ratio"] > 0.0
    printed = capsys.readouterr().out
    assert "Recordings without a picture" in printed
    assert "| clip1 | zh | dev | 1 |" in printed


def test_an_unknown_person_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["judge", "--predictor", "dubstage", "--data", str(folder), "--person", "dora"])
    assert command.main() == 10
    assert "no clip shows the mouth of speaker 'dora'; there are: anna, ben" in capsys.readouterr().err


def style_of(clip: TrainingClip, models: MotionModels) -> Style:
    return encode_style(clip.mouth_landmarks, clip.usable, models.basis, models)


def follow(clip: TrainingClip, models: MotionModels, late: int) -> ClipScores:
    """Scores of a predictor that answers the truth, late by some frames."""
    predicted = np.roll(clip.mouth_landmarks, late, axis=0)
    return evaluate_clip(clip, lambda *_: style_of(clip, models), lambda *_: predicted, control=False)


def test_a_language_is_the_mean_of_its_people(models: MotionModels) -> None:
    clips = [made_clip(index, "dev", 450, name) for index, name in enumerate(("anna", "ben", "carl"))]
    rows = [replace(row_of(clip), language="de") for clip in clips]
    results = [(row, follow(clip, models, late)) for row, clip, late in zip(rows, clips, (0, 0, 1), strict=True)]
    (german,) = command.by_language(results, ())
    perfect, _, late = (command.mean_metrics([result], "", "") for result in results)
    assert german.people == 3
    assert (perfect.r_opening, perfect.fastest_step, perfect.lmd_ratio) == pytest.approx((1, 1, 0))
    assert german.r_opening == pytest.approx((2.0 + late.r_opening) / 3)
    assert late.r_opening < 0.9
    # Held-out clips of a trained speaker are no clips of other people.
    apart = list(command.by_language(results, {"carl"}))
    assert [each.people for each in apart] == [2, 1]
    assert apart[1].r_opening == pytest.approx(late.r_opening)


def test_closure_and_silence_of_speech_without_a_picture(models: MotionModels) -> None:
    person, sound = made_clip(1, "dev", 150, "ben"), silent_ends(made_clip(2, "speech", 100, "carl").features)
    own = mouth_opening(person.mouth_landmarks)
    shut, wide = person.mouth_landmarks[own.argmin()], person.mouth_landmarks[own.argmax()]
    row = replace(row_of(made_clip(2, "speech", 100, "carl")), has_face=False)

    def figures(open_frames: slice) -> command.SpeechMetrics:
        mouths = np.repeat(shut[None], 100, axis=0)
        mouths[open_frames] = wide
        return command.spoken(row, sound, person, style_of(person, models), lambda *_: mouths)

    quiet, late, closed = figures(slice(25, 64)), figures(slice(25, 65)), figures(slice(0, 0))
    assert quiet.silence_opening == 0.0
    low, high = np.percentile(own, [5, 95])
    assert late.silence_opening == pytest.approx((own.max() - low) / (high - low) / 2, rel=1e-3)
    assert (quiet.closure, closed.closure, quiet.closures) == (0.0, 1.0, 1)


def silent_ends(sound: SpeechFeatures) -> SpeechFeatures:
    """Speech in frames 30 to 59, with one p, b, m in the middle."""
    posteriorgram = np.zeros_like(sound.posteriorgram)
    posteriorgram[..., 0] = 1.0
    posteriorgram[44:46] = 0.0
    posteriorgram[44:46, :, PHONE_INDEX["M"]] = 1.0
    spoken = np.zeros(100, np.float32)
    spoken[30:60] = 1.0
    return replace(sound, posteriorgram=posteriorgram, speech_probability=spoken)
