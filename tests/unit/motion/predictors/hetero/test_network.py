from __future__ import annotations

import pytest
import torch

from services.motion.predictors.hetero.inputs import WINDOW, WINDOW_PAST
from services.motion.predictors.hetero.network import PHONES_AFTER, PHONES_BEFORE, SHRINKS, HeteroNetwork
from tests.unit.motion.predictors.hetero.made import TINY


@pytest.fixture(scope="module")
def network() -> HeteroNetwork:
    torch.manual_seed(1)
    network = HeteroNetwork(TINY.network).eval()
    network.set_constants(torch.randn(16, 59, 3), torch.randn(59, 3), torch.randn(99, 3))
    return network


@pytest.fixture
def person(network: HeteroNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    reference, pose = network.person(torch.randn(1, 5, 59, 3), torch.randn(1, 99, 3))
    return reference, pose


@torch.no_grad()
def test_a_stretch_gives_the_frames_of_its_windows(network: HeteroNetwork, person: tuple[torch.Tensor, torch.Tensor]) -> None:
    mel = torch.randn(1, WINDOW + 5, 4, 80)
    together = network(mel, *person)[0]
    alone = torch.stack([network(mel[:, n : n + WINDOW], *person)[0, 0] for n in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert WINDOW == SHRINKS + 1


@torch.no_grad()
def test_every_frame_of_the_window_is_heard(network: HeteroNetwork, person: tuple[torch.Tensor, torch.Tensor]) -> None:
    several = 16  # a tiny network's rectifiers are shut for some sounds: one of several sounds has to be heard
    mel = torch.randn(several, WINDOW, 4, 80)
    alike = [vectors.expand(several, *vectors.shape[1:]) for vectors in person]
    plain = network(mel, *alike)
    for frame in (0, WINDOW_PAST, WINDOW - 1):
        changed = mel.clone()
        changed[:, frame] += 3.0
        assert not torch.equal(network(changed, *alike), plain)


@torch.no_grad()
def test_phones_are_named_for_the_frames_around_the_answer(
    network: HeteroNetwork, person: tuple[torch.Tensor, torch.Tensor]
) -> None:
    generated = network.generate(torch.randn(1, WINDOW + 3, 4, 80), *person)
    assert generated.coefficients.shape == (1, 4, 16)
    assert generated.phones.shape == (1, PHONES_BEFORE + 4 + PHONES_AFTER, 4, 40)


@torch.no_grad()
def test_the_reference_is_a_mean_over_any_number_of_mouths(network: HeteroNetwork) -> None:
    mouths, pose = torch.randn(1, 6, 59, 3), torch.zeros(1, 99, 3)
    whole, _ = network.person(mouths, pose)
    parts = [network.person(mouths[:, n : n + 1], pose)[0] for n in range(6)]
    torch.testing.assert_close(whole, torch.stack(parts).mean(dim=0))
    torch.testing.assert_close(network.person(mouths.flip(1), pose)[0], whole)


def test_the_shares_of_the_three_vectors_sum_to_one(network: HeteroNetwork) -> None:
    shares = network.shares()
    assert shares.shape == (3,)
    assert float(shares.detach().sum()) == pytest.approx(1.0)
    assert shares.requires_grad
