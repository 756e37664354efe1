"""Export of the network of `everyone`. The file computes the middle frame of the window only."""

from __future__ import annotations

from functools import partial
from typing import Final

from services.render.network_export import ExportSpec, export_network, picture_and_state
from services.render.renderers.everyone.actor_state import REFERENCE_SIZE
from services.render.renderers.everyone.inputs import PICTURE_CHANNELS
from services.render.renderers.everyone.network import WEIGHTS, load

SPEC: Final = ExportSpec(
    name="everyone", weights=WEIGHTS, load=load, inputs=picture_and_state(PICTURE_CHANNELS), extra_state=REFERENCE_SIZE
)
export_everyone: Final = partial(export_network, SPEC)
"""Export the network and return the path of the ONNX file; see services.render.network_export.export_network."""
