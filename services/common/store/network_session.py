"""Sessions of ONNX Runtime for exported networks."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.common.array_types import Array
from services.common.errors import ArtefactCorruptError
from services.common.store.exported_networks import REMEDY, checked_sha256, is_described


class NetworkSession:
    """A network, which the first run loads. Several streams may run the session at once.

    Args:
        path: the ONNX file, or the ONNX file compressed by gzip (`.onnx.gz`).
        threads: threads inside one run.
        sha256: digest of the file that was checked, hexadecimal.
    """

    def __init__(self, path: Path, threads: int, sha256: str) -> None:
        self._path, self._threads, self._sha256 = path, threads, sha256
        self._session: Any = None
        self._lock = threading.Lock()

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Any]:
        """Return the outputs of one run.

        Args:
            outputs: names of the outputs; None: all outputs.
            inputs: arrays by input name.

        Raises:
            ArtefactCorruptError: see `loaded`.
        """
        arrays: list[Any] = self.loaded().run(outputs, inputs)
        return arrays

    def loaded(self) -> Any:
        """Return the session of ONNX Runtime. The first call loads the network, later calls return the same object.

        Raises:
            ArtefactCorruptError: the file is not the one that was checked, or ONNX Runtime cannot read the file.
        """
        with self._lock:
            if self._session is None:
                self._session = _loaded(self._path, self._threads, self._sha256)
            return self._session


def open_network(path: Path, threads: int) -> NetworkSession:
    """Check the file of a network, and return its session, which the first run loads.

    A file that no description names is loaded here, since only this shows whether the file is damaged.

    Args:
        path: the ONNX file, or the ONNX file compressed by gzip (`.onnx.gz`).
        threads: threads inside one run.

    Raises:
        ModelNotFoundError: there is no such file.
        ArtefactCorruptError: the file differs from its description, or has none and ONNX Runtime cannot read the file.
    """
    session = NetworkSession(path, threads, checked_sha256(path))
    if not is_described(path):
        session.loaded()
    return session


def _loaded(path: Path, threads: int, sha256: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle worker threads must not spin: the other stages share the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # The very bytes that are compared are loaded: another process may replace the file at any time.
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("it was replaced after it had been checked")
        network = gzip.decompress(content) if path.suffix == ".gz" else content
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are not exported
        raise ArtefactCorruptError(f"{path} is damaged: {error}; {REMEDY}", resource=str(path)) from error
