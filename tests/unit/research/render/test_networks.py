from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from research.render.networks import NETWORKS, PREPARATIONS
from research.render.training import model_names, training_named
from research.training.training import LoopSettings
from services.common.errors import ModelNotFoundError
from services.common.methods import RENDERERS


def test_every_renderer_can_be_trained() -> None:
    names = [network.name for network in NETWORKS]
    assert names[0] == "perceptual"
    assert {f"{name}_renderer" for name in RENDERERS} <= set(names)
    assert PREPARATIONS == ()


def test_small_and_large_configurations() -> None:
    """Networks have a small and a large configuration that a file can hold."""
    for network in NETWORKS:
        assert {"default", "large"} == set(network.configs)
        for config in network.configs.values():
            assert isinstance(config.loop, LoopSettings)
            assert json.loads(json.dumps(asdict(config)))
        assert set(network.needs) <= {each.name for each in NETWORKS}


def test_large_networks_compute_in_bfloat16_from_several_workers() -> None:
    for network in NETWORKS:
        large = network.configs["large"].loop
        if large.steps:
            assert large.bfloat16
            assert large.workers > 1
            assert large.steps > network.configs["default"].loop.steps


def test_every_renderer_has_a_training_part() -> None:
    assert model_names() == sorted(RENDERERS)
    for name in RENDERERS:
        assert training_named(name).networks[-1].name == f"{name}_renderer"


def test_unknown_network_lists_names() -> None:
    """A name that is not there is refused with the names there are."""
    with pytest.raises(ModelNotFoundError, match="everybody, everyone, headpose, hetero, ugc"):
        training_named("nobody")
