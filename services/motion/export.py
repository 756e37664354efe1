"""Exports the trained networks: `python -m services.motion.export --style RUN --sync RUN`.

Writes weights/{style_encoder,motion,sync_audio,sync_mouth}.onnx, weights/motion_constants.safetensors and weights/export.json
(configurations, sha256, parity of PyTorch and ONNX Runtime). A parity failure fails the export, and nothing is written.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from services.common.tensor_bytes import encode_arrays
from services.motion.export_steps import admit, deliver, digests, run_command, write_onnx
from services.motion.features import BANDS, NUM_CONTENT, NUM_SYNC
from services.motion.networks.style_translation import StyleEncoder, StyleTranslationConfig, StyleTranslationNetwork
from services.motion.networks.sync import SyncConfig, SyncNetwork
from services.motion.types import ROWS_PER_FRAME, WINDOW, WINDOW_PAST

MAX_BYTES: Final = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """What one exported network looks like and how closely it must follow its source.

    Attributes:
        name: file name without its ending.
        inputs: names and shapes; None is a dynamic axis.
        outputs: names.
        tolerance: largest absolute difference allowed.
    """

    name: str
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    tolerance: float = 2e-4


class _EmittedFrame(nn.Module):
    """The motion network of one window, cut to the frame that is emitted."""

    def __init__(self, network: StyleTranslationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, modulation: Tensor) -> Tensor:
        coefficients: Tensor = self.network(content, modulation)
        return coefficients[:, WINDOW_PAST]


class _Encode(nn.Module):
    """The style encoder with its code and modulation as outputs."""

    def __init__(self, encoder: StyleEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder.encode(coefficients)
        return code, self.encoder.modulate(code)


def specs(style: StyleTranslationConfig, sync: SyncConfig) -> tuple[ExportSpec, ...]:
    """The four networks."""
    rows = (ROWS_PER_FRAME, NUM_CONTENT)
    modulation = (1, style.num_modulated, 2, style.channels)
    return (
        ExportSpec(
            name="style_encoder",
            inputs={"coefficients": (1, None, style.num_coefficients)},
            outputs=("code", "modulation"),
        ),
        ExportSpec(
            name="motion",
            inputs={"content": (1, WINDOW, *rows), "modulation": modulation},
            outputs=("coefficients",),
        ),
        ExportSpec(name="sync_audio", inputs={"heard": (1, None, ROWS_PER_FRAME, NUM_SYNC)}, outputs=("embedding",)),
        ExportSpec(name="sync_mouth", inputs={"coefficients": (1, None, sync.num_coefficients)}, outputs=("embedding",)),
    )


def _random_inputs(spec: ExportSpec, rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of a plausible scale; dynamic axes get 64."""
    made = {}
    for name, shape in spec.inputs.items():
        value = rng.standard_normal(tuple(64 if length is None else length for length in shape)).astype(np.float32)
        if name in {"content", "heard"}:
            split = value.shape[-1] - len(BANDS)
            sharp = np.exp(4.0 * value[..., :split])
            value[..., :split] = sharp / sharp.sum(axis=-1, keepdims=True)
            value[..., split:] = value[..., split:] if name == "content" else 2.0 * value[..., split:] - 6.0
        made[name] = value
    return made


def export_one(spec: ExportSpec, module: nn.Module, folder: Path) -> float:
    """Writes folder/<name>.onnx; returns the largest difference between PyTorch and ONNX Runtime over 16 random inputs.

    Raises:
        RuntimeError: the difference is over the tolerance, or the file over 4 MB.
    """
    rng = np.random.default_rng(7)
    path = folder / f"{spec.name}.onnx"
    example = {name: torch.from_numpy(value) for name, value in _random_inputs(spec, rng).items()}
    dynamic = {name: {axis: "frames" for axis, n in enumerate(shape) if n is None} for name, shape in spec.inputs.items()}
    if spec.name.startswith("sync"):
        dynamic["embedding"] = {1: "frames"}
    write_onnx(module, tuple(example.values()), path, list(spec.inputs), spec.outputs, dynamic)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for _ in range(16):
        inputs = _random_inputs(spec, rng)
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(value) for value in inputs.values()))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for got, want in zip(session.run(list(spec.outputs), inputs), expected, strict=True):
            largest = max(largest, float(np.abs(got - want.numpy()).max()))
    admit(path, largest, spec.tolerance, MAX_BYTES)
    return largest


def export(style_run: Path, sync_run: Path, out: Path) -> dict[str, Any]:
    """Exports everything, or nothing; returns the report that export.json holds."""
    style_kept = torch.load(style_run / "best.pt", weights_only=False)
    sync_kept = torch.load(sync_run / "best.pt", weights_only=False)
    style_config = StyleTranslationConfig(**style_kept["config"]["network"])
    sync_config = SyncConfig(**sync_kept["config"]["network"])
    style_network, sync_network = StyleTranslationNetwork(style_config), SyncNetwork(sync_config)
    style_network.load_state_dict(style_kept["state"])
    sync_network.load_state_dict(sync_kept["state"])
    modules: dict[str, nn.Module] = {
        "style_encoder": _Encode(style_network.style),
        "motion": _EmittedFrame(style_network),
        "sync_audio": sync_network.audio,
        "sync_mouth": sync_network.mouth,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parity = {spec.name: export_one(spec, modules[spec.name].eval(), folder) for spec in specs(style_config, sync_config)}
        with torch.inference_mode():
            modulation = style_network.style.modulate(style_kept["code"][None])[0].numpy()
        digest = hashlib.sha256(b"".join((folder / f"{name}.onnx").read_bytes() for name in modules)).hexdigest()
        constants = {
            **style_kept["basis"].arrays(),
            **sync_kept["basis"].arrays("sync_"),
            "mean_code": style_kept["code"].numpy(),
            "mean_modulation": modulation,
        }
        (folder / "motion_constants.safetensors").write_bytes(encode_arrays(constants, {"version": digest[:12]}))
        report = {
            "version": digest[:12],
            "style_training": {"config": style_kept["config"], "step": style_kept["step"], "scores": style_kept["scores"]},
            "sync_training": {
                "config": sync_kept["config"],
                "step": sync_kept["step"],
                "recovery": sync_kept["recovery"],
            },
            "parity": parity,
            "files": digests(folder),
            "specs": [asdict(spec) for spec in specs(style_config, sync_config)],
        }
        deliver(folder, report, "export.json", out)
    return report


def main() -> int:
    """Command line; the exit code is 1 where the export is refused."""
    runs = {
        "style": ("build/motion/style", "folder of a run of services.motion.train.style"),
        "sync": ("build/motion/sync", "folder of a run of services.motion.train.sync"),
    }
    return run_command(__doc__, runs, export)


if __name__ == "__main__":
    sys.exit(main())
