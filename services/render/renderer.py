"""Description of one renderer: what it needs of a request, and how its stream, its export and its personalisation are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.common.array_types import Float32, UInt8
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.mouth_bank import MouthBank
from services.render.backends.registry import ModelFile
from services.render.drawer import FrameDrawer
from services.render.types import PersonalizeProgress, TextureInput

INPUTS: Final = frozenset({"texture", "speech_features", "neural_features", "reference"})
"""Optional fields of a request: fields of RenderFrame that a renderer can need, and `reference` of RenderConfig, which it can take.
Without a reference in the request, the reference picture in the actor's state is used."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamSetup:
    """What one stream is opened with.

    Attributes:
        model: the exported network with the forms of its inputs and outputs.
        state: float32 [S], the actor's state, or zeros; S is `model.state_size`.
        reference: uint8 [H, W, 3], a picture in place of the reference picture in the actor's state; None: the actor's own.
    """

    model: ModelFile
    state: Float32
    reference: UInt8 | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PersonalizeJob:
    """What one personalisation works from.

    Attributes:
        bank: the person's mouth pictures and landmarks, one frame or more.
        drawing: draws the person's face; None for renderers without `needs_identity`.
        weights: folder with the prior's weights (.safetensors).
        num_steps: steps of the optimiser; 0 takes the renderer's own number.
        seed: random seed of the choice of frames and of noise.
        num_threads: threads of the computation.
        train: False skips the optimisation. The only report then holds what the bank gives at once.
    """

    bank: MouthBank
    drawing: IdentityDrawing | None
    weights: Path
    num_steps: int = 0
    seed: int = 0
    num_threads: int = 1
    train: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExportJob:
    """What one export works from.

    Attributes:
        weights: the network's weights (.safetensors); None: the file that comes with dubstage.
        folder: folder for MODEL.onnx, MODEL.export.json and, with `calibration`, MODEL.int8.onnx.
        calibration: uint8 [N, H, W, C], network inputs to calibrate the int8 variant with; None: no int8 variant.
        training: network and configuration of the training run, for the export sheet; None: not known.
    """

    weights: Path | None
    folder: Path
    calibration: UInt8 | None = None
    training: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Renderer:
    """One renderer, as the registry (services.render.renderers.registry) holds it.

    Attributes:
        name: name of the renderer and of its exported model.
        frames_before: frames before a frame that its picture depends on.
        frames_after: frames after a frame that its picture depends on.
        inputs: optional fields of a request, names of INPUTS. All of them but `reference` must be set. Background, mask and box
            landmarks always come.
        texture: what the frame's `texture` shows.
        needs_actor: whether pictures show the person only with an actor's state. Without one, such a renderer draws nobody.
        needs_identity: whether personalisation needs the person's identity on a morphable model.
        open: returns what draws the frames of one stream.
        personalize: finds an actor's state and yields progress; the state of the last report is the result. Imports PyTorch when
            called, so that a serving process without personalisations never loads PyTorch. Raises Cancelled (the call is over) and
            ModelNotFound (a weight file is missing).
        export: exports the network, measures parity with PyTorch, and returns the path of the ONNX file. Imports PyTorch when
            called.

    Raises:
        ValueError: `inputs` holds an unknown name, or `inputs` and `texture` contradict each other.
    """

    name: str
    frames_before: int = 0
    frames_after: int = 0
    inputs: tuple[str, ...] = ()
    texture: TextureInput = TextureInput.NONE
    needs_actor: bool = False
    needs_identity: bool = False
    open: Callable[[StreamSetup], FrameDrawer[Any]]
    personalize: Callable[[PersonalizeJob], Iterator[PersonalizeProgress]]
    export: Callable[[ExportJob], Path]

    def __post_init__(self) -> None:
        if unknown := set(self.inputs) - INPUTS:
            raise ValueError(f"renderer {self.name!r}: no input {sorted(unknown)}; there are {sorted(INPUTS)}")
        if ("texture" in self.inputs) != (self.texture is not TextureInput.NONE):
            raise ValueError(f"renderer {self.name!r}: inputs {self.inputs} do not fit texture {self.texture}")
