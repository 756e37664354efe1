"""The classifiers that judge the Audio ID-Removing Network, and the measurement on a training set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from research.audio.identity_removal.evaluate import Labelled, evaluate, excerpts, fit, row_accuracy, speaker_accuracy, speaker_sets
from research.audio.identity_removal.training import SpeakerClassifier, confusion_loss
from research.training.trainset import TrainSet
from services.audio.identity_removal import IdentityRemovalModel
from services.audio.models import WEIGHTS
from tests.unit.research.audio.speech_sets import speech_set, write_rows


def test_confusion_is_zero_where_all_speakers_are_alike() -> None:
    critic = SpeakerClassifier(4).eval()
    for layer in (critic.rows, critic.pooled, critic.statistics):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.inference_mode():
        assert float(confusion_loss(critic(torch.randn(2, 20, 20)))) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("name", "steps"), [("row linear", 30), ("segment linear", 200)])
def test_classifier_separates_real_speakers(name: str, steps: int) -> None:
    """A fresh classifier tells speakers that differ and not those that do not."""

    def accuracy(size: float) -> float:
        rng = np.random.default_rng(1)
        voices = size * np.eye(4, 6)
        sets = [
            [
                Labelled((rng.standard_normal((600, 6)) + voices[speaker]).astype(np.float32), np.full(600, speaker))
                for speaker in range(4)
            ]
            for _ in range(2)
        ]
        return speaker_accuracy(fit(name, sets[0], 4, steps=steps, rows=40), sets[1]).segment

    assert accuracy(3.0) > 0.9
    assert accuracy(0.0) < 0.6


def test_a_fresh_row_classifier_learns_phones() -> None:
    rng = np.random.default_rng(0)
    phones = rng.standard_normal((40, 20))
    labels = [rng.integers(0, 40, 50).repeat(8) for _ in range(2)]
    examples = [Labelled((phones[some] + 0.1 * rng.standard_normal((400, 20))).astype(np.float32), some) for some in labels]
    assert row_accuracy(fit("row linear", examples[:1], 40, steps=40, rows=60), examples[1:]) > 0.5


def test_evaluation_by_source_and_speaker(tmp_path: Path) -> None:
    """A set is measured by source with its held out speakers apart."""
    rows = [replace(row, source="readers") for row in speech_set(tmp_path, speakers=4)]
    write_rows(tmp_path, [replace(row, split="val" if row.speaker in {"s2", "s3"} else "train") for row in rows])
    data = TrainSet(tmp_path)
    assert {source: len({part.speaker for part in parts}) for source, parts in speaker_sets(excerpts(data)).items()} == {
        "readers": 2,
        "readers, val": 2,
    }
    model = IdentityRemovalModel(WEIGHTS)
    report = evaluate(model, data, sets=["readers"], kinds=["cepstra", "removed"], steps=2)
    assert report["speakers"].keys() == {"readers"}
    assert report["speakers"]["readers"]["removed"]["chance"] == 0.5
    assert 0.0 <= report["phones"]["removed"]["row linear"]["val"] <= 1.0
