"""`dubstage doctor`: what works on this machine, and what to do about what does not."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.table import Table

from gateway.cli.app import app
from gateway.cli.console import out
from gateway.settings import GatewaySettings
from services.common.artefacts import ArtefactStore
from services.common.errors import DubstageError
from services.common.settings import load_settings

Check = Callable[[], str]
PACKAGES = ("numpy", "grpcio", "protobuf", "opencv-python-headless", "av", "onnxruntime", "openvino", "torch", "mediapipe")


@app.command("doctor")
def doctor() -> None:
    """Check packages, models, folders and settings; exit 1 if a dub would fail."""
    settings = load_settings(GatewaySettings)
    checks: dict[str, Check] = {
        "python": platform.python_version,
        "cores": lambda: str(os.cpu_count()),
        "mediapipe models": _mediapipe_models,
        "network weights": _weights,
        "artefact store": lambda: _store(settings),
        "data folder": lambda: _folder(settings.data_dir),
        "stages": lambda: settings.stages_host or "in this process",
    }
    table = Table("check", "result", "", box=None)
    failed = False
    for package in PACKAGES:
        try:
            table.add_row(package, version(package), "ok")
        except PackageNotFoundError:
            failed = True
            table.add_row(package, "not installed: run `make setup`", "[red]missing[/]")
    for name, check in checks.items():
        try:
            table.add_row(name, check(), "ok")
        except (DubstageError, OSError, ImportError) as problem:
            failed = True
            table.add_row(name, str(problem), "[red]wrong[/]")
    out.print(table)
    if failed:
        raise typer.Exit(1)


def _mediapipe_models() -> str:
    module = importlib.import_module("mediapipe")
    models = Path(str(module.__file__)).parent / "modules" / "face_landmark" / "face_landmark_with_attention.tflite"
    if not models.is_file():
        raise FileNotFoundError("this mediapipe carries no models: install 0.10.21 with `pip install --no-deps mediapipe==0.10.21`")
    return "face mesh with attention"


def _weights() -> str:
    folder = Path(importlib.import_module("services").__file__ or "").parent
    files = sorted(folder.glob("*/weights/*.onnx"))
    if not files:
        raise FileNotFoundError("no trained networks beside the services")
    return ", ".join(f"{file.parent.parent.name}/{file.stem}" for file in files)


def _store(settings: GatewaySettings) -> str:
    store = ArtefactStore(settings.artefacts_url)
    store.delete(store.put_bytes(b"dubstage doctor"))
    return store.url


def _folder(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".doctor"
    probe.touch()
    probe.unlink()
    return str(path)
