"""Export of the network of `ugc`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.render.network_export import ExportSpec, export_network, picture_and_state
from services.render.renderer import ExportJob
from services.render.renderers.ugc.inputs import NUM_PICTURE_CHANNELS
from services.render.renderers.ugc.network import WEIGHTS, load

SPEC: Final = ExportSpec(
    name="ugc",
    weights=WEIGHTS,
    load=load,
    inputs=picture_and_state(NUM_PICTURE_CHANNELS),
)


def export_ugc(job: ExportJob) -> Path:
    """Export the network and return the path of the ONNX file; see services.render.network_export.export_network."""
    return export_network(SPEC, job)
