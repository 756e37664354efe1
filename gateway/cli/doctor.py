"""`dubstage doctor`: check what a dub needs on this machine, and name the remedy for each problem."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.text import Text

from gateway.cli.app import app
from gateway.cli.check_keys import check_signing_key
from gateway.cli.checks import check_database, check_face_model_of, check_renderers, check_stage, check_store
from gateway.cli.console import out
from gateway.cli.networks import NETWORK_STAGES, network_rows
from gateway.cli.text import printable
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES
from services.common.errors import DubstageError
from services.common.server.settings import load_settings

Check = Callable[[], str]
PACKAGES = ("numpy", "grpcio", "protobuf", "opencv-python-headless", "av")
STAGE_PACKAGES = ("onnxruntime", "openvino", "torch", "mediapipe")
"""Packages that only a process with stages in it needs. The image of the gateway does not have them."""


@app.command("doctor")
def doctor() -> None:
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
    failed = False
    for package in PACKAGES if remote else PACKAGES + STAGE_PACKAGES:
        try:
            _say(package, version(package))
        except PackageNotFoundError:
            failed = True
            _say(package, "not installed: run `make setup`", "missing")
    for name, check in checks.items():
        try:
            _say(name, check())
        except (DubstageError, OSError, ImportError, RuntimeError) as problem:
            failed = True
            _say(name, str(problem), "wrong")
    for stage in () if remote else NETWORK_STAGES:
        failed |= not _say_networks(stage)
    if failed:
        raise typer.Exit(1)


def _say(name: str, found: str, wrong: str = "") -> None:
    mark = (f"{wrong:<8}", "red") if wrong else (f"{'ok':<8}", "green")
    out.print(Text.assemble(mark, f"{name:<24}", printable(found)))


def _say_networks(stage: str) -> bool:
    """Print the networks of a stage that computes in this process; return whether all are there and undamaged."""
    try:
        rows = network_rows(stage)
    except (DubstageError, OSError) as problem:
        _say(f"{stage} networks", str(problem), "wrong")
        return False
    for row in rows:
        _say(*row)
    return True


async def _stages(settings: GatewaySettings) -> dict[str, Check]:
    """Check all stages at the same time in one event loop, so that five missing stages do not take five times as long."""
    found = await asyncio.gather(*(_stage(settings, name) for name in STAGE_NAMES), return_exceptions=True)
    return {f"{name} stage": functools.partial(_result, one) for name, one in zip(STAGE_NAMES, found, strict=True)}


async def _stage(settings: GatewaySettings, name: str) -> str:
    if not settings.endpoint(name):
        raise FileNotFoundError(f"this stage has no endpoint but other stages have one: set DUBSTAGE_{name.upper()}_ENDPOINT")
    return await check_stage(settings, name)


def _result(found: str | BaseException) -> str:
    if isinstance(found, BaseException):
        raise found
    return found


def _mediapipe_models() -> str:
    """Check that the model's file is there, and warm up a face stage, which tracks one picture and hides MediaPipe's messages."""
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        raise FileNotFoundError("not installed: run `make setup`")
    if not (Path(found.origin).parent / "modules" / "face_landmark" / "face_landmark_with_attention.tflite").is_file():
        raise FileNotFoundError(
            "this version of mediapipe has no models: install 0.10.21 with `pip install --no-deps mediapipe==0.10.21`"
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
