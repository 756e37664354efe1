"""The committed networks of the audio stage on real speech: of a person they were never trained on, and of many readers."""

from fractions import Fraction

import numpy as np
import pytest

from research.audio.identity_removal.evaluate import Labelled, fit, speaker_accuracy
from research.audio.recordings import LabelledSignal
from services.audio.extract import extract_features
from services.audio.models import WEIGHTS, AudioModels
from services.audio.posteriorgram import PosteriorgramModel
from services.common.wire.timeline import Timeline
from tests.conftest import Clips
from tests.sound import read_mono_16k

LEAST_ACCURACY = 0.62


@pytest.mark.long
def test_phones_of_an_unknown_speaker_are_recognised(clips: Clips) -> None:
    """VCTK p228 against the forced alignment of the transcript, beside pocketsphinx's free phone recognition."""
    pytest.importorskip("pocketsphinx")
    from research.audio.evaluate_posteriorgram import accuracy, network_classes
    from research.audio.labelling import Sphinx, label

    sphinx = Sphinx()
    labels, heard, baseline = [], [], []
    for row in clips.rows(use="val", under="speech/vctk")[:2]:
        samples = read_mono_16k(row.path)
        found = label(sphinx, samples, row.transcript, ())
        assert found.origin == "aligned"
        labels.append(found.labels)
        heard.append(network_classes(PosteriorgramModel(WEIGHTS), LabelledSignal(samples, found.labels)))
        baseline.append(found.free_phones)
    network = accuracy(np.concatenate(heard), np.concatenate(labels))
    assert network.all_rows > LEAST_ACCURACY
    assert network.all_rows > accuracy(np.concatenate(baseline), np.concatenate(labels)).all_rows


SPEAKERS = 10
LEAST_SAMPLES = 11 * 16000
KINDS = frozenset({"mfcc", "identity_removed"})


@pytest.mark.long
def test_features_hide_the_speaker(clips: Clips, models: AudioModels) -> None:
    """Ten readers are recognised by their cepstra, and not by the features without identity."""
    parts: dict[str, list[list[Labelled]]] = {"mfcc": [[], []], "identity_removed": [[], []]}
    speaker = 0
    for row in clips.rows(use="train", under="speech/librispeech"):
        samples = read_mono_16k(row.path)
        if len(samples) < LEAST_SAMPLES:
            continue
        features = extract_features(samples, 16000, Timeline(rate=Fraction(25)), KINDS, models=models)
        for name, (training, held_out) in parts.items():
            rows = features[name].reshape(-1, features[name].shape[-1])[:, :20]
            cut = int(0.6 * len(rows))
            training.append(Labelled(rows[:cut], np.full(cut, speaker)))
            held_out.append(Labelled(rows[cut + 50 :], np.full(len(rows) - cut - 50, speaker)))
        speaker += 1
        if speaker == SPEAKERS:
            break
    told = {
        name: speaker_accuracy(fit("row linear", training, SPEAKERS, steps=60, rows=60), held_out).segment
        for name, (training, held_out) in parts.items()
    }
    assert told["mfcc"] > 0.8
    assert told["identity_removed"] < 0.35  # chance is .1
