"""Committed models, loaded once for all tests, and frames through a stream in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from research.render.models import load_models
from services.common.array_types import Float32, UInt8
from services.render.backends.base import Backend
from services.render.backends.model_files import WEIGHTS_FOLDER, ModelFile
from services.render.backends.onnxruntime import OnnxRuntimeBackend
from services.render.backends.openvino import OpenVinoBackend
from services.render.streams import RenderModels, open_stream
from services.render.types import Precision, RenderedFrame, RenderFrame

RUNTIMES: Final = ("onnxruntime-float32", "openvino-float32", "onnxruntime-int8")


@cache
def committed_models(runtime: str) -> RenderModels:
    """Return the models that come with dubstage on a backend and precision, written as in RUNTIMES.

    Raises:
        InvalidRequestError: this machine's processor cannot compute in the precision.
    """
    name, _, precision = runtime.partition("-")
    if name == "openvino":
        return load_models(WEIGHTS_FOLDER, OpenVinoBackend(precision=Precision(precision), num_threads=1))
    return load_models(WEIGHTS_FOLDER, OnnxRuntimeBackend(device="cpu", precision=Precision(precision), num_threads=1))


def render(
    backend: Backend, model: ModelFile, frames: Sequence[RenderFrame], state: Float32, reference: UInt8 | None = None
) -> list[RenderedFrame]:
    """Return the answers to a whole stream."""
    stream = open_stream(backend, model, state, reference)
    return [*stream.render(frames), *stream.finish()]
