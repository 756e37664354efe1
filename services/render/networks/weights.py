"""Network weights as safetensors: half precision on disk, float32 in memory, the configuration in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from services.common.errors import ModelNotFound
from services.common.tensor_bytes import encode_arrays
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.everybody import EverybodyConfig, EverybodyNetwork
from services.render.networks.headpose import HeadposeConfig, HeadposeNetwork
from services.render.networks.identity_embedding import IdentityEmbedding, IdentityEmbeddingConfig
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.refine import RefineConfig, RefineNetwork

Network = TypeVar("Network", bound=nn.Module)


def save_weights(path: Path, network: nn.Module, config: Mapping[str, Any], **metadata: str) -> None:
    """Write a network's state (floats as float16), its configuration and further metadata; equal states give equal bytes."""
    arrays = {
        name: value.detach().to(torch.float16 if value.is_floating_point() else value.dtype).numpy()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_arrays(arrays, {"config": json.dumps(dict(config)), **metadata}))


def load_refine(path: Path) -> RefineNetwork:
    """The refine network of a weights file, in evaluation mode and without gradients.

    Raises:
        ModelNotFound: no such file, or another network's.
    """
    config, state = _read(path)
    network = RefineNetwork(RefineConfig(widths=tuple(config["widths"]), depths=tuple(config["depths"])))
    return _filled(network, state, path)


def load_everybody(path: Path) -> EverybodyNetwork:
    """The network of `everybody` of a weights file; as `load_refine`."""
    config, state = _read(path)
    network = EverybodyNetwork(EverybodyConfig(widths=tuple(config["widths"]), depths=tuple(config["depths"])))
    return _filled(network, state, path)


def load_headpose(path: Path) -> HeadposeNetwork:
    """The network of `headpose` of a weights file; as `load_refine`."""
    config, state = _read(path)
    lists = {name: tuple(config[name]) for name in ("widths", "depths", "spatial_widths")}
    return _filled(HeadposeNetwork(HeadposeConfig(**{**config, **lists})), state, path)


def load_identity_embedding(path: Path) -> IdentityEmbedding:
    """The identity embedding of a weights file; as `load_refine`."""
    config, state = _read(path)
    return _filled(IdentityEmbedding(IdentityEmbeddingConfig(**{**config, "widths": tuple(config["widths"])})), state, path)


def metadata_of(path: Path) -> dict[str, str]:
    """The header of a weights file.

    Raises:
        ModelNotFound: no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (FileNotFoundError, SafetensorError) as error:
        raise ModelNotFound(f"no network weights at {path}: {error}", resource=str(path)) from error


def load_perceptual(path: Path) -> PerceptualNetwork:
    """The perceptual network of a weights file; as `load_refine`."""
    config, state = _read(path)
    network = PerceptualNetwork(PerceptualConfig(**{**config, "widths": tuple(config["widths"])}))
    return _filled(network, state, path)


def load_discriminator(path: Path) -> PatchDiscriminator:
    """The frame discriminator of a weights file; as `load_refine`, but ready to be trained on."""
    config, state = _read(path)
    return _filled(PatchDiscriminator(int(config["in_channels"])), state, path).train().requires_grad_(True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (FileNotFoundError, SafetensorError) as error:
        raise ModelNotFound(f"no network weights at {path}: {error}", resource=str(path)) from error
    if "config" not in metadata:
        raise ModelNotFound(f"{path} has no network configuration in its header", resource=str(path))
    return json.loads(metadata["config"]), state


def _filled(network: Network, state: dict[str, torch.Tensor], path: Path) -> Network:
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    except RuntimeError as error:
        raise ModelNotFound(f"{path} holds another network: {error}", resource=str(path)) from error
    return network.eval().requires_grad_(False)
