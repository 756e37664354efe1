"""The committed network on real speech of a person it was never trained on."""

import numpy as np
import pytest

from services.audio.models import WEIGHTS
from services.audio.posteriorgram import PosteriorgramModel
from services.audio.train.corpus import read_mono_16k, words_of
from services.audio.train.dataset import Recording
from services.audio.train.evaluate import accuracy, network_classes
from tests.conftest import Clips

LEAST_ACCURACY = 0.62


def test_phones_of_an_unknown_speaker_are_recognised(clips: Clips) -> None:
    """VCTK p228 against the forced alignment of the transcript, beside pocketsphinx's free phone recognition."""
    sphinx_module = pytest.importorskip("services.audio.train.sphinx")
    dataset = pytest.importorskip("services.audio.train.augment")
    sphinx = sphinx_module.Sphinx()
    labels, heard, baseline = [], [], []
    for row in clips.rows(use="val", under="speech/vctk")[:2]:
        samples = read_mono_16k(row.path)
        words = sphinx.align(samples, words_of(row.transcript))
        assert words is not None
        truth = sphinx_module.rows_of(words, sphinx_module.num_rows(samples))
        free = sphinx.allphone(samples)
        recording = Recording(row.file, "vctk", row.speaker, dataset.LabelledSignal(samples, truth), free)
        labels.append(truth)
        heard.append(network_classes(PosteriorgramModel(WEIGHTS), recording))
        baseline.append(free)
    network = accuracy(np.concatenate(heard), np.concatenate(labels))
    assert network.all_rows > LEAST_ACCURACY
    assert network.all_rows > accuracy(np.concatenate(baseline), np.concatenate(labels)).all_rows
