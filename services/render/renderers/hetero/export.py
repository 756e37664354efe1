"""Export of the network of `hetero`."""

from __future__ import annotations

from functools import partial
from typing import Final

from services.render.network_export import ExportSpec, export_network, picture_and_state
from services.render.renderers.hetero.inputs import NUM_CHANNELS
from services.render.renderers.hetero.network import WEIGHTS, load
from services.render.renderers.hetero.reference import STATE_SIZE

SPEC: Final = ExportSpec(name="hetero", weights=WEIGHTS, load=load, inputs=picture_and_state(NUM_CHANNELS), extra_state=STATE_SIZE)
export_hetero: Final = partial(export_network, SPEC)
"""Export the network and return the path of the ONNX file; see services.render.network_export.export_network."""
