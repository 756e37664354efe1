"""Export of a renderer's run into the files that the stage serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from services.common.store.exported_network import copy_card, write_whole
from services.render.renderer import ExportJob
from services.render.renderers.registry import renderer_named
from services.render.train.calibration import read_calibration
from services.training.run_folder import CONFIG


def export_renderer(name: str, more_files: Callable[[Path], Sequence[str]], run: Path, folder: Path) -> list[Path]:
    """Export a run: NAME.onnx, NAME.int8.onnx, NAME.export.json, NAME.card.md, and the weights that personalisation needs.

    Args:
        name: name of the renderer.
        more_files: returns names of further files of the run that the stage serves.
        run: folder of the run.
        folder: folder of weights.

    Raises:
        InvalidRequest: the run is not complete.
        ModelNotFound: the run's weights are missing or damaged.
        ContractBroken: the ONNX file does not compute what PyTorch computes. Nothing is written.
    """
    training = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    weights = run / f"{name}.safetensors"
    job = ExportJob(weights=weights, folder=folder, calibration=read_calibration(run), training=training)
    network = renderer_named(name).export(job)
    copies = [write_whole(folder / file, (run / file).read_bytes()) for file in (weights.name, *more_files(run))]
    card = copy_card(run, network)
    sheets = [network, network.with_suffix(".int8.onnx"), network.with_suffix(".export.json")]
    return [*sheets, *copies, *([card] if card else [])]
