"""The keys of jobs: the digest of everything that the mouths of a dub, or what is kept of an enrolment, depend on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from gateway.consent.record import Consent, digest_of
from gateway.dub.choices import PREVIEW_S
from gateway.dub.learn.enrol import EnrolledActor, actor_arrays
from gateway.dub.learn.subjects import compares_people, finds_actors
from gateway.dub.render.windows import WARP
from gateway.dub.request.dub_request import DubRequest, sha256_of
from gateway.dub.state.journal import step_key
from gateway.provenance.claim import VoiceFacts
from gateway.stages.opening import ListedModels
from services.common.methods import Method

PIPELINE_VERSION: Final = 40
"""Version of the pipeline's output, part of every journal key. Counts up with every change that changes the bytes of a dub."""
_NOT_OF_RESULT: Final = frozenset({"output", "overwrite"})
"""Fields of a DubRequest that change no byte of the output."""


def files_of(request: DubRequest) -> dict[Path, str]:
    """Return every file of a dub with the first field of the request that names the file."""
    named = [("footage", request.footage), ("speech", request.speech), ("reference", request.reference)]
    named += [
        ("mix", request.mix.file if request.mix is not None else None),
        *(("lines", line.dub.speech) for line in request.lines),
    ]
    files: dict[Path, str] = {}
    for field, file in named:
        if file is not None:
            files.setdefault(file, field)
    return files


async def file_digests(request: DubRequest) -> dict[Path, str]:
    """Return the SHA-256 of every file of a dub, hexadecimal. Each file is read once.

    Raises:
        MediaUnsupportedError: a file of the request cannot be read.
    """
    return await asyncio.to_thread(lambda: {file: sha256_of(file) for file in files_of(request)})


def job_key(request: DubRequest, method: Method, models: ListedModels, digests: Mapping[Path, str], face_model: str = "") -> str:
    """Return the key of a dub. Requests with the same key give the same mouths.

    The key of a scene leaves its lines out, because each line has a key of its own: a scene with one line changed goes on in the
    same folder, and renders only that line.

    Args:
        digests: what `file_digests` returns of the request.
        face_model: face model that people are fitted on.
    """
    if request.lines:
        return step_key(
            "scene",
            **_common_inputs(method, models, face_model),
            footage=digests[request.footage],
            enrol=astuple(request.enrol),
            warp=int(WARP),
            **resolved_options(request),
            **_channel(request),
        )
    files = [request.footage, request.speech or request.footage, *([request.reference] if request.reference is not None else [])]
    return step_key(
        "dub",
        **_common_inputs(method, models, face_model),
        files=[digests[file] for file in files],
        own_sound=request.speech is None,
        face=[request.face.kind, request.face.face_id, list(request.face.point), *_boxes(request)],
        actor=[ref.sha256 for ref in request.actor.refs.values()] if request.actor is not None else [],
        enrol=astuple(request.enrol),
        warp=int(WARP),
        fit=request.fit,
        **resolved_options(request),
        **asdict(request.mouth),
        **_channel(request),
        **({"preview": [PREVIEW_S, request.half_size]} if request.preview else {}),
        **({"preview_at": [str(part) for part in astuple(request.preview_at)]} if request.preview_at is not None else {}),
    )


def resolved_options(request: DubRequest) -> dict[str, object]:
    """Return the options of a dub that the method decides unless the request does, as they take effect, by the field of DubSpec."""
    return {"expression": request.keeps_expression, "finish": request.shown_finish}


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


def analysis_key(footage_sha256: str, face_model: str, *, embeds: bool) -> str:
    """Return the key of the analysis of footage: its tracked faces, which no method, no speech and no option of a dub changes.

    Args:
        footage_sha256: digest of the footage.
        face_model: face model that people are fitted on.
        embeds: whether embeddings of the faces are computed.
    """
    return step_key("analysis", version=PIPELINE_VERSION, face_model=face_model, footage=footage_sha256, embeds=embeds)


def analysis_keys(footage_sha256: str, face_model: str) -> list[str]:
    """Return the keys of all analyses of footage: with embeddings of the faces and without. Arguments: see `analysis_key`."""
    return [analysis_key(footage_sha256, face_model, embeds=embeds) for embeds in (False, True)]


def embeds_faces(request: DubRequest) -> bool:
    """Return whether a dub compares people, so that the analysis of its footage has embeddings of the faces."""
    return any(compares_people(part) for part in request.parts) or finds_actors(request)


def result_key(request: DubRequest, digests: Mapping[Path, str], stages: str, signed: str, manifests: Sequence[str]) -> str:
    """Return the key of the finished output of a dub. Requests with the same key write the same pictures and sounds, and the same
    facts about them. Every field of the request counts, but for _NOT_OF_RESULT.

    Args:
        digests: what `file_digests` returns of the request.
        stages: digest of the stages, the program and its libraries (gateway.stages.identity).
        signed: digest of what marks and signs the output (`Sealer.sha256`).
        manifests: SHA-256 of the manifest beside each file of the request, in the order of `digests`; the output's manifest has
            them.
    """
    return step_key(
        "result",
        version=PIPELINE_VERSION,
        stages=stages,
        signed=signed,
        manifests=list(manifests),
        container=request.output.suffix.lower(),
        request=_said(request, digests),
    )


def _said(value: object, digests: Mapping[Path, str]) -> object:
    """Return JSON values that differ if two parts of requests differ. Files count by their contents. Other values stay."""
    said: object = value
    match value:
        case Path():
            said = digests[value]
        case Consent():
            said = digest_of(value)
        case EnrolledActor():
            arrays, metadata = actor_arrays(value)
            sums = {
                name: [str(each.dtype), each.shape, hashlib.sha256(each.tobytes()).hexdigest()] for name, each in arrays.items()
            }
            said = [sums, metadata]
        case VoiceFacts():
            said = value.model_dump()
        case tuple():
            said = [_said(each, digests) for each in value]
        case Fraction():
            said = str(value)
        case _ if is_dataclass(value):
            left_out = _NOT_OF_RESULT if isinstance(value, DubRequest) else frozenset()
            said = {each.name: _said(getattr(value, each.name), digests) for each in fields(value) if each.name not in left_out}
    return said


def people_key(analysis: str, method: Method, models: ListedModels, face_model: str) -> str:
    """Return the key of what a method learns of people of analysed footage.

    Args:
        analysis: key of the analysis.
        method: method of the dub.
        face_model: face model that people are fitted on.
    """
    return step_key("people", **_common_inputs(method, models, face_model), analysis=analysis)


def enrolment_key(
    footage_sha256: str, actor_id: str, method: Method, models: ListedModels, face_model: str = "", *, embeds: bool = False
) -> str:
    """Return the key of an enrolment. Enrolments with the same key leave the same records in their folder.

    Args:
        footage_sha256: digest of the footage.
        method: method that the person is enrolled for.
        face_model: face model that people are fitted on.
        embeds: whether embeddings of the faces are computed.
    """
    return step_key("enrol", **_common_inputs(method, models, face_model), footage=footage_sha256, actor=actor_id, embeds=embeds)


def _common_inputs(method: Method, models: ListedModels, face_model: str) -> dict[str, object]:
    """Return what every job depends on, whatever the job is about: the pipeline, the method and the networks."""
    return {
        "version": PIPELINE_VERSION,
        "method": [method.name, method.motion.name, method.renderer.name],
        "models": [[m.name, m.sha256, m.backend, m.precision, m.num_threads] for m in models.render.models],
        "motion_models": [[m.name, m.version] for m in models.motion.models],
        "shared": models.motion.shared_version,
        "face_model": face_model,
        **_devices(models),
    }


def _devices(models: ListedModels) -> dict[str, object]:
    """Return the devices of networks and personalisations. On processors, the key leaves them out."""
    devices = [models.render.device, models.render.personalize_device]
    return {"devices": devices} if set(devices) - {"", "cpu"} else {}
