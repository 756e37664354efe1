"""Export of the network of `ugc`."""

from __future__ import annotations

from functools import partial
from typing import Final

from services.render.network_export import ExportSpec, export_network, picture_and_state
from services.render.renderers.ugc.inputs import NUM_PICTURE_CHANNELS
from services.render.renderers.ugc.network import WEIGHTS, load

SPEC: Final = ExportSpec(name="ugc", weights=WEIGHTS, load=load, inputs=picture_and_state(NUM_PICTURE_CHANNELS))
export_ugc: Final = partial(export_network, SPEC)
"""Export the network and return the path of the ONNX file; see services.render.network_export.export_network."""
