"""Export of the network of `headpose`."""

from __future__ import annotations

from functools import partial
from typing import Final

from services.render.key_pictures import STATE_SIZE as KEYS_STATE_SIZE
from services.render.network_export import ExportSpec, export_network, picture_and_state
from services.render.renderers.headpose.inputs import PICTURE_CHANNELS
from services.render.renderers.headpose.network import WEIGHTS, load

SPEC: Final = ExportSpec(
    name="headpose", weights=WEIGHTS, load=load, inputs=picture_and_state(PICTURE_CHANNELS), extra_state=KEYS_STATE_SIZE
)
export_headpose: Final = partial(export_network, SPEC)
"""Export the network and return the path of the ONNX file; see services.render.network_export.export_network."""
