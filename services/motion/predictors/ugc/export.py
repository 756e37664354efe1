"""Export of `ugc`, together with the shared networks: the style encoder and the sync network.

The export writes {style_encoder,motion,sync_audio,sync_mouth}.onnx, motion_constants.safetensors and export.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from services.common.array_types import Float32
from services.common.store.tensor_bytes import encode_arrays
from services.motion.export_spec import Delivery, ExportSpec, admit, measure_parity, write_onnx
from services.motion.features import BANDS, NUM_CONTENT, NUM_SYNC
from services.motion.networks.sync import SyncConfig, SyncNetwork
from services.motion.predictors.ugc.inputs import WINDOW, WINDOW_PAST
from services.motion.predictors.ugc.network import StyleEncoder, UgcConfig, UgcNetwork
from services.motion.types import ROWS_PER_FRAME

RUNS: Final = {"style": "build/motion/style", "sync": "build/motion/sync"}
"""Default folders of the training runs: the networks of `ugc`, and the sync network."""
MAX_BYTES: Final = 4_000_000
_LIMITS: Final[dict[str, Any]] = {"tolerance": 2e-4, "max_bytes": MAX_BYTES, "parity_runs": 16}


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


def specs(style: UgcConfig, sync: SyncConfig) -> tuple[ExportSpec, ...]:
    """Return the descriptions of the four networks."""
    rows = (ROWS_PER_FRAME, NUM_CONTENT)
    modulation = (1, style.num_modulated, 2, style.channels)
    embedding: dict[str, Any] = {"outputs": ("embedding",), "dynamic_outputs": ("embedding",), **_LIMITS}
    return (
        ExportSpec(
            name="style_encoder",
            inputs={"coefficients": (1, None, style.num_coefficients)},
            outputs=("code", "modulation"),
            **_LIMITS,
        ),
        ExportSpec(
            name="motion", inputs={"content": (1, WINDOW, *rows), "modulation": modulation}, outputs=("coefficients",), **_LIMITS
        ),
        ExportSpec(name="sync_audio", inputs={"heard": (1, None, ROWS_PER_FRAME, NUM_SYNC)}, **embedding),
        ExportSpec(name="sync_mouth", inputs={"coefficients": (1, None, sync.num_coefficients)}, **embedding),
    )


def _plausible(inputs: Iterator[dict[str, Float32]]) -> Iterator[dict[str, Float32]]:
    """Yield random inputs whose phones are probabilities and whose energies have a plausible scale."""
    for each in inputs:
        for name, value in each.items():
            if name in {"content", "heard"}:
                split = value.shape[-1] - len(BANDS)
                sharp = np.exp(4.0 * value[..., :split])
                value[..., :split] = sharp / sharp.sum(axis=-1, keepdims=True)
                value[..., split:] = value[..., split:] if name == "content" else 2.0 * value[..., split:] - 6.0
        yield each


def export(runs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Export all four networks, or none.

    Args:
        runs: folders of the training runs `style` and `sync`.
        out: folder that gets the files.

    Returns:
        The report that export.json holds.

    Raises:
        RuntimeError: a network differs from its source, or its file is too large.
    """
    style_kept, sync_kept = (torch.load(runs[name] / "best.pt", weights_only=False) for name in RUNS)
    style_config = UgcConfig(**style_kept["config"]["network"])
    sync_config = SyncConfig(**sync_kept["config"]["network"])
    style_network, sync_network = UgcNetwork(style_config), SyncNetwork(sync_config)
    style_network.load_state_dict(style_kept["state"])
    sync_network.load_state_dict(sync_kept["state"])
    modules: dict[str, nn.Module] = {
        "style_encoder": _Encode(style_network.style),
        "motion": _EmittedFrame(style_network),
        "sync_audio": sync_network.audio,
        "sync_mouth": sync_network.mouth,
    }
    made = specs(style_config, sync_config)
    with Delivery(out) as delivery:
        folder, parity = delivery.folder, {}
        for spec in made:
            path = write_onnx(modules[spec.name], folder, spec)
            parity[spec.name] = measure_parity(modules[spec.name], path, spec, _plausible(spec.examples()))
            admit(path, parity[spec.name], spec)
        with torch.inference_mode():
            modulation = style_network.style.modulate(style_kept["code"][None])[0].numpy()
        version = hashlib.sha256(b"".join((folder / f"{name}.onnx").read_bytes() for name in modules)).hexdigest()[:12]
        constants = {
            **style_kept["basis"].arrays(),
            **sync_kept["basis"].arrays("sync_"),
            "mean_code": style_kept["code"].numpy(),
            "mean_modulation": modulation,
        }
        (folder / "motion_constants.safetensors").write_bytes(encode_arrays(constants, {"version": version}))
        report = {
            "version": version,
            "style_training": {name: style_kept[name] for name in ("config", "step", "scores")},
            "sync_training": {"config": sync_kept["config"], "step": sync_kept["step"], **sync_kept["scores"]},
            "parity": parity,
            "specs": [asdict(spec) for spec in made],
        }
        return delivery.deliver("export.json", report)
