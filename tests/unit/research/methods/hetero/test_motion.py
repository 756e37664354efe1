"""Tests of the generator's losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from research.methods.hetero.motion import GeneratorLoss, HeteroLossWeights
from research.methods.hetero.speech_data import HeteroBatch
from research.motion.basis import committed_basis
from services.motion.predictors.hetero.network import Generated
from tests.unit.motion.synthesised import rest_mouth

BASIS = committed_basis()
FRAMES = 12


def truth() -> Tensor:
    """Coefficients of somebody who opens and shuts the mouth, [1, T, K]."""
    coefficients = torch.zeros(1, FRAMES, 16)
    coefficients[0, :, 0] = torch.linspace(0.0, 6.0, FRAMES).sin() + 1.0
    return coefficients


def batch(*, valid: float = 1.0, alone: Tensor | None = None) -> HeteroBatch[Tensor]:
    spread = torch.tensor(BASIS.typical_spread)[None]
    offsets = torch.einsum("ntk,kpd->ntpd", truth() * spread[:, None], torch.tensor(BASIS.components))
    phones = torch.zeros(1, FRAMES + 6, 4, 40)
    phones[..., 0] = 1.0
    return HeteroBatch(
        speech=torch.zeros(1, FRAMES + 18, 192),
        phones=phones,
        taught=truth(),
        inside=torch.ones(1, FRAMES),
        offsets=offsets,
        valid=torch.full((1, FRAMES), valid),
        alone=torch.zeros(1, FRAMES, 16) if alone is None else alone,
        spread=spread,
        rest=torch.tensor(rest_mouth())[None],
        closed=torch.zeros(1, FRAMES),
        closed_opening=torch.zeros(1),
        reference=torch.zeros(1, 1, 59, 3),
        pose=torch.zeros(1, 99, 3),
    )


def named(phone: int) -> Tensor:
    logits = torch.zeros(1, FRAMES + 6, 4, 40)
    logits[..., phone] = 20.0
    return logits


@pytest.fixture(scope="module")
def loss() -> GeneratorLoss:
    return GeneratorLoss(BASIS, HeteroLossWeights(), torch.device("cpu"))


def test_the_right_answer_costs_nothing(loss: GeneratorLoss) -> None:
    parts = loss(Generated(truth(), named(0)), batch())
    assert set(parts) == {"total", "landmarks", "velocity", "opening", "correlation", "closure", "taught", "phones"}
    # The lips of these mouths keep their width, which has no correlation: .4 of the part `correlation`.
    none = {**dict.fromkeys(parts, 0.0), "correlation": 0.4, "total": 0.2}
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(none, abs=2e-2)


def test_wrong_phones_cost(loss: GeneratorLoss) -> None:
    """Wrong phones cost even where the mouth is right."""
    parts = loss(Generated(truth(), named(3)), batch())
    assert float(parts["phones"]) > 10.0
    assert float(parts["landmarks"]) < 1e-4


def test_faceless_speech_teaches_teacher(loss: GeneratorLoss) -> None:
    """Speech without a face teaches through the teacher alone."""
    parts = loss(Generated(truth() + 0.5, named(0)), batch(valid=0.0))
    assert float(parts["taught"]) > 0.1
    assert float(parts["landmarks"]) == float(parts["velocity"]) == 0.0


def test_narrow_corpus_not_asked(loss: GeneratorLoss) -> None:
    """Facts that hold in a narrow corpus alone are not asked of the network."""
    alone = 0.3 * torch.ones(1, FRAMES, 16)
    parts = loss(Generated(truth() - alone, named(0)), batch(alone=alone))
    assert float(parts["landmarks"]) < 1e-4


def test_small_mouth_weighs_as_large(loss: GeneratorLoss) -> None:
    """A small mouth counts as much as a large mouth."""
    given = batch()
    half = given._replace(spread=given.spread / 2.0, offsets=given.offsets / 2.0)
    large, small = (float(loss(Generated(truth() + 0.2, named(0)), each)["landmarks"]) for each in (given, half))
    np.testing.assert_allclose(small, large, rtol=1e-4)
