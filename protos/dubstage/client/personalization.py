"""Progress of a personalisation, which the motion and the render stage report alike."""

from __future__ import annotations

from dataclasses import dataclass

from dubstage.common.v1alpha1 import common_pb2


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a personalisation.

    Attributes:
        step: optimisation steps that are done.
        loss: of the last step, unitless.
        artefact: the adapted state in the stages' artefact store; None in all steps but the last.
    """

    step: int
    num_steps: int
    loss: float
    artefact: common_pb2.ArtefactRef | None
