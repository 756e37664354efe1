"""Triton's Python backend: the exported ONNX file beside this one, computed by ONNX Runtime as the render stage itself does it.

This module runs inside tritonserver, in an environment of its own (requirements.txt), and imports nothing of dubstage. The export
copies the module into every version of the model repository.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Instance of the model: a process with one session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session.

        Args:
            args: arguments of the server: model_config (JSON), model_repository, model_version, model_instance_device_id.

        Raises:
            TritonModelException: the file's digest differs from the configuration's, this environment computes wrong values, or it
                would compute on another device than the configuration names.
        """
        if int(np.__version__.split(".", maxsplit=1)[0]) > 1:
            raise pb_utils.TritonModelException(f"NumPy {np.__version__}: Triton's Python backend gives wrong values above 1.26")
        config: dict[str, Any] = json.loads(args["model_config"])
        parameters = {name: str(value["string_value"]) for name, value in config["parameters"].items()}
        version = args["model_version"]
        path = Path(args["model_repository"]) / version / "model.onnx"
        _check_digest(path, parameters.get(f"sha256.{version}"))
        # Exactly the options of the backend in the process (backends/onnxruntime.py), so that the bytes are the same.
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(parameters["num_threads"])
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        provider: Any = "CPUExecutionProvider"
        if parameters["device"] == "cuda":
            # Libraries of CUDA and cuDNN that packages of pip hold are found only after this call.
            ort.preload_dlls()
            # As in the process: the default algorithm would be the fastest one of the moment, with bytes of its own.
            options_cuda = {"device_id": args["model_instance_device_id"], "cudnn_conv_algo_search": "HEURISTIC"}
            provider = ("CUDAExecutionProvider", options_cuda)
        self._session = ort.InferenceSession(str(path), options, providers=[provider])
        # ONNX Runtime goes on with the processor if a provider does not start, and says so only in its log.
        if parameters["device"] == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise pb_utils.TritonModelException(
                f"ONNX Runtime {ort.__version__} cannot compute on a GPU here: this environment needs onnxruntime-gpu with the "
                "libraries of CUDA and cuDNN, and the server needs a GPU"
            )
        # The large tensors of a network in float32 lie in a weights file, whose digest the network states.
        weights_sha256 = self._session.get_modelmeta().custom_metadata_map.get("weights_sha256")
        for weights in path.parent.glob("*.safetensors"):
            _check_digest(weights, weights_sha256)
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._outputs = [one.name for one in self._session.get_outputs()]
        # The algorithms of a GPU depend on the size of the batch: with one size, a frame has the same bytes in every batch.
        self._fill_to = int(config["max_batch_size"]) if parameters["device"] == "cuda" else 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Compute requests of several streams and actors, each with its own state, as one batch."""
        given = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs} for request in requests
        ]
        batch = {
            name: np.concatenate([inputs[name] for inputs in given]) if len(given) > 1 else given[0][name] for name in self._inputs
        }
        try:
            results = self._computed(batch)
        except Exception as error:  # its exception types are not exported
            failure = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(output_tensors=[], error=failure) for _ in requests]
        if len(given) == 1:
            tensors = [pb_utils.Tensor(name, value) for name, value in zip(self._outputs, results, strict=True)]
            return [pb_utils.InferenceResponse(output_tensors=tensors)]
        responses, begin = [], 0
        for inputs in given:
            end = begin + len(inputs[self._inputs[0]])
            tensors = [pb_utils.Tensor(name, value[begin:end]) for name, value in zip(self._outputs, results, strict=True)]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            begin = end
        return responses

    def _computed(self, batch: dict[str, Any]) -> list[Any]:
        count, size = len(batch[self._inputs[0]]), self._fill_to
        if count >= size:
            return list(self._session.run(self._outputs, batch))
        full = {name: np.concatenate([values, np.repeat(values[-1:], size - count, axis=0)]) for name, values in batch.items()}
        return [values[:count] for values in self._session.run(self._outputs, full)]


def _check_digest(path: Path, sha256: str | None) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise pb_utils.TritonModelException(f"{path} is damaged: sha256 {sha256} expected, {digest} found")
