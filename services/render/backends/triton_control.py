"""A Triton server from the side of its owner: live or not, which version of a model is loaded, and whether it really computes."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from services.common.errors import BackendUnavailable, ModelNotFound
from services.render.backends.registry import ModelFile
from services.render.backends.triton_memory import PREFIX, is_present
from services.render.backends.triton_options import TritonOptions
from services.render.backends.triton_types import ServedModel, TensorSpec, status_of, translated
from services.render.triton.repository import DIGEST

_MESSAGE_BYTES: Final = 2**31 - 1
_LIVE_TIMEOUT_S: Final = 1.0
_ANSWER_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1


def new_client(url: str) -> Any:
    """A client with a connection of its own; one thread uses it at a time."""
    options = [
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        # A server that restarts is found again within a second; gRPC's own patience would be two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return triton.InferenceServerClient(url, channel_args=options)


class TritonControl:
    """Model control and probes of one server. Not safe for several threads at once.

    Args:
        options: of the backend.
    """

    def __init__(self, options: TritonOptions) -> None:
        self._options = options
        self._client = new_client(options.url)

    def wait_live(self, timeout_s: float) -> None:
        """Wait until the server answers.

        Raises:
            BackendUnavailable: it did not within the time.
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
                raise BackendUnavailable(
                    f"no Triton answers at {self._options.url} (DUBSTAGE_TRITON_URL) within {timeout_s:g} s: {reason}"
                )
            time.sleep(_POLL_S)

    def load(self, file: ModelFile) -> ServedModel:
        """Have the server load the version of a model whose network is ours, and no other version.

        Raises:
            ModelNotFound: its repository has no such model, or not with this digest.
            BackendUnavailable: it could not load it.
        """
        self._load(file.name)
        config = self._config(file.name)
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        digests = {name.removeprefix(DIGEST): value for name, value in parameters.items() if name.startswith(DIGEST)}
        ours = sorted((int(version) for version, digest in digests.items() if digest == file.sha256), reverse=True)
        if not ours:
            self.unload(file.name)
            found = ", ".join(f"version {version}: {digest[:12]}" for version, digest in sorted(digests.items())) or "none"
            precision = parameters.get("precision", "unknown precision")
            raise ModelNotFound(
                f"Triton at {self._options.url} has another network for model {file.name!r} than this renderer: "
                f"{file.sha256[:12]} is wanted ({file.path.name}), its repository has {found} ({precision}). "
                f"Export again (python -m services.render.export --triton DIR), or set DUBSTAGE_PRECISION to the repository's",
                resource=file.name,
            )
        if config.get("version_policy", {}).get("specific", {}).get("versions") != [str(ours[0])]:
            # A version before the newest: the one that belongs to this renderer's weights.
            config["version_policy"] = {"specific": {"versions": [str(ours[0])]}}
            self._load(file.name, json.dumps(config))
        return ServedModel(
            file=file,
            version=str(ours[0]),
            runtime=parameters.get("runtime", "unknown"),
            num_threads=int(parameters.get("num_threads", 1)),
            max_batch=max(1, int(config.get("max_batch_size", 1))),
            inputs=_tensors(config["input"]),
            outputs=_tensors(config["output"]),
        )

    def unload(self, model: str) -> None:
        """Have the server drop all versions of a model; that it has none already is no error.

        Raises:
            BackendUnavailable: it does not answer.
        """
        try:
            self._client.unload_model(model, client_timeout=self._options.load_timeout_s)
        except InferenceServerException as error:
            raise BackendUnavailable(f"Triton at {self._options.url} could not unload {model!r}: {error.message()}") from error

    def reload(self, file: ModelFile) -> ServedModel:
        """Unload and load: the only cure for a model whose process died, which stays `ready` for ever.

        Raises:
            ModelNotFound, BackendUnavailable: as load.
        """
        self.unload(file.name)
        return self.load(file)

    def probe(self, model: ServedModel, timeout_s: float) -> None:
        """Compute one frame of zeros: readiness says nothing about a model's process.

        Raises:
            CurableError, AcceleratorOutOfMemory, ContractBroken: it does not compute.
        """
        inputs = []
        for spec in model.inputs:
            tensor = triton.InferInput(spec.name, [1, *spec.row_shape], spec.datatype)
            tensor.set_data_from_numpy(np.zeros((1, *spec.row_shape), spec.dtype))
            inputs.append(tensor)
        try:
            self._client.infer(model.file.name, inputs, model_version=model.version, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise translated(error) from error

    def forget_regions(self) -> None:
        """Have the server drop shared memory whose files are gone: it would keep it as long as it lives.

        Raises:
            BackendUnavailable: it does not answer.
        """
        try:
            known = self._client.get_system_shared_memory_status(client_timeout=_ANSWER_TIMEOUT_S)
            for name in list(known.regions):
                if name.startswith(PREFIX) and not is_present(name):
                    self._client.unregister_system_shared_memory(name, client_timeout=_ANSWER_TIMEOUT_S)
        except InferenceServerException as error:
            raise BackendUnavailable(f"Triton at {self._options.url}: {error.message()}") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _load(self, model: str, config: str | None = None) -> None:
        try:
            self._client.load_model(model, config=config, client_timeout=self._options.load_timeout_s)
        except InferenceServerException as error:
            message = str(error.message())
            if "failed to poll" in message or status_of(error) == "NOT_FOUND":
                raise ModelNotFound(
                    f"Triton at {self._options.url} has no model {model!r} in its repository: "
                    f"python -m services.render.export --triton DIR, and start it with --model-control-mode=explicit",
                    resource=model,
                ) from error
            raise BackendUnavailable(f"Triton at {self._options.url} could not load {model!r}: {message}") from error

    def _config(self, model: str) -> dict[str, Any]:
        try:
            answer = self._client.get_model_config(model, as_json=True, client_timeout=_ANSWER_TIMEOUT_S)
        except InferenceServerException as error:
            raise BackendUnavailable(f"Triton at {self._options.url}: {error.message()}") from error
        config: dict[str, Any] = answer["config"]
        return config


def _tensors(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(entry["name"], entry["data_type"].removeprefix("TYPE_"), tuple(int(size) for size in entry["dims"]))
        for entry in entries
    )
