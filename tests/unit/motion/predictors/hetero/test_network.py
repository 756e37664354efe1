from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from research.methods.hetero.speech_data import input_shape
from services.motion.predictors.hetero.network import PHONES_AFTER, PHONES_BEFORE, SHRINKS, HeteroNetwork
from services.motion.predictors.hetero.predictor import WINDOW, WINDOW_PAST, SpeechInput
from services.motion.speech_states import STATES_AHEAD, STATES_PAST
from tests.unit.motion.predictors.hetero.made import TINY


@pytest.fixture(scope="module", params=get_args(SpeechInput))
def network(request: pytest.FixtureRequest) -> HeteroNetwork:
    torch.manual_seed(1)
    network = HeteroNetwork(replace(TINY.network, heard=request.param)).eval()
    network.set_constants(torch.randn(16, 59, 3), torch.randn(59, 3), torch.randn(99, 3))
    return network


@pytest.fixture
def person(network: HeteroNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    reference, pose = network.person(torch.randn(1, 5, 59, 3), torch.randn(1, 99, 3))
    return reference, pose


@torch.no_grad()
def test_a_stretch_gives_the_frames_of_its_windows(network: HeteroNetwork, person: tuple[torch.Tensor, torch.Tensor]) -> None:
    speech = torch.randn(1, WINDOW + 5, *input_shape(network.config.heard))
    together = network(speech, *person)[0]
    alone = torch.stack([network(speech[:, n : n + WINDOW], *person)[0, 0] for n in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert WINDOW == SHRINKS + 1


@torch.no_grad()
def test_every_frame_of_the_window_is_heard(network: HeteroNetwork, person: tuple[torch.Tensor, torch.Tensor]) -> None:
    several = 16  # a tiny network's rectifiers are shut for some sounds: one of several sounds has to be heard
    speech = torch.randn(several, WINDOW, *input_shape(network.config.heard))
    alike = [vectors.expand(several, *vectors.shape[1:]) for vectors in person]
    plain = network(speech, *alike)
    for frame in (0, WINDOW_PAST, WINDOW - 1):
        changed = speech.clone()
        changed[:, frame] += 3.0
        assert not torch.equal(network(changed, *alike), plain)


@torch.no_grad()
def test_phones_around_the_answer(network: HeteroNetwork, person: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Phones are named for the frames around the answer."""
    generated = network.generate(torch.randn(1, WINDOW + 3, *input_shape(network.config.heard)), *person)
    assert generated.coefficients.shape == (1, 4, 16)
    assert generated.phones.shape == (1, PHONES_BEFORE + 4 + PHONES_AFTER, 4, 40)


@torch.no_grad()
def test_reference_is_mean(network: HeteroNetwork) -> None:
    """The reference is a mean over any number of mouths."""
    mouths, pose = torch.randn(1, 6, 59, 3), torch.zeros(1, 99, 3)
    whole, _ = network.person(mouths, pose)
    parts = [network.person(mouths[:, n : n + 1], pose)[0] for n in range(6)]
    torch.testing.assert_close(whole, torch.stack(parts).mean(dim=0))
    torch.testing.assert_close(network.person(mouths.flip(1), pose)[0], whole)


def test_vector_shares_sum_to_one(network: HeteroNetwork) -> None:
    """The shares of the three vectors sum to one."""
    shares = network.shares()
    assert shares.shape == (3,)
    assert float(shares.detach().sum()) == pytest.approx(1.0)
    assert shares.requires_grad


@torch.no_grad()
def test_generator_adds_to_filter() -> None:
    """The generator adds its share to the filter of the states about the frame."""
    torch.manual_seed(1)
    networks = [HeteroNetwork(replace(TINY.network, heard="states", share=share)).eval() for share in (0.0, 0.5, 1.0)]
    weight, bias, projection = torch.randn(16, 7 * 192), torch.randn(16), torch.randn(16, 59, 3)
    for network in networks:
        network.load_state_dict(networks[0].state_dict())
        network.set_constants(projection, torch.zeros(59, 3), torch.zeros(99, 3))
        network.set_filter(weight, bias)
    speech, vector = torch.randn(1, WINDOW, 192), torch.randn(1, 8)
    none, half, whole = (network(speech, vector, vector)[0, 0] for network in networks)
    around = speech[0, WINDOW_PAST - STATES_PAST : WINDOW_PAST + STATES_AHEAD + 1]
    torch.testing.assert_close(none, weight @ around.flatten() + bias, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(half, (none + whole) / 2, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(none, whole, atol=1e-2)
