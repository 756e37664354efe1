"""Interface of the renderers: the description of one, the window of frames that a stream keeps, and the FrameRenderer, which
prepares a frame, gives the inputs of the network, and draws the picture from its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import cv2
import numpy as np

from services.common.array_types import Array, Float32, UInt8
from services.common.face.drawing import IdentityDrawing
from services.common.face.mouth_bank import MouthBank
from services.common.methods import RendererSpec
from services.render.backends.devices import DeviceChoice
from services.render.backends.model_files import ModelFile
from services.render.types import PersonalizeProgress, RenderFrame

T = TypeVar("T")
_NOTCH: Final = np.array([1, -10, 45, -120, 210, 772, 210, -120, 45, -10, 1], np.float32) / np.float32(1024)
"""1 - sin(w / 2)^10 at the frequency w: 0 at two pixels, .76 at three, .97 at four, and flat below."""


@dataclass(frozen=True, slots=True, eq=False)
class Window(Generic[T]):
    """One frame with the prepared inputs (`FrameRenderer.prepare`) of this frame and of its neighbours.

    Attributes:
        now: prepared input of the frame.
        items: prepared inputs of frames t - frames_before to t + frames_after, oldest first; `now` is items[frames_before].
    """

    frame: RenderFrame
    now: T
    items: tuple[T, ...]


class FrameWindow(Generic[T]):
    """The last frames of a run of consecutive frames.

    A run ends at a gap of frame indices and at the end of the stream. The first frame of a run stands in for the frames before the
    run, the last frame for the frames after the run.

    Args:
        before: frames before each frame.
        after: frames after each frame.
    """

    def __init__(self, before: int, after: int) -> None:
        self._before, self._after = before, after
        self._run: list[tuple[RenderFrame, T]] = []
        self._done = 0

    def push(self, frame: RenderFrame, item: T) -> list[Window[T]]:
        """Add the next frame; return the windows that are complete now, in order.

        Args:
            frame: the frame; its index is above those before.
            item: what the frame was prepared to.
        """
        follows = bool(self._run) and frame.frame_index == self._run[-1][0].frame_index + 1
        complete = [] if follows else self.finish()
        self._run.append((frame, item))
        if self._done + self._after < len(self._run):
            complete.append(self._next())
        # Frames that no later window needs are released; at the beginning of a run, the first frame must stay for its stand-ins.
        while self._done > self._before:
            del self._run[0]
            self._done -= 1
        return complete

    def finish(self) -> list[Window[T]]:
        """End the run; return the windows of the frames whose frames after are missing, in order."""
        rest = [self._next() for _ in range(len(self._run) - self._done)]
        self._run, self._done = [], 0
        return rest

    def _next(self) -> Window[T]:
        at, last = self._done, len(self._run) - 1
        self._done += 1
        indices = range(at - self._before, at + self._after + 1)
        frame, now = self._run[at]
        return Window(frame, now, tuple(self._run[min(max(index, 0), last)][1] for index in indices))


@dataclass(frozen=True, slots=True, eq=False)
class NetworkInputs:
    """Inputs of the network for one frame.

    Attributes:
        inputs: arrays by the names of the network's inputs, without the batch axis.
        base: uint8 [H, W, 3], the picture that the drawn face starts from.
    """

    inputs: Mapping[str, Array]
    base: UInt8


class FrameRenderer(Protocol[T]):
    """Draws the frames of one stream. A FrameRenderer holds the actor and no frame: services.render.streams keeps the window."""

    @property
    def actor_inputs(self) -> Mapping[str, Array]:
        """Arrays of the actor by the names of the network's inputs, without the batch axis. They are repeated for each frame."""

    def prepare(self, frame: RenderFrame) -> T:
        """Return what the window keeps of a frame. Frames that are context only are prepared too if a window needs them."""

    def network_inputs(self, window: Window[T]) -> NetworkInputs:
        """Return the inputs of the network for a frame that is to be drawn."""

    def draw(self, window: Window[T], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """Return the picture of a frame: uint8 [H, W, 3], the background wherever the mask is 0.

        Args:
            window: the frame with its neighbours.
            inputs: what `network_inputs` returned for the frame.
            outputs: the network's outputs by name, without the batch axis.
        """


def drawn_face(base: UInt8, residual: Float32) -> Float32:
    """Return base + residual: float32 [H, W, 3], grey levels.

    Args:
        base: uint8 [H, W, 3].
        residual: float32 [H, W, 3], grey levels.
    """
    return np.asarray(base + residual, np.float32)


def without_dots(face: Float32) -> Float32:
    """Return a drawn face without structures two pixels wide: float32 [H, W, 3], grey levels.

    The last layer of a network that makes four pixels at once draws dots there: a checkerboard, or rows or columns of two pixels
    (Odena et al., Deconvolution and Checkerboard Artifacts, 2016). The filter passes .97 of structures four pixels wide.

    Args:
        face: float32 [H, W, 3], grey levels.
    """
    return np.asarray(cv2.sepFilter2D(face, -1, _NOTCH, _NOTCH, borderType=cv2.BORDER_REFLECT_101), np.float32)


def with_residual(frame: RenderFrame, base: UInt8, residual: Float32) -> UInt8:
    """Return base + residual where the mask is above 0, and the background elsewhere: uint8 [H, W, 3].

    Args:
        frame: background and mask.
        base: uint8 [H, W, 3].
        residual: float32 [H, W, 3], grey levels.
    """
    return with_face(frame, drawn_face(base, residual))


def with_face(frame: RenderFrame, face: Float32) -> UInt8:
    """Return a drawn face, rounded, where the mask is above 0, and the background elsewhere: uint8 [H, W, 3].

    Args:
        frame: background and mask.
        face: float32 [H, W, 3], grey levels.
    """
    drawn = np.clip(np.rint(face), 0.0, 255.0).astype(np.uint8)
    return np.where(frame.mask[:, :, None] > 0, drawn, frame.background)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamSetup:
    """Everything that one stream is opened with.

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
    """Input of one personalisation.

    Attributes:
        bank: the person's mouth pictures and landmarks, one frame or more.
        drawing: draws the person's face; None for renderers whose row has no `needs_identity`.
        weights: folder with the prior's weights (.safetensors).
        num_steps: steps of the optimiser; 0 takes the renderer's own number.
        seed: random seed of the choice of frames and of noise.
        num_threads: threads of the computation.
        device: device of the search. Pictures are made on the CPU.
        train: False skips the optimisation. The only report then holds what the bank gives at once.
    """

    bank: MouthBank
    drawing: IdentityDrawing | None
    weights: Path
    num_steps: int = 0
    seed: int = 0
    num_threads: int = 1
    device: DeviceChoice = "cpu"
    train: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Renderer:
    """One renderer: its row in the table of methods, and the functions that run it.

    Attributes:
        spec: the renderer's row, `RENDERERS[NAME]`.
        open: returns what draws the frames of one stream.
        personalize: finds an actor's state and yields progress; the state of the last report is the result. Imports PyTorch when
            called, so that a serving process without personalisations never loads PyTorch. Raises WorkCancelledError (the call is
            over) and ModelNotFoundError (a weight file is missing).
    """

    spec: RendererSpec
    open: Callable[[StreamSetup], FrameRenderer[Any]]
    personalize: Callable[[PersonalizeJob], Iterator[PersonalizeProgress]]
