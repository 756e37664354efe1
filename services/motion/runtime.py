"""ONNX Runtime with this stage's settings: few threads that never spin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from services.common.array_types import Float32
from services.common.errors import ModelNotFound
from services.common.store.tensor_bytes import NamedArrays, decode_arrays

_REMEDY = "make it with `python -m services.motion.export` (docs/training.md)"


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Return a loaded network.

    Args:
        path: the ONNX file.
        threads: threads inside one inference.

    Raises:
        ModelNotFound: the file is missing.
    """
    if not path.is_file():
        raise ModelNotFound(f"no model at {path}; {_REMEDY}", resource=path.name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads of an idle session would take the cores from the other stages.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read_constants(path: Path) -> NamedArrays:
    """Return the arrays that belong to a network.

    Raises:
        ModelNotFound: the file is missing.
    """
    if not path.is_file():
        raise ModelNotFound(f"no file {path}; {_REMEDY}", resource=path.name)
    return decode_arrays(path.read_bytes())


def run(loaded: ort.InferenceSession, **inputs: Float32) -> list[Float32]:
    """Return all outputs of one inference."""
    outputs: list[Any] = loaded.run(None, inputs)
    return [np.asarray(output, dtype=np.float32) for output in outputs]
