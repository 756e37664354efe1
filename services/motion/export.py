"""Export of the sync network, and of what several networks share: the constants and the sheet of the folder of weights.

A folder of weights holds motion_constants.safetensors: the landmark basis of the style with the mean speaker, and, under names that
start with `sync_`, the landmark basis of the sync network. An export replaces its own arrays and keeps the others. The version is
the digest of the four networks that belong to these constants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import nn

from services.common.array_types import Array, Float32
from services.common.errors import InvalidRequest
from services.common.store.tensor_bytes import encode_arrays
from services.motion.export_spec import Delivery, ExportSpec, admit, digests, measure_parity, write_onnx, write_sheet
from services.motion.features import BANDS, NUM_SYNC
from services.motion.networks.sync import SyncConfig, SyncNetwork
from services.motion.runtime import read_constants
from services.motion.train.basis import SHARED_CONSTANTS
from services.motion.train.run_files import load_network, origin_of, read_best
from services.motion.types import ROWS_PER_FRAME
from services.training.run_folder import read_config

SHARED_NETWORKS: Final = ("style_encoder", "motion", "sync_audio", "sync_mouth")
"""Networks that belong to the shared constants, in the order of the version's digest."""
SHARED_SHEET: Final = "export.json"
TOLERANCE: Final = 2e-4
PARITY_RUNS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedExport:
    """What one run gives to the files that several networks share.

    Attributes:
        name: name of the trained network.
        card: name of the card's copy, without its ending .card.md.
        part: key of the run's origin in the sheet.
        modules: networks in PyTorch with their descriptions.
        arrays: returns the run's arrays of the shared constants.
    """

    name: str
    card: str
    part: str
    modules: Sequence[tuple[nn.Module, ExportSpec]]
    arrays: Callable[[], Mapping[str, Array]]


def plausible(example: dict[str, Float32]) -> dict[str, Float32]:
    """Return random inputs whose phones are probabilities and whose energies have a plausible scale."""
    for name in {"content", "heard"} & set(example):
        value = example[name]
        split = value.shape[-1] - len(BANDS)
        sharp = np.exp(4.0 * value[..., :split])
        value[..., :split] = sharp / sharp.sum(axis=-1, keepdims=True)
        value[..., split:] = value[..., split:] if name == "content" else 2.0 * value[..., split:] - 6.0
    return example


def export_shared(run: Path, out: Path, export: SharedExport) -> list[Path]:
    """Write a run's networks, and replace its part of the shared constants and of the sheet, or write nothing.

    Args:
        run: folder of a finished run.
        out: folder of weights.
        export: what the run gives.

    Returns:
        Paths of the files.

    Raises:
        ModelNotFound: the folder of weights has no constants.
        InvalidRequest: the folder of weights lacks another network that the version needs, or the sheet.
        ContractBroken: a network differs from its source.
    """
    held = read_constants(out / SHARED_CONSTANTS)
    own = {spec.name for _, spec in export.modules}
    others = {name: _there(out / f"{name}.onnx") for name in SHARED_NETWORKS if name not in own}
    sheet: dict[str, Any] = json.loads(_there(out / SHARED_SHEET).read_text(encoding="utf-8"))
    parity, specs = dict(sheet.get("parity", {})), {each["name"]: each for each in sheet.get("specs", [])}
    with Delivery(out) as delivery:
        folder = delivery.folder
        for module, spec in export.modules:
            path = write_onnx(module, folder, spec)
            parity[spec.name] = measure_parity(module, path, spec, map(plausible, spec.examples()))
            admit(spec.name, parity[spec.name], spec)
            specs[spec.name] = asdict(spec)
        networks = [others.get(name, folder / f"{name}.onnx") for name in SHARED_NETWORKS]
        version = hashlib.sha256(b"".join(path.read_bytes() for path in networks)).hexdigest()[:12]
        constants = folder / SHARED_CONSTANTS
        constants.write_bytes(encode_arrays({**held.arrays, **export.arrays()}, {**held.metadata, "version": version}))
        facts = {
            **sheet,
            "version": version,
            export.part: origin_of(run, export.name, folder / f"{export.card}.card.md"),
            "parity": parity,
            "files": digests([*networks, constants]),
            "specs": [specs[name] for name in SHARED_NETWORKS if name in specs],
        }
        write_sheet(folder / SHARED_SHEET, facts)
        return delivery.deliver()


def export_sync(run: Path, out: Path) -> list[Path]:
    """Export the sync network: sync_audio.onnx, sync_mouth.onnx and its arrays of the shared constants. See `export_shared`."""
    kept = read_best(run, "sync")
    config = SyncConfig(**read_config(run, "sync")["network"])
    network = SyncNetwork(config)
    load_network(network, kept)
    embedding: dict[str, Any] = {"outputs": ("embedding",), "dynamic_outputs": ("embedding",)}
    limits: dict[str, Any] = {"tolerance": TOLERANCE, "parity_runs": PARITY_RUNS}
    heard = ExportSpec(name="sync_audio", inputs={"heard": (1, None, ROWS_PER_FRAME, NUM_SYNC)}, **embedding, **limits)
    seen = ExportSpec(name="sync_mouth", inputs={"coefficients": (1, None, config.num_coefficients)}, **embedding, **limits)
    own = {name: values for name, values in kept.arrays.items() if name.startswith("sync_")}
    modules = ((network.audio, heard), (network.mouth, seen))
    given = SharedExport(name="sync", card="sync", part="sync_training", modules=modules, arrays=lambda: own)
    return export_shared(run, out, given)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InvalidRequest(
            f"{path} is missing: {path.parent} is not a whole folder of weights; give --output a folder that does not exist yet",
            field="output",
        )
    return path
