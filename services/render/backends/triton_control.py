"""Control of a Triton server: whether the server is live, which version of a model is loaded, and whether the model computes.
Shared memory for a server on the same host: arrays are written once instead of being sent.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from services.common.errors import (
    AcceleratorOutOfMemoryError,
    BackendUnavailableError,
    ContractBrokenError,
    ModelNotFoundError,
    StorageFullError,
)
from services.common.locks import try_lock
from services.render.backends.base import Arrays, TritonOptions, error_summary
from services.render.backends.model_files import ModelFile
from services.render.triton.repository import DIGEST

PREFIX: Final = "dubstage-render-"
"""Prefix of the names of regions, in /dev/shm and at the server."""
_FOLDER: Final = Path("/dev/shm")
_ALIGNMENT: Final = 64
_MESSAGE_BYTES: Final = 2**31 - 1
_LIVE_TIMEOUT_S: Final = 1.0
_ANSWER_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
_NO_ANSWER: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN")
"""Statuses of a call that the server did not answer. Any other status of a load is the server's answer about this one model."""
IN_USE: Final = "currently in use"
"""Part of Triton's message about shared memory that an inference holds."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a served model.

    Attributes:
        name: name in the exported network.
        datatype: Triton's name of the data type, such as FP32.
        row_shape: shape without the batch axis, which comes before it.
    """

    name: str
    datatype: str
    row_shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's data type."""
        kind: type[np.generic] = triton_to_np_dtype(self.datatype)
        return np.dtype(kind)

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape in a batch of this many rows."""
        return (rows, *self.row_shape)

    def num_bytes(self, rows: int) -> int:
        """Return the size in a batch of this many rows, bytes."""
        return int(np.prod(self.shape(rows))) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the server has loaded, in the version with this renderer's network.

    Attributes:
        file: the exported network.
        version: version of the network in the server's repository.
        runtime: runtime that computes the network at the server.
        num_threads: threads of one inference at the server.
        max_batch: most frames in one inference.
    """

    file: ModelFile
    version: str
    runtime: str
    num_threads: int
    max_batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def num_rows(inputs: Arrays) -> int:
    """Return the number of frames in arrays by input name."""
    return len(next(iter(inputs.values())))


class Cure(Enum):
    """Remedy before a failed inference is tried again."""

    RETRY = "retry"
    """Nothing: try again at once."""
    PROBE = "probe"
    """Compute one frame; reload the model if that fails too."""
    RELOAD = "reload"
    """Unload and load the model: the model or its process is gone."""


class CurableError(Exception):
    """An inference failed for a reason other than its inputs."""

    def __init__(self, message: str, cure: Cure) -> None:
        super().__init__(message)
        self.cure = cure


_CURES = {
    # Triton answers so for ever if the model's process was killed, and still calls the model ready.
    "INTERNAL": Cure.RELOAD,
    # The server restarted. Under explicit model control it then has no model.
    "NOT_FOUND": Cure.RELOAD,
    "UNAVAILABLE": Cure.PROBE,
    "DEADLINE_EXCEEDED": Cure.PROBE,
    "UNKNOWN": Cure.PROBE,
    "CANCELLED": Cure.RETRY,
}


def status_of(error: InferenceServerException) -> str:
    """Return the name of the gRPC code, such as `INTERNAL`."""
    return str(error.status()).removeprefix("StatusCode.")


def translated(error: InferenceServerException) -> Exception:
    """Return a failed inference as a dubstage error: CurableError, AcceleratorOutOfMemoryError or ContractBrokenError."""
    message = str(error.message())
    lower = message.lower()
    if "out of memory" in lower or "failed to allocate" in lower:
        return AcceleratorOutOfMemoryError(f"Triton has no memory for this batch: {message}")
    if "shared memory region" in lower:
        return CurableError(message, Cure.RETRY)
    cure = _CURES.get(status_of(error))
    if cure is None:
        return ContractBrokenError(f"Triton refused an inference: {message}")
    return CurableError(message, cure)


class SharedRegion:
    """File in /dev/shm that this process maps, and that a server maps after the file was registered there.

    The file is locked while this process lives, so a later process recognises the files of a process that was killed.

    Args:
        size: size of the file, bytes.

    Raises:
        StorageFullError: /dev/shm has no room for the file.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        while True:
            self.name = f"{PREFIX}{secrets.token_hex(8)}"
            self._path = _FOLDER / self.name
            self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            if try_lock(self._file) and os.fstat(self._file).st_nlink:
                break
            # Before the file was locked, another process took it for abandoned and removes it.
            os.close(self._file)
        try:
            # Reserve the space now: without space, a later write would end the process by a signal.
            os.posix_fallocate(self._file, 0, size)
            self._map = mmap.mmap(self._file, size)
        except OSError as error:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            raise StorageFullError(f"no room for {size} bytes in {_FOLDER}: {error.strerror}", subject=str(_FOLDER)) from error

    def write(self, values: npt.NDArray[Any], offset: int) -> None:
        """Copy an array into the region, from byte `offset` on."""
        target: npt.NDArray[Any] = np.ndarray(values.shape, values.dtype, self._map, offset)
        np.copyto(target, values)

    def read(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int) -> npt.NDArray[Any]:
        """Return a copy of the array that begins at byte `offset`."""
        source: npt.NDArray[Any] = np.ndarray(shape, dtype, self._map, offset)
        return source.copy()

    def close(self) -> None:
        """Unmap and remove the file."""
        self._map.close()
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._path.unlink(missing_ok=True)


def aligned(size: int) -> int:
    """Round a size up to an offset where the next array may begin, bytes."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def remove_abandoned() -> None:
    """Remove the regions of processes that were killed."""
    for path in _FOLDER.glob(f"{PREFIX}*"):
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            continue  # removed meanwhile, or another user's file
        try:
            if try_lock(file):  # its owner does not live
                path.unlink(missing_ok=True)
        except OSError:
            continue  # another user's file
        finally:
            os.close(file)


def is_present(name: str) -> bool:
    """Return whether a region of this name lies in /dev/shm."""
    return (_FOLDER / name).exists()


def new_client(url: str) -> Any:
    """Return a client with a connection of its own. One thread uses a client at a time."""
    options = [
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        # A server that restarts is found again within a second; gRPC's default would wait up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return triton.InferenceServerClient(url, channel_args=options)


class TritonControl:
    """Model control and probes of one server. Not safe for several threads at once."""

    def __init__(self, options: TritonOptions) -> None:
        self._options = options
        self._client = new_client(options.url)

    def wait_live(self, timeout_s: float) -> None:
        """Wait until the server answers.

        Raises:
            BackendUnavailableError: the server did not answer within the time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if self._client.is_server_live(client_timeout=_LIVE_TIMEOUT_S):
                    return
                reason = "it is not live"
            except InferenceServerException as error:
                reason = str(error.message())
            if time.monotonic() >= deadline:
                raise BackendUnavailableError(
                    f"no Triton answers at {self._options.url} (DUBSTAGE_TRITON_URL) within {timeout_s:g} s: {reason}"
                )
            time.sleep(_POLL_S)

    def load(self, file: ModelFile) -> ServedModel:
        """Have the server load the version of a model with this renderer's network, and no other version.

        Raises:
            ModelNotFoundError: the server's repository has no such model, or no version with this digest, or the server cannot load
                the model.
            BackendUnavailableError: the server does not answer.
        """
        self._load(file)
        config = self._config(file.name)
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        digests = {name.removeprefix(DIGEST): value for name, value in parameters.items() if name.startswith(DIGEST)}
        ours = sorted((int(version) for version, digest in digests.items() if digest == file.sha256), reverse=True)
        if not ours:
            self.unload(file.name)
            stored = ", ".join(f"version {version}: {digest[:12]}" for version, digest in sorted(digests.items())) or "none"
            precision = parameters.get("precision", "unknown precision")
            raise ModelNotFoundError(
                f"Triton at {self._options.url} has another network for model {file.name!r} than this renderer: "
                f"{file.sha256[:12]} is wanted ({file.path.name}), its repository has {stored} ({precision}). "
                f"Export again (python -m services.render.triton.repository DIR), or set DUBSTAGE_PRECISION to the repository's",
                resource=file.name,
            )
        if config.get("version_policy", {}).get("specific", {}).get("versions") != [str(ours[0])]:
            # An older version than the newest belongs to this renderer's weights.
            config["version_policy"] = {"specific": {"versions": [str(ours[0])]}}
            self._load(file, json.dumps(config))
        return ServedModel(
            file=file,
            version=str(ours[0]),
            runtime=parameters.get("runtime", "unknown"),
            num_threads=int(parameters.get("num_threads", 1)),
            max_batch=int(config["max_batch_size"]),
            inputs=_tensors(config["input"]),
            outputs=_tensors(config["output"]),
        )

    def unload(self, model: str) -> None:
        """Have the server drop all versions of a model. A server without the model answers the same.

        Raises:
            BackendUnavailableError: the server does not answer.
        """
        try:
            self._client.unload_model(model, client_timeout=self._options.load_timeout_s)
        except InferenceServerException as error:
            raise BackendUnavailableError(f"Triton at {self._options.url} could not unload {model!r}: {error.message()}") from error

    def reload(self, file: ModelFile) -> ServedModel:
        """Unload and load a model: the only cure for a model whose process died, which Triton calls `ready` for ever.

        Raises:
            ModelNotFoundError, BackendUnavailableError: see `load`.
        """
        self.unload(file.name)
        return self.load(file)

    def probe(self, model: ServedModel, timeout_s: float) -> None:
        """Compute one frame of zeros, because Triton's readiness says nothing about a model's process.

        Raises:
            CurableError, AcceleratorOutOfMemoryError, ContractBrokenError: the model does not compute.
        """
        inputs = []
        for spec in model.inputs:
            tensor = triton.InferInput(spec.name, list(spec.shape(1)), spec.datatype)
            tensor.set_data_from_numpy(np.zeros(spec.shape(1), spec.dtype))
            inputs.append(tensor)
        try:
            self._client.infer(model.file.name, inputs, model_version=model.version, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise translated(error) from error

    def forget_regions(self) -> None:
        """Have the server drop shared memory whose files are gone. Otherwise the server keeps such memory until it ends.

        Memory that an inference still holds, because its model hangs, stays until this method is called again.

        Raises:
            BackendUnavailableError: the server does not answer.
        """
        try:
            status = self._client.get_system_shared_memory_status(client_timeout=_ANSWER_TIMEOUT_S)
            for name in list(status.regions):
                if name.startswith(PREFIX) and not is_present(name):
                    self._forget(name)
        except InferenceServerException as error:
            raise BackendUnavailableError(f"Triton at {self._options.url}: {error.message()}") from error

    def _forget(self, name: str) -> None:
        try:
            self._client.unregister_system_shared_memory(name, client_timeout=_ANSWER_TIMEOUT_S)
        except InferenceServerException as error:
            if IN_USE not in str(error.message()):
                raise

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _load(self, file: ModelFile, config: str | None = None) -> None:
        try:
            self._client.load_model(file.name, config=config, client_timeout=self._options.load_timeout_s)
        except InferenceServerException as error:
            message = str(error.message())
            if "failed to poll" in message or status_of(error) == "NOT_FOUND":
                raise ModelNotFoundError(
                    f"Triton at {self._options.url} has no model {file.name!r} in its repository: "
                    f"python -m services.render.triton.repository DIR, and start it with --model-control-mode=explicit",
                    resource=file.name,
                ) from error
            if status_of(error) in _NO_ANSWER:
                raise BackendUnavailableError(f"Triton at {self._options.url} could not load {file.name!r}: {message}") from error
            raise ModelNotFoundError(
                f"Triton at {self._options.url} cannot load {file.name!r} ({error_summary(message, file)}): export the repository "
                "again (python -m services.render.triton.repository DIR), and restart Triton and the render stage",
                resource=file.name,
            ) from error

    def _config(self, model: str) -> dict[str, Any]:
        try:
            answer = self._client.get_model_config(model, as_json=True, client_timeout=_ANSWER_TIMEOUT_S)
        except InferenceServerException as error:
            raise BackendUnavailableError(f"Triton at {self._options.url}: {error.message()}") from error
        config: dict[str, Any] = answer["config"]
        return config


def _tensors(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """Return the inputs or outputs of a model's configuration."""
    return tuple(
        TensorSpec(entry["name"], entry["data_type"].removeprefix("TYPE_"), tuple(int(size) for size in entry["dims"]))
        for entry in entries
    )
