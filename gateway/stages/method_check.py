"""Comparison of the table of methods with what the motion stage and the render stage say of their models."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import structlog
from google.protobuf.json_format import MessageToDict

from dubstage.client import rpcs
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.stages.interface import Stages
from services.common.errors import ContractBroken, ModelNotFound
from services.common.methods import METHODS, Method
from services.common.wire.models import predictor_to_proto, renderer_to_proto

BOX_MULTIPLE: Final = 1
"""Side of the render box in units of 160 pixels that the gateway composites."""
_OF_NETWORK: Final = frozenset({"version", "sha256", "backend", "precision", "num_threads"})
"""Fields of models that the networks of a stage decide, not the table."""

_log = structlog.stdlib.get_logger("dubstage.gateway")

Model = motion_pb2.Model | render_pb2.Model


class ListedModels(NamedTuple):
    """Answers of the stages about their models.

    Attributes:
        motion: answer of MotionService.ListModels.
        render: answer of RenderService.ListModels.
    """

    motion: motion_pb2.ListModelsResponse
    render: render_pb2.ListModelsResponse


def check_methods(motion: motion_pb2.ListModelsResponse, render: render_pb2.ListModelsResponse) -> list[str]:
    """Compare the table of methods with the models of the stages, and return the methods that cannot be used.

    A stage of the gateway's own version reads the same table; a server of another version may read another. A stage may have fewer
    models than the table, so that a small deployment starts: a method without its models is logged here, and refused when it is
    asked for (`models_for`). A stage may also have more models.

    Args:
        motion: answer of MotionService.ListModels.
        render: answer of RenderService.ListModels.

    Raises:
        ContractBroken: a model of a stage differs from the table; the message names stage, method, field and both values.
    """
    missing: list[str] = []
    for method in METHODS.values():
        renderer = renderer_to_proto(method.renderer)
        renderer.box_multiple = BOX_MULTIPLE
        rows = [predictor_to_proto(row) for row in (method.motion, method.streamed.motion)]
        there = {"motion": _has("motion", method, motion.models, rows), "render": _has("render", method, render.models, [renderer])}
        if not all(there.values()):
            stages = [stage for stage, has in there.items() if not has]
            reason = _reason(render, method.renderer.name)
            _log.warning("method_missing", method=method.name, stages=stages, **({"reason": reason} if reason else {}))
            missing.append(method.name)
    return missing


async def listed_models(stages: Stages) -> ListedModels:
    """Return what the motion stage and the render stage say of their models.

    Raises:
        DubstageError: from the stages.
    """
    motion = await stages.unary(rpcs.motion.LIST_MODELS, motion_pb2.ListModelsRequest())
    render = await stages.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
    return ListedModels(motion, render)


async def models_for(stages: Stages, method: Method) -> ListedModels:
    """Return the models of the stages, if the stages have the predictor and the renderer of a method.

    Raises:
        ModelNotFound: a stage does not have its part of the method, or cannot compute it.
        DubstageError: from the stages.
    """
    listed = await listed_models(stages)
    _check_there("motion", method, method.motion.name, [model.name for model in listed.motion.models])
    reason = _reason(listed.render, method.renderer.name)
    _check_there("render", method, method.renderer.name, [model.name for model in listed.render.models], reason)
    return listed


def _reason(render: render_pb2.ListModelsResponse, name: str) -> str:
    """Return why the render stage cannot compute a model that it has on disk; empty: it says nothing of such a model."""
    return next((model.reason for model in render.unavailable if model.name == name), "")


def _check_there(stage: str, method: Method, target: str, names: list[str], reason: str = "") -> None:
    if target not in names:
        lacks = f"cannot compute its model {target!r}: {reason}" if reason else f"has no model {target!r}"
        raise ModelNotFound(
            f"method {method.name!r} cannot be used here: the {stage} stage {lacks}; it has: {', '.join(sorted(names)) or 'none'}",
            resource=target,
        )


def _has(stage: str, method: Method, models: Iterable[Model], rows: Collection[Model]) -> bool:
    """Return whether a stage has the models of all rows, after a comparison of those that it has.

    Raises:
        ContractBroken: see check_methods.
    """
    found = {model.name: model for model in models}
    for row in rows:
        theirs, ours = _fields(found.get(row.name, row)), _fields(row)
        different = [name for name in ours if theirs[name] != ours[name] and name not in _OF_NETWORK]
        if different:
            said = "; ".join(f"{name} is {theirs[name]!r} in the stage and {ours[name]!r} in the gateway" for name in different)
            raise ContractBroken(
                f"the {stage} stage and the gateway differ on method {method.name!r}: {said}. Run the stage and the gateway from "
                "the same version of dubstage"
            )
    return all(row.name in found for row in rows)


def _fields(model: Model) -> dict[str, object]:
    return MessageToDict(model, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
