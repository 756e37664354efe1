"""Settings of the render stage's process."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.common.errors import InvalidRequestError
from services.common.server.settings import DEFAULT_PORTS, ReadableFolder, StageSettings
from services.render.backends.base import BackendName, Device, TritonOptions, check_choice, default_choice, this_processor
from services.render.backends.devices import DeviceChoice, network_device, personalization_device
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.types import Precision


class RenderSettings(StageSettings):
    """Settings of the process. Environment variables start with DUBSTAGE_.

    Without backend and precision, the table of backends/base.py is asked for the device and its processor.
    """

    port: int = Field(default=DEFAULT_PORTS["render"], ge=0, le=65535, description="port to listen on; 0 takes a free one")
    render_weights: Path = Field(default=WEIGHTS_FOLDER, description="folder with exported models and the prior's weights")
    device: DeviceChoice = Field(
        default="auto", description="device that computes networks; auto: a GPU if there is one and onnxruntime-gpu is installed"
    )
    backend: BackendName | None = Field(default=None, description="runtime of networks; default: by the kind of processor")
    precision: Precision | None = Field(
        default=None, description="float32, bfloat16 (openvino) or int8 (onnxruntime, triton); default: by the kind of processor"
    )
    batch_size: int = Field(default=4, ge=1, le=64, description="most frames of one stream that are computed at once")
    max_queued_personalizations: int = Field(
        default=4,
        ge=0,
        le=10_000,
        description="personalisations that may wait for a free slot; at most half of the calls wait or run",
    )
    personalizations: int = Field(default=1, ge=1, le=64, description="personalisations that run at the same time")
    morphable_models: ReadableFolder | None = Field(
        default=None, description="folder of the user's own morphable models (FLAME, Basel, ICT-FaceKit), by file name"
    )
    personalize_threads: int = Field(default=2, ge=1, le=256, description="threads of a personalisation")
    personalize_device: DeviceChoice = Field(
        default="auto", description="device of personalisations; auto: a GPU if the installed PyTorch finds one"
    )

    triton_url: str = Field(default="localhost:8001", min_length=1, description="HOST:PORT of Triton's gRPC, for backend triton")
    triton_shared_memory: bool = Field(
        default=False, description="pass arrays through /dev/shm; Triton must run on this host and see the same /dev/shm"
    )
    triton_max_in_flight: int = Field(default=16, ge=1, le=256, description="most inferences at Triton at once; more wait")
    triton_timeout_s: float = Field(default=10.0, gt=0, le=86_400, description="time allowed to one inference at Triton")
    triton_start_timeout_s: float = Field(
        default=60.0, gt=0, le=86_400, description="time that Triton has to answer when the stage starts"
    )
    triton_load_timeout_s: float = Field(default=300.0, gt=0, le=86_400, description="time that Triton has to load a model")
    triton_probe_interval_s: float = Field(
        default=5.0, gt=0, le=86_400, description="interval at which an idle model computes one frame as a probe"
    )
    triton_heal_wait_s: float = Field(
        default=5.0, gt=0, le=86_400, description="time that each reload waits for a Triton that restarts"
    )
    triton_heal_attempts: int = Field(
        default=5, ge=1, le=1000, description="failed reloads in a row after which the stage stops serving"
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if self.backend == "triton":
            return self
        if (self.backend is None) != (self.precision is None):
            raise ValueError("backend and precision must be given together, or neither of them")
        if self.device == "cuda" and self.backend not in (None, "onnxruntime"):
            raise ValueError(
                f"DUBSTAGE_BACKEND={self.backend} computes on processors only: for DUBSTAGE_DEVICE=cuda, set "
                "DUBSTAGE_BACKEND=onnxruntime, or leave the backend and the precision out"
            )
        if self.backend is not None and self.precision is not None:
            try:
                check_choice(self.backend, self.precision)
            except InvalidRequestError as problem:
                raise ValueError(problem.message) from None
        return self

    def runtime(self) -> str:
        """Return backend and precision, such as "onnxruntime int8". Triton's runtime is known to its server only."""
        if self.backend == "triton":
            return f"triton at {self.triton_url}"
        if self.backend is None or self.precision is None:
            device = self.network_device()
            return f"{default_choice(device)}, chosen for {this_processor() if device == 'cpu' else device}"
        return f"{self.backend} {self.precision}{' on cuda' if self.network_device() == 'cuda' else ''}"

    def network_device(self) -> Device:
        """Return the device that computes networks. With Triton, the device of the server is not known here."""
        return network_device(self.device, self.backend, self.precision)

    def personalization_device(self) -> Device:
        """Return the device that personalisations may run on."""
        return personalization_device(self.personalize_device)

    def triton_options(self) -> TritonOptions | None:
        """Return the options of Triton; None: the networks are computed in this process."""
        if self.backend != "triton":
            return None
        return TritonOptions(
            url=self.triton_url,
            shared_memory=self.triton_shared_memory,
            max_in_flight=self.triton_max_in_flight,
            max_frames=self.batch_size,
            timeout_s=self.triton_timeout_s,
            start_timeout_s=self.triton_start_timeout_s,
            load_timeout_s=self.triton_load_timeout_s,
            probe_interval_s=self.triton_probe_interval_s,
            heal_attempts=self.triton_heal_attempts,
            heal_wait_s=self.triton_heal_wait_s,
        )
