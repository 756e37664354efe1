"""The networks of motion that can be trained."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from research.motion.networks import NETWORKS, PREPARATIONS
from research.training.command import with_settings
from research.training.networks import TrainableNetwork
from services.common.methods import PREDICTORS


def test_one_network_per_predictor() -> None:
    """There is the sync network, and one network for each predictor that is trained in steps."""
    trained = [name for name in PREDICTORS if name not in {"dubstage", "dubstage_live", "portrait"}]
    assert [network.name for network in NETWORKS] == ["sync", *(f"{name}_motion" for name in trained)]
    assert [step.name for step in PREPARATIONS] == ["expression"]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_presets_are_whole_configurations(network: TrainableNetwork) -> None:
    default, large = network.configs["default"], network.configs["large"]
    for config in (default, large):
        assert with_settings(config, {"loop": {"steps": 3}}, source="test").loop.steps == 3
        assert type(config) is type(default)
    assert large.loop.bfloat16
    assert asdict(large)["network"] != asdict(default)["network"]
    assert set(network.needs) <= {each.name for each in NETWORKS}
