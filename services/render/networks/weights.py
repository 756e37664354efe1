"""Network weights as safetensors: half precision in the file, float32 in memory, the network's configuration in the header."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from services.common.array_types import UInt8
from services.common.errors import ModelNotFoundError
from services.common.files import write_whole
from services.common.store.tensor_bytes import encode_arrays

Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config", bound="StoredConfig")


def to_tensor(pictures: UInt8, device: torch.device | None = None) -> torch.Tensor:
    """Return pictures as float32 [B, C, H, W] in [0, 1], channels last in memory.

    Args:
        pictures: uint8 [B, H, W, C].
        device: device of the tensor; None: the CPU.
    """
    # The bytes go to the device, where they become floats: a quarter of the copying.
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float().div_(255.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredConfig:
    """Base of the configurations that the headers of weights files hold. Fields are numbers, switches and tuples of numbers."""

    @classmethod
    def from_metadata(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration in a header. JSON has lists where a configuration has tuples.

        Raises:
            TypeError: the header belongs to another configuration: a field is missing or unknown.
        """
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def to_metadata(self) -> dict[str, Any]:
        """Return plain values, for the header of a weights file."""
        return asdict(self)


def save_weights(path: Path, network: nn.Module, config: Mapping[str, Any], **metadata: str) -> None:
    """Write a network's state (floats as float16), its configuration and further metadata. Equal states give equal bytes."""
    arrays = {
        name: value.detach().to(torch.float16 if value.is_floating_point() else value.dtype).cpu().numpy()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encode_arrays(arrays, {"config": json.dumps(dict(config)), **metadata}))


def load_network(path: Path, build: Callable[[dict[str, Any]], Network]) -> Network:
    """Return the network of a weights file, in evaluation mode and without gradients.

    Args:
        path: a file that `save_weights` wrote.
        build: makes the network from the configuration in the file's header.

    Raises:
        ModelNotFoundError: the file is missing or holds another network.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (FileNotFoundError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if "config" not in metadata:
        raise ModelNotFoundError(f"{path} has no network configuration in its header", resource=str(path))
    try:
        network = build(json.loads(metadata["config"]))
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    except (RuntimeError, KeyError, TypeError) as error:
        raise ModelNotFoundError(f"{path} holds another network: {error}", resource=str(path)) from error
    return network.eval().requires_grad_(False)


def loader(network: Callable[[Config], Network], config: type[Config]) -> Callable[[Path], Network]:
    """Return the function that reads one kind of network from a weights file; see `load_network`, also for its errors.

    Args:
        network: class of the network, made from its configuration.
        config: class of the configuration in the file's header.
    """
    return lambda path: load_network(path, lambda values: network(config.from_metadata(values)))


def metadata_of(path: Path) -> dict[str, str]:
    """Return the header of a weights file.

    Raises:
        ModelNotFoundError: the file is missing.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (FileNotFoundError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ModelNotFoundError:
    return ModelNotFoundError(f"no network weights at {path}: {error}", resource=str(path))
