"""Networks and constants of this stage: ONNX Runtime, and arrays beside the networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from services.common.array_types import Array, Float32
from services.common.errors import ArtefactCorruptError, InvalidRequestError
from services.common.store.exported_networks import checked_sha256
from services.common.store.tensor_bytes import NamedArrays, decode_arrays

if TYPE_CHECKING:
    from services.common.store.network_session import NetworkSession


def read_constants(path: Path) -> NamedArrays:
    """Return the arrays that belong to a network.

    Raises:
        ModelNotFoundError: the file is missing.
        ArtefactCorruptError: the file is damaged.
    """
    checked_sha256(path)
    try:
        return decode_arrays(path.read_bytes())
    except InvalidRequestError as problem:
        raise ArtefactCorruptError(
            f"{path} is damaged: {problem}; export the network into this folder again (`dubstage export`)", resource=path.name
        ) from problem


def shaped(
    arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], path: Path, remedy: str, prefix: str = ""
) -> dict[str, Float32]:
    """Return the arrays of these names, float32, by name without the prefix.

    Args:
        arrays: arrays of the file (read_constants).
        shapes: shape of each target array.
        path: the file, which errors name.
        remedy: what to do about a damaged file: the end of the message.
        prefix: beginning of the names in the file.

    Raises:
        ArtefactCorruptError: an array is missing, or has another shape.
    """
    by_name: dict[str, Float32] = {}
    for name, shape in shapes.items():
        values = arrays.get(f"{prefix}{name}")
        if values is None or values.shape != shape:
            raise ArtefactCorruptError(
                f"{path} is damaged: {prefix}{name} is missing or not of shape {list(shape)}; {remedy}", resource=path.name
            )
        by_name[name] = np.asarray(values, np.float32)
    return by_name


def run(loaded: NetworkSession, **inputs: Float32) -> list[Float32]:
    """Return all outputs of one inference."""
    outputs: list[Any] = loaded.run(None, inputs)
    return [np.asarray(output, dtype=np.float32) for output in outputs]
