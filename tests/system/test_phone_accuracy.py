"""The committed network on real speech of a person it was never trained on."""

import numpy as np
import pytest

from research.audio.recordings import LabelledSignal
from services.audio.models import WEIGHTS
from services.audio.posteriorgram import PosteriorgramModel
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
        baseline.append(found.heard)
    network = accuracy(np.concatenate(heard), np.concatenate(labels))
    assert network.all_rows > LEAST_ACCURACY
    assert network.all_rows > accuracy(np.concatenate(baseline), np.concatenate(labels)).all_rows
