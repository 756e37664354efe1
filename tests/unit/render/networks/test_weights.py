from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.common.errors import ModelNotFoundError
from services.render.losses import PatchDiscriminator, load_discriminator
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork, load_perceptual
from services.render.networks.weights import metadata_of, save_weights


def test_weights_come_back_ready_for_their_use(tmp_path: Path) -> None:
    path = tmp_path / "some" / "weights.safetensors"
    perceptual = PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4)))
    save_weights(path, perceptual, perceptual.config.to_metadata(), steps="7")
    again = load_perceptual(path)
    assert metadata_of(path)["steps"] == "7"
    assert not any(value.requires_grad for value in again.parameters())
    for name, value in again.state_dict().items():
        assert torch.equal(value, perceptual.state_dict()[name].half().float()), name
    save_weights(path, PatchDiscriminator(3), {"in_channels": 3})
    judge = load_discriminator(path)
    assert judge.training
    assert all(value.requires_grad for value in judge.parameters())


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    judge = PatchDiscriminator(3)
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    for path in (one, other):
        save_weights(path, judge, {"in_channels": 3})
    assert one.read_bytes() == other.read_bytes()


def test_a_missing_file_and_another_network_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no network weights at"):
        load_perceptual(tmp_path / "none.safetensors")
    with pytest.raises(ModelNotFoundError, match="no network weights at"):
        metadata_of(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    save_weights(path, PatchDiscriminator(3), {"in_channels": 3})
    with pytest.raises(ModelNotFoundError, match="holds another network"):
        load_perceptual(path)
    perceptual = PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4)))
    save_weights(path, perceptual, {"in_channels": 3})
    with pytest.raises(ModelNotFoundError, match="holds another network"):
        load_discriminator(path)
