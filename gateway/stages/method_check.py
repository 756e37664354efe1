"""Comparison of the table of methods with what the motion stage and the render stage say of their models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import structlog

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.client import rpcs
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.methods import METHODS, Method, Predictor, Renderer
from gateway.stages.interface import Stages
from services.common.errors import ContractBroken, ModelNotFound

BOX_MULTIPLE: Final = 1
"""Side of the render box in units of 160 pixels that the gateway composites."""
_FRAME_MS: Final = 40

_log = structlog.stdlib.get_logger("dubstage.gateway")

Difference = tuple[str, object, object]
"""Name of a field, the stage's value, and the gateway's value."""


def check_methods(motion: motion_pb2.ListModelsResponse, render: render_pb2.ListModelsResponse) -> list[str]:
    """Compare the table of methods with the models of the stages, and return the methods that cannot be used.

    A stage may have fewer models than the table has methods, so that a small deployment starts: such a method is logged here, and
    refused when it is asked for (`models_for`). A stage may also have more models.

    Args:
        motion: answer of MotionService.ListModels.
        render: answer of RenderService.ListModels.

    Raises:
        ContractBroken: a model of a stage differs from the table; the message names stage, method, field and both values.
    """
    predictors = {model.name: model for model in motion.models}
    renderers = {model.name: model for model in render.models}
    missing: list[str] = []
    for method in METHODS.values():
        rows, renderer = (method.motion, method.streamed.motion), renderers.get(method.renderer.name)
        for row in rows:
            if row.name in predictors:
                _check("motion", method, _predictor_differences(predictors[row.name], row))
        if renderer is not None:
            _check("render", method, _renderer_differences(renderer, method.renderer))
        there = {"motion": all(row.name in predictors for row in rows), "render": renderer is not None}
        if not all(there.values()):
            stages = [stage for stage, has in there.items() if not has]
            reason = _reason(render, method.renderer.name)
            _log.warning("method_missing", method=method.name, stages=stages, **({"reason": reason} if reason else {}))
            missing.append(method.name)
    return missing


class ListedModels(NamedTuple):
    """What the stages say of their models.

    Attributes:
        motion: answer of MotionService.ListModels.
        render: answer of RenderService.ListModels.
    """

    motion: motion_pb2.ListModelsResponse
    render: render_pb2.ListModelsResponse


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


def _check_there(stage: str, method: Method, wanted: str, names: list[str], reason: str = "") -> None:
    if wanted not in names:
        lacks = f"cannot compute its model {wanted!r}: {reason}" if reason else f"has no model {wanted!r}"
        raise ModelNotFound(
            f"method {method.name!r} cannot be used here: the {stage} stage {lacks}; it has: {', '.join(sorted(names)) or 'none'}",
            resource=wanted,
        )


def _check(stage: str, method: Method, differences: Iterator[Difference]) -> None:
    found = [f"{field} is {theirs!r} in the stage and {ours!r} in the gateway" for field, theirs, ours in differences]
    if found:
        raise ContractBroken(
            f"the {stage} stage and the gateway differ on method {method.name!r}: {'; '.join(found)}. Run the stage and the "
            "gateway from the same version of dubstage, or correct the row in gateway/methods.py"
        )


def _predictor_differences(model: motion_pb2.Model, row: Predictor) -> Iterator[Difference]:
    yield from _different(
        ("features", sorted(_kind(kind) for kind in model.features), sorted(_kind(kind) for kind in row.features)),
        ("look_ahead_ms", model.frames_ahead * _FRAME_MS, row.look_ahead_ms),
        ("moves_head", model.moves_head, row.moves_head),
    )


def _renderer_differences(model: render_pb2.Model, row: Renderer) -> Iterator[Difference]:
    texture = render_pb2.TextureInput.Name(model.texture).removeprefix("TEXTURE_INPUT_").lower()
    yield from _different(
        ("frames_before", model.frames_before, row.frames_before),
        ("frames_after", model.frames_after, row.frames_after),
        ("inputs", sorted(model.inputs), sorted(row.inputs)),
        ("texture", texture, str(row.picture)),
        ("needs_actor", model.needs_actor, row.needs_actor),
        ("needs_identity", model.needs_identity, row.needs_identity),
        ("box_multiple", model.box_multiple, BOX_MULTIPLE),
    )


def _different(*fields: tuple[str, Any, Any]) -> Iterator[Difference]:
    return (field for field in fields if field[1] != field[2])


def _kind(kind: audio_pb2.FeatureKind.ValueType) -> str:
    return audio_pb2.FeatureKind.Name(kind).removeprefix("FEATURE_KIND_").lower()
