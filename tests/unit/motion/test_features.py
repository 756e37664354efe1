from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.wire.phones import PHONES
from services.motion.features import (
    ARTICULATIONS,
    NUM_CONTENT,
    NUM_SYNC,
    ContentStream,
    bilabial_probability,
    content_rows,
    silence,
    sync_rows,
)
from tests.unit.audio.test_spectral import spectral_rows
from tests.unit.motion.synthesised import random_features, speech


def test_every_phone_has_exactly_one_articulation() -> None:
    members = [phone for group in ARTICULATIONS for phone in group]
    assert sorted(members) == sorted(PHONES)


def test_articulations_keep_the_probability_mass() -> None:
    heard = sync_rows(random_features(6))
    assert heard.shape == (6, 4, NUM_SYNC)
    np.testing.assert_allclose(heard[..., : len(ARTICULATIONS)].sum(-1), 1.0, atol=1e-5)


def test_similar_phones_share_class() -> None:
    """Phones that look alike sound alike to the sync network."""
    # Probabilities of one articulation are added in the order of the BLAS kernel: at most 4 roundings of float32 apart.
    np.testing.assert_allclose(sync_rows(speech(["SH"])), sync_rows(speech(["CH"])), rtol=0.0, atol=1e-6)
    assert np.abs(sync_rows(speech(["P"])) - sync_rows(speech(["T"]))).max() > 0.5


def test_recording_level_does_not_change_the_content() -> None:
    features = random_features(20)
    louder = replace(features, mel=features.mel + 2.5)
    assert content_rows(features).shape == (20, 4, NUM_CONTENT)
    np.testing.assert_allclose(content_rows(louder), content_rows(features), atol=1e-4)


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_content_in_pieces_has_the_same_bytes(cut: int) -> None:
    features = random_features(250)
    stream = ContentStream()
    pieces = [stream.push(features[begin : begin + cut]) for begin in range(0, 250, cut)]
    np.testing.assert_array_equal(np.concatenate(pieces), content_rows(features))


def test_content_knows_nothing_of_later_frames() -> None:
    features = random_features(30)
    np.testing.assert_array_equal(content_rows(features[:12]), content_rows(features)[:12])


def test_bilabials_are_found_and_nothing_else() -> None:
    found = bilabial_probability(speech(["P", "AA", "M", "F", "B"], frames_each=1))
    np.testing.assert_array_equal(found > 0.5, [True, False, True, False, True])


def test_silence_equals_digital_silence() -> None:
    """Silence is what the audio stage hears in digital silence."""
    np.testing.assert_allclose(silence(1).mel[0], spectral_rows(np.zeros(640, np.float32)), atol=1e-4)
