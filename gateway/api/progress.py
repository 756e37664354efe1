"""Progress of operations: costs of their steps, and the messages that callers see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.resources import optional_duration
from gateway.dub.choices import PREVIEW_S
from gateway.dub.progress import OnProgress
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.costs import figures
from gateway.operations.progress import StepCost, WholeProgress
from gateway.operations.step_paces import StepPaces
from services.common.methods import Method, method_named

if TYPE_CHECKING:
    # Commands show the steps of their work, and need neither the operations of a server nor their database.
    from gateway.operations.execution import BegunOperation

_PREFIX: Final = "OPERATION_STEP_"
# Wall-clock times from the first report of a step to that of the next one, on two processors (python -m research.bench.progress).
_TRACK: Final = StepCost("track", frame_ms=12.2, megapixel_ms=12.8)
_EXPRESSION: Final = (StepCost("own motion", frame_ms=0.4), StepCost("expression", frame_ms=0.7))
"""Steps before the motion of a video that keeps the frames of the footage."""
_PREVIEW_FRAMES: Final = 25 * PREVIEW_S
"""Frames of a preview at the usual frame rate."""
FACE_STEPS: Final[Sequence[StepCost]] = (
    StepCost("fetch", fixed_s=0.5),
    _TRACK,
    StepCost("speakers", fixed_s=2.0),
    StepCost("pictures", fixed_s=0.5),
)
"""Steps of DetectFaces."""


def step_number(name: str) -> pb.OperationStep.ValueType:
    """Return the OperationStep of a step, such as `enrol bank`; unspecified: the contract has no such step."""
    numbers = dict(pb.OperationStep.items())
    return numbers.get(f"{_PREFIX}{name.upper().replace(' ', '_')}", pb.OPERATION_STEP_UNSPECIFIED)


def _learning(method: Method, *, skip: bool) -> Sequence[StepCost]:
    """Return the steps in which a person is learned for a method.

    Args:
        skip: whether the networks stay as they are.
    """
    bank = StepCost("enrol bank", megapixel_ms=13.0)
    # A neural texture is adapted with the identity's expressions before the bank is built.
    fitted = (
        (StepCost("enrol identity", fixed_s=4.6), StepCost("enrol coefficients", frame_ms=68.0), bank)
        if method.adapts_neural_texture
        else (bank, StepCost("enrol identity", fixed_s=2.4 if method.needs_identity else 0.0))
    )
    return (
        StepCost("enrol style", fixed_s=0.1),
        StepCost("enrol motion", fixed_s=0.0 if skip else 0.2),
        *fitted,
        StepCost("enrol renderer", fixed_s=22.0 if not skip else 1.8 if method.needs_identity else 0.1),
    )


def enrolment_steps(method: Method, *, skip: bool) -> Sequence[StepCost]:
    """Return the steps of CreateActor.

    Args:
        method: method that the person is enrolled for.
        skip: whether the networks stay as they are.
    """
    return (StepCost("fetch", fixed_s=0.5), StepCost("join", fixed_s=0.5), _TRACK, *_learning(method, skip=skip))


def dub_steps(request: DubRequest, *, report: bool = False) -> Sequence[StepCost]:
    """Return the steps of CreateDub.

    Args:
        report: whether a report follows.
    """
    cost = figures()
    method = method_named(request.method)
    written = cost.written_ms.get(method.renderer.name, max(cost.written_ms.values()))
    is_enrolled = request.actor is not None or (request.lines and all(line.actor_id for line in request.lines))
    # A preview trains nothing.
    skip = request.preview or not request.enrol.trains
    analysed = (
        StepCost("fetch", fixed_s=0.5),
        StepCost("reference", fixed_s=0.5 if request.reference is not None else 0.0),
        _TRACK,
        *(() if is_enrolled else _learning(method, skip=skip)),
    )
    shown = (
        *(() if request.own_timeline else _EXPRESSION),
        StepCost("motion", fixed_s=0.2, frame_ms=1.1),
        *([StepCost("background", megapixel_ms=13.0)] if request.own_timeline else ()),
        StepCost("lines", fixed_s=0.5 * len(request.lines)),
        # The first window of the next step is part of this one.
        StepCost("insides", fixed_s=2.3, frame_ms=3.3),
        StepCost("dub", frame_ms=written, megapixel_ms=12.2),
        StepCost("upload", fixed_s=0.1),
        *([StepCost("report", frame_ms=18.0, megapixel_ms=19.5, counts_frames=False)] if report else []),
    )
    return (*analysed, *(replace(step, most_frames=_PREVIEW_FRAMES) if request.preview else step for step in shown))


class OperationReporter:
    """Reports the progress of an operation as OperationProgress.

    Args:
        operation: the operation.
        steps: its steps.
        paces: paces of this machine, which correct the costs of the steps; None: the costs stay.
        count: called with every frame and step too.
    """

    def __init__(
        self,
        operation: BegunOperation,
        steps: Sequence[StepCost],
        *,
        paces: StepPaces | None = None,
        count: OnProgress = lambda *_: None,
    ) -> None:
        self._operation = operation
        self._count = count
        self._paces = paces
        before = pb.OperationProgress.FromString(operation.record.metadata)
        self._progress = WholeProgress(steps, paces=paces.of(steps) if paces is not None else {}, floor=before.fraction)

    def footage(self, frames: int, megapixels: float) -> None:
        """Take the size of the footage, frames and million pixels of a frame, for the estimate of the time left."""
        self._progress.footage(frames, megapixels)

    def learn(self) -> None:
        """Correct the paces by the times of the operation, which has just ended well. Blocks."""
        if self._paces is not None:
            self._paces.add(self._progress)

    def __call__(self, step: str, done: int, total: int) -> None:
        """Report one frame or step."""
        self._count(step, done, total)
        state = self._progress.report(step, done, total)
        message = pb.OperationProgress(
            fraction=state.fraction,
            step=step_number(step),
            done=done,
            total=total,
            frames_per_second=state.per_second,
            remaining=optional_duration(state.remaining_s),
        )
        self._operation.report(message.SerializeToString())
