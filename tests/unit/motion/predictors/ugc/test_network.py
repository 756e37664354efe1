"""The network: norms, AdaIN, look-ahead, prior."""

from __future__ import annotations

import pytest
import torch

from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.network import InstanceNorm, UgcConfig, UgcNetwork
from services.motion.predictors.ugc.predictor import WINDOW, WINDOW_AHEAD


@pytest.fixture(scope="module")
def network() -> UgcNetwork:
    torch.manual_seed(0)
    return UgcNetwork(UgcConfig()).eval()


def test_instance_norm_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instance norm follows equation 1 and has nothing to learn."""
    monkeypatch.setattr("services.motion.predictors.ugc.network._FLOOR", 0.0)
    norm = InstanceNorm()
    x = 3.0 * torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(1)) + 7.0
    expected = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)
    torch.testing.assert_close(norm(x), expected)
    assert not list(norm.parameters())


def test_instance_norm_leaves_silence_silent() -> None:
    still = torch.full((1, 3, 20), 5.0) + 1e-4 * torch.randn(1, 3, 20)
    assert InstanceNorm()(still).abs().max() < 0.02


def test_adain_scales_and_shifts_by_the_style(network: UgcNetwork) -> None:
    content = torch.randn(1, network.config.channels, WINDOW)
    plain = torch.zeros(1, network.config.num_modulated, 2, network.config.channels)
    styled = plain.clone()
    styled[:, :, 1] = 0.5
    with torch.no_grad():
        difference = network.decoder.hidden(content, styled) - network.decoder.hidden(content, plain)
    assert difference.abs().max() > 0.1


def test_style_code_ignores_order(network: UgcNetwork) -> None:
    """Style code does not depend on the order of long spans."""
    footage = torch.randn(1, 400, network.config.num_coefficients)
    swapped = torch.cat([footage[:, 200:], footage[:, :200]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(network.style.encode(footage), network.style.encode(swapped), atol=0.05, rtol=0.0)


def test_receptive_field_ahead() -> None:
    """A frame sees two frames ahead and no more but for the window statistics."""
    network = UgcNetwork(UgcConfig(content_norm=False)).eval()
    modulation = torch.zeros(1, network.config.num_modulated, 2, network.config.channels)
    content = torch.randn(1, WINDOW, 4, NUM_CONTENT)
    changed = content.clone()
    changed[:, 20:] += 1.0
    with torch.no_grad():
        moved = (network(content, modulation) - network(changed, modulation)).abs().amax(dim=2)[0]
    assert moved[: 20 - WINDOW_AHEAD].max() < 1e-5
    assert moved[20 - WINDOW_AHEAD] > 1e-4


def test_prior_is_not_trained(network: UgcNetwork) -> None:
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("prior") for name in trained)
    assert any(name.startswith("decoder") for name in trained)
