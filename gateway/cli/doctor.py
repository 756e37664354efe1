"""`dubstage doctor`: check what a dub needs on this machine, and name the remedy for each problem.

Each check returns what it found, or raises an error.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import os
import platform
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import grpc.aio
import typer
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rich.text import Text

from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.suite import INSTALL
from dubstage.texture.v1 import texture_pb2
from gateway.actors.store import check_owner
from gateway.audit.protection import REMEDY, recorded_signing_key
from gateway.cli.app import app, log_on_stderr
from gateway.cli.console import out, printable, say_json, wants_json
from gateway.cli.options import AsJson
from gateway.database.session import Database
from gateway.private_files import data_folder
from gateway.settings import GatewaySettings
from gateway.signatures import KEY_FILE, signing_key
from gateway.stages.interface import STAGE_NAMES
from gateway.stages.opening import check_face_model, runtime_of_renderers, weights_of
from gateway.stages.remote import RemoteStages
from services.common.errors import (
    ArtefactCorruptError,
    ArtefactNotFoundError,
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
    ModelNotFoundError,
    RequestError,
    StorageRefusedError,
)
from services.common.server.client import StageClient
from services.common.server.retries import RetryPolicy
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.store.exported_networks import cards_in, networks_in

_DIGITS = 12
"""Digits of a digest that are shown."""
M = TypeVar("M")
REACH_SECONDS = 5.0
_SERVICES = {
    "audio": (audio_pb2, "AudioService"),
    "face": (face_pb2, "FaceService"),
    "motion": (motion_pb2, "MotionService"),
    "texture": (texture_pb2, "TextureService"),
    "render": (render_pb2, "RenderService"),
}
READ_ARTEFACTS = ("motion", "texture", "render")
"""Stages that read artefacts of other stages. The check gives only these stages an artefact to read."""
_NO_ARRAYS = frozenset({"config.style", "config.bank", "config.actor", "artefact"})
"""Field of the error about an artefact that was read and does not hold the target arrays."""
NETWORK_STAGES: Final = ("audio", "motion", "texture", "render")
"""Stages that serve networks from a folder of weights."""
_SERVES_WHAT_IS_THERE: Final = "render"
"""Stage that serves the networks of its folder, whichever they are. The other stages need all their networks."""
Check = Callable[[], str]
PACKAGES = ("numpy", "grpcio", "protobuf", "opencv-python-headless", "av")
STAGE_PACKAGES = ("onnxruntime", "openvino", "torch", "mediapipe")
"""Packages that only a process with stages in it needs. The image of the gateway does not have them."""
_OTHER_DISTRIBUTION = {"mediapipe": "dubstage-mediapipe"}
"""Name of the distribution of a package in installations by name (services/face/mediapipe_wheel.py)."""
_INSTALL = f"not installed: {INSTALL}"


def check_signing_key(settings: GatewaySettings) -> str:
    """Compare the signing key with that of the gateway that started last with the same database, and return what was found.

    Raises:
        DubstageError: the two differ, or the key or the database cannot be used.
    """
    data_folder(settings.data_dir)
    database = Database(settings.database_url, settings.data_dir, tenant=settings.tenant)
    try:
        recorded = recorded_signing_key(database)[:_DIGITS]
    finally:
        database.close()
    file = settings.signing_key_file or settings.data_dir / KEY_FILE
    if settings.signing_key_file is None and not os.path.lexists(file):
        return f"none in {settings.data_dir}" + (f"; the gateway that started last signs with {recorded}" if recorded else " yet")
    own = signing_key(settings.data_dir, settings.signing_key_file).id[:_DIGITS]
    if recorded not in ("", own):
        raise StorageRefusedError(
            f"{file} is the key {own}, and the gateway that started last signs with {recorded}: {REMEDY}", subject=str(file)
        )
    return f"{own}, {file}"


def check_store(url: str) -> str:
    """Put, read back and delete one small artefact, and return what was found.

    Raises:
        DubstageError: the store cannot be used; the message has the remedy.
    """
    store = ArtefactStore(url)
    ref = store.put_bytes(b"dubstage doctor " + secrets.token_bytes(16))
    try:
        store.get_bytes(ref)
    finally:
        store.delete(ref)
    if store.keeps_old_versions():
        return f"{store.url}: put, read, deleted. Note: the bucket keeps old versions, so `actor erase` does not remove the bytes"
    return f"{store.url}: put, read, deleted"


def check_database(settings: GatewaySettings) -> str:
    """Open the database, create or upgrade its tables, read all of a SQLite file, and return the location of the database.

    Raises:
        DubstageError: the database cannot be used, or the artefact store belongs to another one; the message has the remedy, and no
            password.
    """
    data_folder(settings.data_dir)
    store = ArtefactStore(settings.artefacts_url)
    store.make_folder()
    database = Database(settings.database_url, settings.data_dir, tenant=settings.tenant)
    try:
        database.check_integrity()
        try:
            store.owner()
        except DubstageError:
            return database.where  # the check of the store says what is wrong
        owned = check_owner(store, database)
    finally:
        database.close()
    return f"{database.where}, {'owns' if owned else 'will own'} the artefact store"


async def check_face_model_of(settings: GatewaySettings) -> str:
    """Ask the face stage of the settings for the face model, and return the name of the model.

    Raises:
        DubstageError: the stage has no such model, or does not answer.
    """
    if settings.face_model:
        if settings.endpoint("face"):
            configs = {name: settings.client_config(name) for name in STAGE_NAMES}
            async with RemoteStages(configs, face_model=settings.face_model) as remote:
                await check_face_model(remote)
        else:
            from gateway.stages.local import LocalStages, compose_stages

            parts = compose_stages(settings.artefacts_url, names=("face",))
            async with LocalStages(parts, face_model=settings.face_model) as local:
                await check_face_model(local)
    return settings.face_model or "the face stage's own"


async def check_stage(settings: GatewaySettings, name: str) -> str:
    """Check that a remote stage is reachable, is SERVING, has the gateway's contract, and reads the gateway's artefact store.

    Return its address, and the digests of its models where the stage lists models.

    Raises:
        DubstageError: the check failed; the message has the cause and the remedy.
    """
    config = replace(settings.client_config(name), deadline_s=30.0)
    module, service = _SERVICES[name]
    full_name = module.DESCRIPTOR.services_by_name[service].full_name
    async with StageClient(config) as client:
        try:
            await client.wait_until_reachable(REACH_SECONDS)
        except DubstageError:
            raise BackendUnavailableError(
                f"nothing answers at {config.target} within {REACH_SECONDS:g} s: start it (`dubstage serve {name}`), or correct "
                f"DUBSTAGE_{name.upper()}_ENDPOINT or DUBSTAGE_STAGES_HOST; also check that both ends use TLS or that both do not"
            ) from None
        await _check_serving(client, name, full_name)
        await _check_contract(client, name, full_name)
        text = f"{config.target} serves {full_name}"
        if name in READ_ARTEFACTS:
            await _check_same_store(client, settings, name)
            text += f", reads {settings.artefacts_url}"
        return text + await _models(client, name)


async def _models(client: StageClient, name: str) -> str:
    """Return the models that a stage serves, with the first digits of their digests, and what computes the renderers.

    Empty if the stage cannot list models.

    Raises:
        ModelNotFoundError: the stage cannot compute one of its renderers; the message has the reason and the remedy.
    """
    once = RetryPolicy(max_attempts=1)
    digests: dict[str, str] = {}
    runtimes: set[str] = set()
    if name == "motion":
        predictors = await client.unary(rpcs.motion.LIST_MODELS, motion_pb2.ListModelsRequest(), policy=once)
        digests = {model.name: model.version for model in predictors.models}
    elif name == "render":
        renderers = await client.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest(), policy=once)
        _check_all_computed(renderers)
        digests = {model.name: model.sha256 for model in renderers.models}
        runtimes = {f"{model.backend} {model.precision}" for model in renderers.models}
    computed = "".join(f", computed by {runtime}" for runtime in sorted(runtimes))
    return computed + "".join(f", {model} {digest[:_DIGITS]}" for model, digest in digests.items())


def _check_all_computed(renderers: render_pb2.ListModelsResponse) -> None:
    if renderers.unavailable:
        names = ", ".join(model.name for model in renderers.models)
        lost = "; ".join(f"{model.name}: {model.reason}" for model in renderers.unavailable)
        raise ModelNotFoundError(
            f"the render stage serves {names}, and cannot compute {lost}", resource=renderers.unavailable[0].name
        )


async def check_renderers(settings: GatewaySettings) -> str:
    """Load the renderers in this process as a dub does, and return how many there are.

    Raises:
        DubstageError: the render stage does not start, or cannot compute one of its renderers.
    """
    from gateway.stages.local import LocalStages, compose_stages

    async with LocalStages(compose_stages(settings.artefacts_url, names=("render",)), warm_up=True) as local:
        renderers = await local.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
    _check_all_computed(renderers)
    return f"{len(renderers.models)} load"


async def _check_serving(client: StageClient, name: str, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(client.channel)
    try:
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=REACH_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise InvalidRequestError(
                f"{client.peer} does not accept this gateway: {error.details()}: set DUBSTAGE_STAGES_TOKEN_FILE to a file with a "
                "token of the stage's DUBSTAGE_AUTH_TOKEN_FILE",
                field="DUBSTAGE_STAGES_TOKEN_FILE",
            ) from None
        raise BackendUnavailableError(
            f"{client.peer} listens, but answers no health check ({error.code().name}): is it a dubstage stage?"
        ) from None
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise BackendUnavailableError(
            f"{client.peer} is not ready: the stage warms up, shuts down, or lost the model; see the stage's log"
        )
    try:
        await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=REACH_SECONDS)
    except grpc.aio.AioRpcError:
        raise InvalidRequestError(
            f"{client.peer} serves, but no {service}: another stage or another version listens there; "
            f"correct DUBSTAGE_{name.upper()}_ENDPOINT",
            field=f"DUBSTAGE_{name.upper()}_ENDPOINT",
        ) from None


async def _check_contract(client: StageClient, name: str, service: str) -> None:
    """Check by reflection that the server has every RPC of this gateway's contract."""
    channel: Any = client.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def asked() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)

    try:
        call = stub.ServerReflectionInfo(asked(), timeout=REACH_SECONDS, metadata=client.connection.metadata())
        reply = await anext(aiter(call), None)
    except grpc.aio.AioRpcError as error:
        raise BackendUnavailableError(f"{client.peer} does not describe its contract: {error.details()}") from None
    files = reply.file_descriptor_response.file_descriptor_proto if reply is not None else ()
    theirs = {
        f"{file.package}.{one.name}/{method.name}"
        for file in (descriptor_pb2.FileDescriptorProto.FromString(data) for data in files)
        for one in file.service
        for method in one.method
    }
    module, short = _SERVICES[name]
    ours = {f"{service}/{method.name}" for method in module.DESCRIPTOR.services_by_name[short].methods}
    missing = sorted(ours - theirs)
    if missing:
        raise InvalidRequestError(
            f"{client.peer} has an older contract, without {', '.join(missing)}: upgrade the stage before the gateway",
            field=f"DUBSTAGE_{name.upper()}_ENDPOINT",
        )


async def _check_same_store(client: StageClient, settings: GatewaySettings, name: str) -> None:
    """Check that a stage reads an artefact that this process put. The stage refuses the bytes, which are no arrays."""
    store = ArtefactStore(settings.artefacts_url)
    ref = store.put_bytes(b"dubstage doctor " + secrets.token_bytes(16))
    remedy = (
        f"the {name} stage does not see the gateway's artefact store {store.url}: give both the same DUBSTAGE_ARTEFACTS_URL (and, "
        "for a folder, the same volume; for S3, the same endpoint)"
    )
    try:
        await _read_by(client, name, ref)
    except (ArtefactNotFoundError, ArtefactCorruptError) as problem:
        raise StorageRefusedError(f"{remedy}: {problem}", subject=store.url) from None
    except RequestError as problem:
        if problem.field.rpartition(".")[2] == "uri":
            raise StorageRefusedError(f"{remedy}: {problem}", subject=store.url) from None
        # The artefact was read and holds no arrays, as expected.
        if problem.field not in _NO_ARRAYS:
            raise
    finally:
        store.delete(ref)


async def _read_by(client: StageClient, name: str, ref: ArtefactRef) -> None:
    """Call a stage with the artefact as style, bank or actor. The stage reads the artefact and then refuses the bytes.

    Raises:
        DubstageError: the stage's error.
    """
    message = common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)
    if name == "motion":
        rate = common_pb2.Rational(num=25, den=1)
        timeline = common_pb2.Timeline(frame_rate=rate)
        predictors = await client.unary(rpcs.motion.LIST_MODELS, motion_pb2.ListModelsRequest(), policy=RetryPolicy(max_attempts=1))
        predict = motion_pb2.PredictMotionConfig(
            method=predictors.models[0].name, style=message, feature_rate=rate, output_timeline=timeline
        )
        await _drained(client.connection.stream(rpcs.motion.PREDICT_MOTION, _one(motion_pb2.PredictMotionRequest(config=predict))))
    elif name == "texture":
        warp = texture_pb2.RetrieveWarpConfig(bank=message, mode=texture_pb2.WARP_MODE_RETRIEVAL_ONLY)
        await _drained(client.connection.stream(rpcs.texture.RETRIEVE_WARP, _one(texture_pb2.RetrieveWarpRequest(config=warp))))
    else:
        models = await client.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest(), policy=RetryPolicy(max_attempts=1))
        config = render_pb2.RenderConfig(model=models.models[0].name, actor=message)
        await _drained(client.connection.stream(rpcs.render.RENDER, _one(render_pb2.RenderRequest(config=config))))


async def _one(message: M) -> AsyncIterator[M]:
    yield message


async def _drained(replies: AsyncIterator[object]) -> None:
    async for _ in replies:
        pass


class NetworkRow(NamedTuple):
    """A line of the report: a name, and the finding."""

    name: str
    finding: str


def network_rows(stage: str) -> list[NetworkRow]:
    """Return the folder of a stage's networks, what computes renderers, the digest of each network, and the cards of training runs.

    Args:
        stage: one of NETWORK_STAGES.

    Raises:
        ModelNotFoundError: a file or the folder is missing. The message names it, and the setting of the folder.
        ArtefactCorruptError: a file is damaged. The message names the file.
        InvalidRequestError: the stage's settings are wrong.
    """
    folder = weights_of(stage)
    networks = networks_in(folder)
    present = {network.path.name for network in networks}
    missing = sorted({path.name for path in _shipped(stage).glob("*.onnx")} - present)
    if missing and folder.is_dir() and stage != _SERVES_WHAT_IS_THERE:
        raise ModelNotFoundError(
            f"{folder / missing[0]}: no such file; DUBSTAGE_{stage.upper()}_WEIGHTS needs a folder that `dubstage export` wrote",
            resource=missing[0],
        )
    rows = [NetworkRow(f"{stage} networks", str(folder))]
    if stage == _SERVES_WHAT_IS_THERE:
        rows.append(NetworkRow("  computed by", runtime_of_renderers()))
    for network in networks:
        card = f", card {network.card}" if network.card else ""
        rows.append(NetworkRow(f"  {network.path.stem}", network.digest + card))
    shown = {network.card for network in networks}
    rows += [NetworkRow("  card", str(card)) for card in cards_in(folder) if card not in shown]
    return rows


def _shipped(stage: str) -> Path:
    return Path(str(importlib.import_module(f"services.{stage}").__file__)).with_name("weights")


@app.command("doctor")
@log_on_stderr()
def doctor(_: AsJson = False) -> None:
    """Check packages, networks, folders, stores, remote stages and settings. The exit code is 1 if a dub would fail."""
    settings = load_settings(GatewaySettings)
    remote = any(settings.endpoint(name) for name in STAGE_NAMES)
    checks: dict[str, Check] = {
        "python": platform.python_version,
        "cores": lambda: str(os.cpu_count()),
        **({} if remote else {"mediapipe models": _mediapipe_models}),
        "artefact store": lambda: check_store(settings.artefacts_url),
        "data folder": lambda: _folder(settings.data_dir),
        "database": lambda: check_database(settings),
        "signing key": lambda: check_signing_key(settings),
        "face model": lambda: asyncio.run(check_face_model_of(settings)),
    }
    if remote:
        checks |= asyncio.run(_stages(settings))
    else:
        checks["stages"] = lambda: "in this process"
        checks["renderers"] = lambda: asyncio.run(check_renderers(settings))
    failed, rows = False, _Rows()
    for package in PACKAGES if remote else PACKAGES + STAGE_PACKAGES:
        try:
            rows.add(package, _version(package))
        except PackageNotFoundError:
            failed = True
            rows.add(package, _INSTALL, "missing")
    for name, check in checks.items():
        try:
            rows.add(name, check())
        except (DubstageError, OSError, ImportError, RuntimeError) as problem:
            failed = True
            rows.add(name, problem if isinstance(problem, DubstageError) else str(problem), "wrong")
    for stage in () if remote else NETWORK_STAGES:
        failed |= not _add_networks(rows, stage)
    if wants_json():
        say_json({"checks": rows.facts})
    if failed:
        raise typer.Exit(1)


class _Rows:
    """Lines of the report. Each is printed when it is added, unless the report is printed as JSON.

    Attributes:
        facts: the lines as JSON values.
    """

    def __init__(self) -> None:
        self.facts: list[dict[str, str]] = []

    def add(self, name: str, finding: str | DubstageError, wrong: str = "") -> None:
        """Add a finding. `wrong` is empty if all is well."""
        self.facts.append({"name": name.strip(), "state": wrong or "ok", "found": printable(finding)})
        if not wants_json():
            mark = (f"{wrong:<8}", "red") if wrong else (f"{'ok':<8}", "green")
            out.print(Text.assemble(mark, f"{name:<24}", printable(finding)))


def _add_networks(rows: _Rows, stage: str) -> bool:
    """Add the networks of a stage that computes in this process; return whether all are there and undamaged."""
    try:
        networks = network_rows(stage)
    except (DubstageError, OSError) as problem:
        rows.add(f"{stage} networks", str(problem), "wrong")
        return False
    for row in networks:
        rows.add(*row)
    return True


async def _stages(settings: GatewaySettings) -> dict[str, Check]:
    """Check all stages at the same time in one event loop, so that five missing stages do not take five times as long."""
    answers = await asyncio.gather(*(_stage(settings, name) for name in STAGE_NAMES), return_exceptions=True)
    return {f"{name} stage": functools.partial(_result, one) for name, one in zip(STAGE_NAMES, answers, strict=True)}


async def _stage(settings: GatewaySettings, name: str) -> str:
    if not settings.endpoint(name):
        raise FileNotFoundError(f"this stage has no endpoint but other stages have one: set DUBSTAGE_{name.upper()}_ENDPOINT")
    return await check_stage(settings, name)


def _result(answer: str | BaseException) -> str:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _version(package: str) -> str:
    """Return the version of an installed package.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        if package not in _OTHER_DISTRIBUTION:
            raise
        return version(_OTHER_DISTRIBUTION[package])


def _mediapipe_models() -> str:
    """Check that the model's file is there, and warm up a face stage, which tracks one picture and hides MediaPipe's messages."""
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(_INSTALL)
    if not (Path(spec.origin).parent / "modules" / "face_landmark" / "face_landmark_with_attention.tflite").is_file():
        raise FileNotFoundError(
            "this version of mediapipe has no models: remove it, then install 0.10.21 with "
            "`pip install --no-deps mediapipe==0.10.21`"
        )
    from gateway.stages.local import compose_stages

    face = compose_stages(names=("face",))["face"]
    try:
        face.warm_up()
    finally:
        for pool in face.workers:
            pool.shutdown()
    return "face mesh with attention"


def _folder(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".doctor"
    probe.touch()
    probe.unlink()
    return str(path)
