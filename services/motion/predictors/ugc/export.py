"""Export of `ugc`: motion.onnx, style_encoder.onnx, and the basis and the mean speaker in the shared constants.

Runs of other predictors are measured in this basis. So they are trained again on the run (`dubstage train NETWORK --using
ugc_motion=RUN`), and exported into the folder after the run: their exports check the basis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from services.common.array_types import Array
from services.motion.export import PARITY_RUNS, TOLERANCE, SharedExport, export_shared
from services.motion.export_spec import ExportSpec
from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.inputs import WINDOW, WINDOW_PAST
from services.motion.predictors.ugc.network import StyleEncoder, UgcConfig, UgcNetwork
from services.motion.train.run_files import load_network, read_best
from services.motion.types import ROWS_PER_FRAME
from services.training.run_folder import read_config

NAME = "ugc_motion"
"""Name of the network on the command line."""


class _EmittedFrame(nn.Module):
    """The motion network of one window, cut to the predicted frame."""

    def __init__(self, network: UgcNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, modulation: Tensor) -> Tensor:
        coefficients: Tensor = self.network(content, modulation)
        return coefficients[:, WINDOW_PAST]


class _Encode(nn.Module):
    """The style encoder with code and modulation as outputs."""

    def __init__(self, encoder: StyleEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder.encode(coefficients)
        return code, self.encoder.modulate(code)


def specs(config: UgcConfig) -> tuple[ExportSpec, ExportSpec]:
    """Return the descriptions of the style encoder and of the motion network."""
    limits: dict[str, Any] = {"tolerance": TOLERANCE, "parity_runs": PARITY_RUNS}
    modulation = (1, config.num_modulated, 2, config.channels)
    encoder = ExportSpec(
        name="style_encoder", inputs={"coefficients": (1, None, config.num_coefficients)}, outputs=("code", "modulation"), **limits
    )
    content = (1, WINDOW, ROWS_PER_FRAME, NUM_CONTENT)
    motion = ExportSpec(name="motion", inputs={"content": content, "modulation": modulation}, outputs=("coefficients",), **limits)
    return encoder, motion


def export(run: Path, out: Path) -> list[Path]:
    """Export both networks with their constants, or nothing. See services.motion.export.export_shared."""
    kept = read_best(run, NAME)
    config = TypeAdapter(UgcConfig).validate_python(read_config(run, NAME)["network"])
    network = UgcNetwork(config)
    load_network(network, kept)

    def arrays() -> Mapping[str, Array]:
        own = {name: values for name, values in kept.arrays.items() if not name.startswith("network.")}
        with torch.inference_mode():
            modulation = network.style.modulate(torch.tensor(own["mean_code"])[None])[0].numpy()
        return {**own, "mean_modulation": modulation}

    encoder, motion = specs(config)
    modules = ((_Encode(network.style), encoder), (_EmittedFrame(network), motion))
    given = SharedExport(name=NAME, card=motion.name, part="style_training", modules=modules, arrays=arrays)
    return export_shared(run, out, given)
