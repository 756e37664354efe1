from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from research.render.training import VggFeatures, load_vgg
from services.common.errors import InvalidRequestError


def test_features_come_at_four_scales() -> None:
    features = VggFeatures().eval()(torch.rand(1, 3, 16, 16))
    assert [tuple(feature.shape[1:]) for feature in features] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"nowhere\.pth"):
        load_vgg(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["other.pth", "other.safetensors"])
def test_non_state_dict_refused(tmp_path: Path, name: str) -> None:
    """A file that is no state dict is refused."""
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(InvalidRequestError, match="state dict"):
        load_vgg(tmp_path / name)


def test_other_network_names_layer(tmp_path: Path) -> None:
    """Another network is refused with the layer that differs."""
    state = {name: torch.zeros(value.shape) for name, value in VggFeatures().state_dict().items() if "34" not in name}
    state["features.0.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InvalidRequestError, match=r"features.0.weight has shape \[3\]"):
        load_vgg(tmp_path / "other.safetensors")
    del state["features.2.bias"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InvalidRequestError, match=r"no features\.2\.bias"):
        load_vgg(tmp_path / "other.safetensors")
