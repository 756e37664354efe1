"""Sessions of ONNX Runtime for exported networks."""

from __future__ import annotations

import gzip
from pathlib import Path

import onnxruntime

from services.common.errors import ArtefactCorruptError
from services.common.store.exported_networks import REMEDY, checked_sha256


def open_network(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load a network. Several streams may run the session at once.

    Args:
        path: the ONNX file, or the ONNX file compressed by gzip (`.onnx.gz`).
        threads: threads inside one run.

    Raises:
        ModelNotFoundError: there is no such file.
        ArtefactCorruptError: the file differs from its description, or ONNX Runtime cannot read the file.
    """
    checked_sha256(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle worker threads must not spin: the other stages share the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        network = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else str(path)
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are not exported
        raise ArtefactCorruptError(f"{path} is damaged: {error}; {REMEDY}", resource=str(path)) from error
