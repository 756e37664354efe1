"""Exported models of a folder: files that the export wrote, checked against their digests; names of network inputs and outputs that
several renderers share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.common.errors import ArtefactCorruptError, ModelNotFoundError
from services.common.face.crops import BOX_SIZE
from services.common.files import file_sha256
from services.render.types import Precision

INPUT_PICTURES: Final = "pictures"
"""Input: the channels of one frame and its window, uint8 [batch, H, W, C]."""
INPUT_STATE: Final = "actor_state"
"""Input: the part of an actor's state that the network takes, float32 [batch, S]."""
OUTPUT_RESIDUAL: Final = "residual"
"""Output: grey levels to add to a picture that the renderer chooses, float32 [batch, H, W, 3]."""


WEIGHTS_FOLDER: Final = Path(__file__).parents[1] / "weights"
"""Models that come with dubstage."""
WEIGHTS_DIGEST: Final = "weights_sha256"
"""Key in an ONNX file's metadata: digest of the weights file that the ONNX file's large tensors lie in."""
BATCH_AXIS: Final = "batch"
"""First axis of every shape of an export sheet: tensors have one row per frame."""


@dataclass(frozen=True, slots=True)
class TensorForm:
    """One input or output of an exported network.

    Attributes:
        name: name in the network's file.
        dtype: NumPy's name of the data type, such as float32.
        shape: lengths without the batch axis, which comes before them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An exported network.

    Attributes:
        name: name in requests.
        path: path of the ONNX file.
        sha256: digest of that file, hexadecimal. The digest covers the weights file too: the ONNX file states that file's digest.
        weights: weights file in the same folder, which the ONNX file refers to; None: the ONNX file holds all its tensors.
        state_size: length of an actor's state.
        prior_sha256: digest of the weights that the network was exported from; an actor's state fits these weights only.
        max_batch_size: largest batch that the network takes.
        box_size: side of the render box, pixels: BOX_SIZE or a whole multiple.
    """

    name: str
    path: Path
    sha256: str
    weights: Path | None
    state_size: int
    prior_sha256: str
    inputs: tuple[TensorForm, ...]
    outputs: tuple[TensorForm, ...]
    max_batch_size: int
    box_size: int

    def content(self) -> bytes | str:
        """Compare the digests again, and return what a runtime in this process loads.

        Returns:
            The bytes of the file; its path where the tensors lie in a weights file, which runtimes find by the path.

        Raises:
            ModelNotFoundError: a file is missing.
            ArtefactCorruptError: a file was replaced after the models were read.
        """
        if self.weights is not None:
            _check_file(self.name, self.path, self.sha256)
            _check_file(self.name, self.weights, self.prior_sha256)
            return str(self.path)
        try:
            content = self.path.read_bytes()
        except FileNotFoundError as problem:
            raise _missing(self.name, self.path) from problem
        _check_digest(self.path, hashlib.sha256(content).hexdigest(), self.sha256)
        return content

    @property
    def box_multiple(self) -> int:
        """Side of the render box in units of BOX_SIZE."""
        return self.box_size // BOX_SIZE

    def input_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an input without the batch axis; None: the network has no input of this name."""
        return next((form.shape for form in self.inputs if form.name == name), None)


def read_models(folder: Path, precision: Precision) -> dict[str, ModelFile]:
    """Read all models of a folder by name, in the file variant that a precision needs.

    Raises:
        ModelNotFoundError: there is no model, or not in this precision.
        ArtefactCorruptError: a file has another digest than the exported one, or an export sheet contradicts itself.
    """
    variant = "int8" if precision is Precision.INT8 else "float"
    models: dict[str, ModelFile] = {}
    for sheet in sorted(folder.glob("*.export.json")):
        try:
            model = _read_model(sheet, variant, precision)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ArtefactCorruptError(
                f"{sheet} is damaged: {type(problem).__name__}: {problem}; export the model again", resource=str(sheet)
            ) from problem
        models[model.name] = model
    if not models:
        raise ModelNotFoundError(f"no exported model in {folder}", resource=str(folder))
    return models


def _read_model(sheet: Path, variant: str, precision: Precision) -> ModelFile:
    facts = json.loads(sheet.read_text(encoding="utf-8"))
    name = str(facts["name"])
    file = facts["files"].get(variant)
    if file is None:
        raise ModelNotFoundError(f"model {name!r} was not exported in {precision}: {sheet} has no {variant} variant", resource=name)
    path, prior_sha256 = sheet.parent / str(file["path"]), str(facts["prior_sha256"])
    _check_file(name, path, str(file["sha256"]))
    weights = sheet.parent / str(file["weights"]) if "weights" in file else None
    if weights is not None:
        _check_file(name, weights, prior_sha256)
    inputs, outputs = tensor_forms(facts["inputs"]), tensor_forms(facts["outputs"])
    return ModelFile(
        name=name,
        path=path,
        sha256=str(file["sha256"]),
        weights=weights,
        state_size=int(facts["state_size"]),
        prior_sha256=prior_sha256,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=int(facts["max_batch_size"]),
        box_size=_box_size(sheet, outputs),
    )


def _check_file(name: str, path: Path, sha256: str) -> None:
    """Check that a file of a model is there and has the digest of the export sheet.

    Raises:
        ModelNotFoundError, ArtefactCorruptError: the file is missing or differs.
    """
    if not path.is_file():
        raise _missing(name, path)
    _check_digest(path, file_sha256(path), sha256)


def _missing(name: str, path: Path) -> ModelNotFoundError:
    return ModelNotFoundError(f"model {name!r}: no file {path}", resource=name)


def _check_digest(path: Path, digest: str, sha256: str) -> None:
    if digest != sha256:
        raise ArtefactCorruptError(f"{path} is damaged: sha256 {sha256} expected, {digest} found", resource=str(path))


def tensor_forms(entries: Mapping[str, Any]) -> tuple[TensorForm, ...]:
    """Return the inputs or outputs of an export sheet: {name: [dtype, [BATCH_AXIS, ...]]}.

    Raises:
        ValueError: a shape has no batch axis, or a length is no number.
    """
    forms = []
    for name, (dtype, shape) in entries.items():
        if not shape or shape[0] != BATCH_AXIS:
            raise ValueError(f"the shape of {name!r} is {shape}; the first axis must be {BATCH_AXIS!r}")
        forms.append(TensorForm(name, str(dtype), tuple(int(size) for size in shape[1:])))
    return tuple(forms)


def _box_size(sheet: Path, outputs: tuple[TensorForm, ...]) -> int:
    """Side of the pictures that a network draws: the first output has the shape [batch, side, side, channels]."""
    shapes = [form.shape for form in outputs]
    side = shapes[0][0] if shapes and len(shapes[0]) == 3 else 0
    if not side or shapes[0][1] != side or side % BOX_SIZE:
        raise ArtefactCorruptError(
            f"{sheet} lists outputs {shapes}: the first one must be a square picture of {BOX_SIZE} pixels a side, or of a "
            "whole multiple",
            resource=str(sheet),
        )
    return side
