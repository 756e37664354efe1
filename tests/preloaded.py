"""Modules that the tests' fork server imports before the first command: the command line and the stages, which start no threads."""

import importlib

from gateway.cli import app as _app

_app.register_commands()
for _name in (
    "gateway.stages.local",
    "gateway.stages.remote",
    *(f"services.{stage}.__main__" for stage in ("audio", "face", "motion", "render", "texture")),
    # The audio stage imports both when it makes cepstra and deltas.
    "scipy.fft",
    "librosa.feature",
    "sqlalchemy.dialects.sqlite",
):
    importlib.import_module(_name)
