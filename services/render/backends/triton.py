"""NVIDIA Triton behind the backend's interface. Its dynamic batches join frames of all streams and actors."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from services.common.errors import (
    BackendUnavailableError,
    ContractBrokenError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
)
from services.common.server.call_context import check_not_cancelled
from services.render.backends.base import Arrays, TritonOptions
from services.render.backends.model_files import ModelFile
from services.render.backends.triton_control import (
    IN_USE,
    CurableError,
    Cure,
    ServedModel,
    SharedRegion,
    aligned,
    new_client,
    num_rows,
    remove_abandoned,
    translated,
)
from services.render.backends.triton_healing import TritonHealer, TritonMonitor
from services.render.types import Precision

_UNREGISTER_TRIES: Final = 10
_UNREGISTER_S: Final = 0.05
"""Seconds between two tries to unregister shared memory that an inference still holds."""
_TRIES: Final = 4
_STATISTICS_S: Final = 1.0
"""Least seconds between two looks at the server's statistics of a model."""


class TritonBackend:
    """Backend of a server that this process owns: it loads models there, sends inferences, and heals models that died.

    Inferences are pure, so a failed inference is sent again. At most `max_in_flight` inferences are at the server; others wait
    here.

    Args:
        options: where the server is and how to use it.
        precision: number format of the networks that the server must have.
        monitor: receives failures and healings.
    """

    def __init__(self, options: TritonOptions, *, precision: Precision, monitor: TritonMonitor | None = None) -> None:
        self.precision = precision
        self.device = "triton"
        self.num_threads = 0
        self._runtime = ""
        self._options = options
        self._monitor = monitor or TritonMonitor()
        self._healer = TritonHealer(options, self._monitor)
        self._slots = threading.BoundedSemaphore(options.max_in_flight)
        self._free: list[_Channel] = []
        self._turns: defaultdict[str, _Turns] = defaultdict(_Turns)
        self._closed = False
        self._monitor.on_close(self.close)

    @property
    def name(self) -> str:
        """`triton/` and the server's runtime, which the bytes depend on."""
        return f"triton/{self._runtime}" if self._runtime else "triton"

    def load(self, model: ModelFile) -> None:
        """See Backend.load."""
        if self._healer.served(model.name) is not None:
            return
        if self._options.shared_memory:
            remove_abandoned()
        self._healer.load(model)
        served = self._served(model.name)
        self._runtime, self.num_threads = served.runtime, served.num_threads

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See Backend.infer.

        Raises:
            OverloadedError: no slot at the server became free within the time of one inference.
            BackendUnavailableError: the model could not be healed.
        """
        served = self._served(model)
        most = min(served.max_batch, self._options.max_frames) if self._options.shared_memory else served.max_batch
        parts = [
            self._infer(model, {name: values[begin : begin + most] for name, values in inputs.items()})
            for begin in range(0, num_rows(inputs), most)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Close connections and remove shared memory. Models stay loaded at the server."""
        self._closed = True
        self._healer.close()
        while self._free:
            self._free.pop().close()

    def _served(self, model: str) -> ServedModel:
        served = self._healer.served(model)
        if served is None:
            raise ModelNotFoundError(f"model {model!r} is not loaded", resource=model)
        return served

    def _infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        lost = CurableError("", Cure.RETRY)
        for _ in range(_TRIES):
            check_not_cancelled()
            if not self._monitor.is_serving():
                raise BackendUnavailableError(f"Triton at {self._options.url} does not compute now", retry_after_s=5.0)
            seen = self._healer.reloads(model)
            try:
                with self._channel(self._healer.generation) as channel:
                    began = time.monotonic()
                    outputs = channel.infer(self._served(model), inputs)
                    waited_s = self._turns[model].waited_s(time.monotonic() - began, lambda: channel.statistics(model))
            except CurableError as failure:
                self._monitor.failures.labels(failure.cure.value).inc()
                lost = failure
            else:
                self._healer.answered(model)
                self._monitor.on_waited(waited_s)
                return outputs
            self._healer.heal(model, seen, lost)
        raise BackendUnavailableError(f"Triton at {self._options.url} failed {_TRIES} times in a row: {lost}")

    @contextmanager
    def _channel(self, generation: int) -> Iterator[_Channel]:
        """Take one of the slots, with a connection and its memory.

        After a failure the connection is thrown away, because the server may still write into its memory.
        """
        if not self._slots.acquire(timeout=self._options.timeout_s):
            raise OverloadedError(f"{self._options.max_in_flight} inferences are at Triton already, as many as are sent at once")
        try:
            with self._monitor.in_flight.track_inprogress():
                channel = self._take(generation)
                try:
                    yield channel
                except BaseException:
                    channel.close()
                    raise
                if self._closed:
                    channel.close()
                else:
                    self._free.append(channel)
        finally:
            self._slots.release()

    def _take(self, generation: int) -> _Channel:
        while self._free:
            try:
                channel = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if channel.generation == generation:
                return channel
            channel.close()
        return _Channel(self._options, generation)


class _Turns:
    """How long the inferences of one model wait at Triton for their turn, by the server's statistics. Safe for several threads.

    The statistics are sums over all clients, so that only the share of the waiting is taken from them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent_s = 0.0
        self._looked_s = 0.0
        self._before: tuple[int, int] | None = None

    def waited_s(self, spent_s: float, look: Callable[[], tuple[int, int]]) -> float:
        """Note an inference. Return the seconds that the inferences since the last look have waited; 0 between two looks.

        Args:
            spent_s: seconds of the inference, with the waiting.
            look: returns nanoseconds of all inferences so far, in the queue and in all.
        """
        with self._lock:
            self._spent_s += spent_s
            now = time.monotonic()
            if now - self._looked_s < _STATISTICS_S:
                return 0.0
            self._looked_s, spent_s, self._spent_s = now, self._spent_s, 0.0
            try:
                after = look()
            except CurableError:
                return 0.0
            before, self._before = self._before or after, after
        queued, whole = (after[index] - before[index] for index in range(2))
        # A model that was loaded again counts from 0.
        return spent_s * min(1.0, queued / whole) if whole > 0 and queued >= 0 else 0.0


class _Channel:
    """Connection with, if arrays go through shared memory, a region of its own. One thread uses a channel at a time."""

    def __init__(self, options: TritonOptions, generation: int) -> None:
        self.generation = generation
        self._options = options
        self._client = new_client(options.url)
        self._region: SharedRegion | None = None

    def infer(self, model: ServedModel, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Send one request and return its outputs.

        Raises:
            CurableError, AcceleratorOutOfMemoryError, ContractBrokenError: the inference failed.
            StorageFullError: /dev/shm has no room.
        """
        rows = num_rows(inputs)
        try:
            if self._options.shared_memory:
                return self._infer_shared(model, inputs, rows)
            return self._infer_sent(model, inputs, rows)
        except InferenceServerException as error:
            raise translated(error) from error

    def _infer_sent(self, model: ServedModel, inputs: Arrays, rows: int) -> dict[str, npt.NDArray[Any]]:
        tensors = []
        for spec in model.inputs:
            tensor = triton.InferInput(spec.name, list(spec.shape(rows)), spec.datatype)
            tensor.set_data_from_numpy(np.ascontiguousarray(inputs[spec.name]))
            tensors.append(tensor)
        answer = self._send(model, tensors, [triton.InferRequestedOutput(spec.name) for spec in model.outputs])
        outputs = {spec.name: answer.as_numpy(spec.name) for spec in model.outputs}
        for spec in model.outputs:
            if outputs[spec.name] is None or outputs[spec.name].shape != spec.shape(rows):
                raise ContractBrokenError(f"Triton gave another form of {spec.name!r} than it promised")
        return outputs

    def _infer_shared(self, model: ServedModel, inputs: Arrays, rows: int) -> dict[str, npt.NDArray[Any]]:
        offsets, size = _layout(model, self._options.max_frames)
        if self._region is not None and self._region.size < size:
            self._drop_region()
        if self._region is None:
            self._region = SharedRegion(size)
            self._register(self._region)
        region, tensors, requested = self._region, [], []
        for spec in model.inputs:
            region.write(inputs[spec.name], offsets[spec.name])
            tensor = triton.InferInput(spec.name, list(spec.shape(rows)), spec.datatype)
            tensor.set_shared_memory(region.name, spec.num_bytes(rows), offset=offsets[spec.name])
            tensors.append(tensor)
        for spec in model.outputs:
            output = triton.InferRequestedOutput(spec.name)
            output.set_shared_memory(region.name, spec.num_bytes(rows), offset=offsets[spec.name])
            requested.append(output)
        answer = self._send(model, tensors, requested)
        for spec in model.outputs:
            given = answer.get_output(spec.name)
            if given is None or tuple(given.shape) != spec.shape(rows):
                raise ContractBrokenError(f"Triton gave another form of {spec.name!r} than it promised")
        return {spec.name: region.read(spec.shape(rows), spec.dtype, offsets[spec.name]) for spec in model.outputs}

    def _register(self, region: SharedRegion) -> None:
        try:
            self._client.register_system_shared_memory(
                region.name, f"/{region.name}", region.size, client_timeout=self._options.timeout_s
            )
        except InferenceServerException as error:
            if "shared memory" in str(error.message()).lower():
                raise InvalidRequestError(
                    f"Triton at {self._options.url} cannot use /dev/shm/{region.name}: it must run on this host, with this "
                    f"/dev/shm, as this user; else set DUBSTAGE_TRITON_SHARED_MEMORY=false ({error.message()})",
                    field="DUBSTAGE_TRITON_SHARED_MEMORY",
                ) from error
            raise

    def _send(self, model: ServedModel, tensors: list[Any], outputs: list[Any]) -> Any:
        return self._client.infer(
            model.file.name, tensors, model_version=model.version, outputs=outputs, client_timeout=self._options.timeout_s
        )

    def statistics(self, model: str) -> tuple[int, int]:
        """Return the nanoseconds of all successful inferences of a model, in the queue and in all.

        Raises:
            CurableError: the server does not answer.
        """
        try:
            answer = self._client.get_inference_statistics(model, client_timeout=self._options.timeout_s)
        except InferenceServerException as error:
            raise translated(error) from error
        sums = [one.inference_stats for one in answer.model_stats]
        return sum(one.queue.ns for one in sums), sum(one.success.ns for one in sums)

    def close(self) -> None:
        """Close the connection and remove the shared memory."""
        self._drop_region()
        self._client.close()

    def _drop_region(self) -> None:
        region, self._region = self._region, None
        if region is None:
            return
        try:
            self._unregister(region.name)
        finally:
            region.close()

    def _unregister(self, name: str) -> None:
        for _ in range(_UNREGISTER_TRIES):
            try:
                self._client.unregister_system_shared_memory(name, client_timeout=5.0)
                return
            except InferenceServerException as error:
                if IN_USE not in str(error.message()):
                    return  # the server is gone, and so is its view of the memory
            # Triton ends an inference a moment after its answer.
            time.sleep(_UNREGISTER_S)


def _layout(model: ServedModel, rows: int) -> tuple[dict[str, int], int]:
    """Return where each tensor begins in a region for this many rows, and the region's size, bytes."""
    offsets, size = {}, 0
    for spec in (*model.inputs, *model.outputs):
        offsets[spec.name] = size
        size += aligned(spec.num_bytes(rows))
    return offsets, size
