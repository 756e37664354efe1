"""The file in which a training run keeps its network, and its way back into a module."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from services.common.errors import InvalidRequest
from services.common.store.exported_network import write_whole

NETWORK_FILE: Final = "network.safetensors"


def save_network(module: nn.Module, run: Path) -> None:
    """Write the parameters and buffers of a module into the folder of a run. An interrupted call leaves the earlier file."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    # Not save_file, whose error of a full disk is no OSError.
    write_whole(run / NETWORK_FILE, save(state))


def load_network(module: nn.Module, run: Path) -> None:
    """Load what `save_network` wrote.

    Args:
        module: module of the sizes that the run's configuration names.
        run: folder of the run.

    Raises:
        InvalidRequest: the file is missing or damaged, or holds a network of other sizes.
    """
    path = run / NETWORK_FILE
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as problem:
        first = str(problem).splitlines()[0]
        raise InvalidRequest(
            f"{path} is not the network of this run: {first}; let the training reach a check", field="run"
        ) from problem
