"""The keys of jobs: the digest of everything that the mouths of a dub, or what is kept of an enrolment, depend on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.dub.learn.enrol import actor_refs
from gateway.dub.request.dub_request import DubRequest, sha256_of
from gateway.dub.state.journal import step_key
from gateway.stages.opening import ListedModels
from services.common.methods import Method

PIPELINE_VERSION: Final = 33
"""Version of the pipeline's output, part of every journal key. Counts up with every change that changes the bytes of a dub."""


async def file_digests(request: DubRequest) -> dict[Path, str]:
    """Return the SHA-256 of every file of a dub, hexadecimal. Each file is read once.

    Raises:
        MediaUnsupportedError: a file of the request cannot be read.
    """
    spoken = [line.dub.speech for line in request.lines]
    mix = request.mix.file if request.mix is not None else None
    files = [file for file in (request.footage, request.speech, request.reference, mix, *spoken) if file is not None]
    return await asyncio.to_thread(lambda: {file: sha256_of(file) for file in dict.fromkeys(files)})


def job_key(request: DubRequest, method: Method, models: ListedModels, digests: Mapping[Path, str], face_model: str = "") -> str:
    """Return the key of a dub. Requests with the same key give the same mouths.

    The key of a scene leaves its lines out, because each line has a key of its own: a scene with one line changed goes on in the
    same folder, and renders only that line.

    Args:
        digests: what `file_digests` returns of the request.
        face_model: face model that people are fitted on.
    """
    options = request.enrol
    if request.lines:
        return step_key(
            "scene",
            **_made_with(method, models, face_model),
            footage=digests[request.footage],
            enrol=[options.personalize_renderer, options.renderer_steps, options.personalize_motion, options.seed],
            warp=int(request.warp),
            **resolved_options(request),
            **_label(request),
        )
    files = [request.footage, request.speech or request.footage, *([request.reference] if request.reference is not None else [])]
    return step_key(
        "dub",
        **_made_with(method, models, face_model),
        files=[digests[file] for file in files],
        own_sound=request.speech is None,
        face=[request.face.kind, request.face.face_id, list(request.face.point), *_boxes(request)],
        actor=[ref.sha256 for ref in actor_refs(request.actor).values()] if request.actor is not None else [],
        enrol=[options.personalize_renderer, options.renderer_steps, options.personalize_motion, options.seed],
        warp=int(request.warp),
        fit=request.fit,
        **resolved_options(request),
        expressiveness=float(request.expressiveness),
        **_label(request),
        **_channel(request),
    )


def resolved_options(request: DubRequest) -> dict[str, object]:
    """Return the options of a dub that the method decides unless the request does, as they take effect, by the field of DubSpec."""
    return {"expression": request.keeps_expression, "finish": request.shown_finish}


def _label(request: DubRequest) -> dict[str, object]:
    """Return the visible label of a dub. None: the key leaves the label out."""
    return {"label": [request.label.text, request.label.position]} if request.label is not None else {}


def _channel(request: DubRequest) -> dict[str, object]:
    """Return the channel of the voice. None: the sound decides, and the key leaves the channel out."""
    return {"audio_channel": request.audio_channel} if request.audio_channel is not None else {}


def _boxes(request: DubRequest) -> list[list[float]]:
    """Return the boxes that choose the face of a dub; none: the face is chosen otherwise."""
    match request.face.kind:
        case "box":
            return [list(request.face.box)]
        case _:
            return [list(box) for box in request.face.boxes]


def enrolment_key(footage_sha256: str, actor_id: str, method: Method, models: ListedModels, face_model: str = "") -> str:
    """Return the key of an enrolment. Enrolments with the same key leave the same records in their folder.

    Args:
        footage_sha256: digest of the footage.
        method: method that the person is enrolled for.
        face_model: face model that people are fitted on.
    """
    return step_key("enrol", **_made_with(method, models, face_model), footage=footage_sha256, actor=actor_id)


def _made_with(method: Method, models: ListedModels, face_model: str) -> dict[str, object]:
    """Return what every job depends on, whatever the job is about: the pipeline, the method and the networks."""
    return {
        "version": PIPELINE_VERSION,
        "method": [method.name, method.motion.name, method.renderer.name],
        "models": [[m.name, m.sha256, m.backend, m.precision, m.num_threads] for m in models.render.models],
        "motion_models": [[m.name, m.version] for m in models.motion.models],
        "face_model": face_model,
    }
