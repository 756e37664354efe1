"""ONNX Runtime as this stage uses it: few threads, and no spinning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from services.common.errors import ModelNotFound
from services.common.tensor_bytes import NamedArrays, decode_arrays
from services.motion.types import Float32


def session(path: Path, threads: int, made_by: str = "services.motion.export") -> ort.InferenceSession:
    """A loaded network.

    Raises:
        ModelNotFound: no file.
    """
    if not path.is_file():
        raise ModelNotFound(f"no model at {path}; make it by `python -m {made_by}`", resource=path.name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads of an idle session would take the cores from the other stages.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read_constants(path: Path) -> NamedArrays:
    """The arrays that go with a network.

    Raises:
        ModelNotFound: no file.
    """
    if not path.is_file():
        raise ModelNotFound(f"no file {path}", resource=path.name)
    return decode_arrays(path.read_bytes())


def run(loaded: ort.InferenceSession, **inputs: Float32) -> list[Float32]:
    """All outputs of one inference."""
    outputs: list[Any] = loaded.run(None, inputs)
    return [np.asarray(output, dtype=np.float32) for output in outputs]
