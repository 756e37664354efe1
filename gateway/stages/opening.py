"""The stages that the settings name: remote if endpoints are given, otherwise in this process.

Opening checks that the face stage has the face model of the settings and can fit it. The module also opens a single stage for
commands that need no other, and compares the table of methods with what the motion stage and the render stage say of their models.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from google.protobuf.json_format import MessageToDict

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.face.v1 import face_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES, Stages
from gateway.stages.remote import RemoteStages
from services.common.errors import ContractBrokenError, InvalidRequestError, ModelNotFoundError
from services.common.methods import METHODS, Method
from services.common.server.call_context import DEFAULT_TENANT, Caller, set_current_caller
from services.common.server.settings import load_settings
from services.common.texts import Text
from services.common.wire.convert import predictor_to_proto, renderer_to_proto

BOX_MULTIPLE: Final = 1
"""Side of the render box in units of 160 pixels that the gateway composites."""
_OF_NETWORK: Final = frozenset({"version", "sha256", "backend", "precision", "num_threads"})
"""Fields of models that the networks of a stage decide, not the table."""

_log = structlog.stdlib.get_logger("dubstage.gateway")

Model = motion_pb2.Model | render_pb2.Model
VARIABLE: Final = "DUBSTAGE_FACE_MODEL"
CONNECT_SECONDS = 10.0


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
        ContractBrokenError: a model of a stage differs from the table; the message names stage, method, field and both values.
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
        ModelNotFoundError: a stage does not have its part of the method, or cannot compute it.
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
        raise ModelNotFoundError(
            f"method {method.name!r} cannot be used here: the {stage} stage {lacks}; it has: {', '.join(sorted(names)) or 'none'}",
            resource=target,
        )


def _has(stage: str, method: Method, models: Iterable[Model], rows: Collection[Model]) -> bool:
    """Return whether a stage has the models of all rows, after a comparison of those that it has.

    Raises:
        ContractBrokenError: see check_methods.
    """
    by_name = {model.name: model for model in models}
    for row in rows:
        theirs, ours = _fields(by_name.get(row.name, row)), _fields(row)
        different = [name for name in ours if theirs[name] != ours[name] and name not in _OF_NETWORK]
        if different:
            said = "; ".join(f"{name} is {theirs[name]!r} in the stage and {ours[name]!r} in the gateway" for name in different)
            raise ContractBrokenError(
                f"the {stage} stage and the gateway differ on method {method.name!r}: {said}. Run the stage and the gateway from "
                "the same version of dubstage"
            )
    return all(row.name in by_name for row in rows)


def _fields(model: Model) -> dict[str, object]:
    return MessageToDict(model, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def weights_of(stage: str) -> Path:
    """Return the folder of a stage's networks that its setting names, such as DUBSTAGE_MOTION_WEIGHTS.

    Raises:
        InvalidRequestError: the stage's settings are wrong.
    """
    folder: Path = getattr(settings_of_stage(stage), f"{stage}_weights")
    return folder


def runtime_of_renderers() -> str:
    """Return backend and precision that compute the renderers, and the kind of processor that they were chosen for.

    Raises:
        InvalidRequestError: the stage's settings are wrong.
    """
    return str(settings_of_stage("render").runtime())


def settings_of_stage(stage: str) -> Any:
    """Return the settings of a stage in this process.

    Raises:
        InvalidRequestError: the stage's settings are wrong.
    """
    kind = getattr(importlib.import_module(f"services.{stage}.settings"), f"{stage.capitalize()}Settings")
    return load_settings(kind)


async def check_face_model(stages: Stages) -> None:
    """Ask the face stage to load the face model, by a stream that ends before its first frame. An empty name needs no check.

    Raises:
        ModelNotFoundError: the face stage has no such model; the message lists the models that there are.
        InvalidRequestError: the model's file is damaged, or the tracker knows too few of the model's landmarks.
        DubstageError: from the face stage.
    """
    if not stages.face_model:
        return

    async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
        yield face_client.track.requests(morphable_model=stages.face_model).config

    replies: Any = stages.stream(rpcs.face.TRACK, requests())
    try:
        async with aclosing(replies):
            async for _ in replies:
                pass
    except ModelNotFoundError as problem:
        raise ModelNotFoundError(
            Text("{variable}: {problem}", variable=VARIABLE, problem=problem), resource=stages.face_model
        ) from None
    except InvalidRequestError as problem:
        problem.blame(VARIABLE)
        raise


@asynccontextmanager
async def open_stages(
    settings: GatewaySettings, *, connect_s: float = CONNECT_SECONDS, warm_up: bool = False
) -> AsyncIterator[Stages]:
    """Open all five stages: behind gRPC if endpoints are set, in this process if no endpoint is set.

    The stages' models are compared with the gateway's table of methods, and the face stage is asked for the face model.

    Args:
        settings: with the endpoints.
        connect_s: seconds within which every remote stage must serve.
        warm_up: load all networks of stages in this process at the start. False: the stages check their files, and each call loads
            the networks that it needs.

    Raises:
        InvalidRequestError: some endpoints are set and others are not.
        StageDeadlineExceededError: a remote stage did not serve within `connect_s`.
        ContractBrokenError: a model of a stage differs from the table of methods.
        ModelNotFoundError, ArtefactCorruptError: a file of weights is missing or damaged.
        ModelNotFoundError, InvalidRequestError: the face stage does not have the face model of the settings, or cannot fit it.
    """
    missing = [name for name in STAGE_NAMES if not settings.endpoint(name)]
    if missing == list(STAGE_NAMES):
        from gateway.stages.local import LocalStages, compose_stages

        parts = compose_stages(settings.artefacts_url)
        async with LocalStages(parts, face_model=settings.face_model, warm_up=warm_up) as local:
            check_methods(*await listed_models(local))
            await check_face_model(local)
            # After a warm-up, which silences the standard error while MediaPipe writes its notes.
            _log.info("renderers_compute", runtime=runtime_of_renderers())
            yield local
        return
    if missing:
        names = ", ".join(f"DUBSTAGE_{name.upper()}_ENDPOINT" for name in missing)
        raise InvalidRequestError(f"some stages have an endpoint, others not: set {names} or DUBSTAGE_STAGES_HOST", field="stages")
    if settings.tenant != DEFAULT_TENANT:
        # Work of this task and of tasks that it begins: the stages' servers keep what they make in the tenant's store.
        set_current_caller(Caller(settings.tenant))
    configs = {name: settings.client_config(name) for name in STAGE_NAMES}
    async with RemoteStages(configs, face_model=settings.face_model, server_deadline_s=settings.max_deadline_s) as remote:
        await remote.wait_until_serving(connect_s)
        check_methods(*await listed_models(remote))
        await check_face_model(remote)
        yield remote


@asynccontextmanager
async def open_stage(settings: GatewaySettings, name: str) -> AsyncIterator[Stages]:
    """Open one stage: with all others if it is behind gRPC, otherwise alone, in this process.

    Args:
        settings: with the endpoint, or without.
        name: name of the stage, such as face.

    Raises:
        InvalidRequestError, StageDeadlineExceededError, ContractBrokenError: as `open_stages`, for a remote stage.
    """
    if settings.endpoint(name):
        async with open_stages(settings) as stages:
            yield stages
        return
    from gateway.stages.local import LocalStages, compose_stages

    async with LocalStages(compose_stages(settings.artefacts_url, names=(name,)), face_model=settings.face_model) as local:
        yield local
