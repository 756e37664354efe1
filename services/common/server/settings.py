"""Settings of a server process, read once, in a stage's `__main__`: from the environment (prefix `DUBSTAGE_`), then from the
settings file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.common.errors import InvalidRequestError
from services.common.server.settings_file import SettingsFileSource, file_settings, settings_file

PREFIX = "DUBSTAGE_"

DATABASE_FILE = "actors.sqlite"
"""Name of the SQLite file in a data folder."""
_ARTEFACTS = "artefacts"

DEFAULT_PORTS = {"gateway": 50050, "audio": 50051, "face": 50052, "motion": 50053, "texture": 50054, "render": 50055}
"""Default ports, also of `dubstage serve all`."""

LARGE_MESSAGE_BYTES = 32 << 20
"""Largest message of the stages that take 4K pictures (25 MB) or the motion of six minutes (30 MB), and of their callers."""
S = TypeVar("S", bound=BaseSettings)


def _readable_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder} is {'no folder' if folder.exists() else 'missing'}: give an existing folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ValueError(f"{folder} may not be read by this user: change its permissions, or give another folder")
    return folder


ReadableFolder = Annotated[Path, AfterValidator(_readable_folder)]
"""Path of a folder that exists and may be read; checked when the settings are read."""


def default_data_dir() -> Path:
    """Return the data folder if DUBSTAGE_DATA_DIR names none: a folder of the user's own."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "dubstage"


def default_artefacts_url(data_dir: Path | None = None) -> str:
    """Return the store of artefacts if DUBSTAGE_ARTEFACTS_URL names none: a folder in the data folder.

    Args:
        data_dir: the data folder; None: the one that the environment or the settings file names, so that stages on this machine
            find the same store.
    """
    folder = data_dir or Path(os.environ.get(f"{PREFIX}DATA_DIR") or str(file_settings().get("data_dir", "")) or default_data_dir())
    return str(folder.absolute() / _ARTEFACTS)


class StageSettings(BaseSettings):
    """Settings of every server process. A stage adds its own fields and its default port in a subclass."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, validate_default=True)

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(default=0, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    health_port: int = Field(
        default=0, ge=0, le=65535, description="port for health checks alone, in plain text, for probes without TLS; 0 is off"
    )
    ready_file: Path | None = Field(default=None, description="file that gets HOST:PORT once the stage serves")
    max_concurrent_rpcs: int = Field(default=8, ge=1, le=10_000, description="calls that are served at once")
    max_queued_rpcs: int = Field(
        default=16, ge=0, le=100_000, description="calls that may wait; further calls get RESOURCE_EXHAUSTED"
    )
    max_message_bytes: int = Field(default=16 << 20, ge=1 << 10, le=1 << 30, description="largest message in or out, bytes")
    max_call_memory_bytes: int = Field(
        default=2 << 30, ge=1 << 20, le=1 << 50, description="memory that one call may keep until its end, such as frames, bytes"
    )
    max_memory_bytes: int = Field(
        default=0,
        ge=0,
        le=1 << 50,
        description="memory of the process, bytes, above which the largest call is ended; 0 is off; the chart: 90 % of the limit",
    )
    max_idle_s: float = Field(
        default=60.0, gt=0, le=86_400, description="seconds that a call may wait for its caller to send or to take a message"
    )
    default_deadline_s: float = Field(
        default=600.0, gt=0, le=7 * 86_400, description="seconds allowed to a call that names no deadline"
    )
    max_deadline_s: float = Field(default=7200.0, gt=0, le=7 * 86_400, description="seconds allowed to any call")
    drain_grace_s: float = Field(default=25.0, ge=0, le=86_400, description="seconds that running calls have to end after SIGTERM")
    max_connection_age_s: float = Field(
        default=300.0, gt=0, le=7 * 86_400, description="seconds after which clients connect anew, and find new replicas"
    )
    tls_certificate_file: Path | None = Field(
        default=None, description="PEM chain of the server's certificate; with the key, turns TLS on"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of the server's certificate")
    tls_client_ca_file: Path | None = Field(default=None, description="PEM of the authorities that may sign client certificates")
    require_client_certificate: bool = Field(default=False, description="refuse clients without a certificate (mTLS)")
    auth_token_file: Path | None = Field(default=None, description="file of the accepted bearer tokens, one token per line")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="port of Prometheus metrics over HTTP; 0 is off")
    otlp_endpoint: str = Field(default="", description="gRPC endpoint for OpenTelemetry traces; empty is off")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"
    artefacts_url: str = Field(default_factory=default_artefacts_url, description="store of artefacts (fsspec url)")
    artefact_cache_bytes: int = Field(default=256 << 20, ge=0, le=1 << 50, description="memory for decoded artefacts, bytes")
    compute_threads: int = Field(default=2, ge=1, le=256, description="threads inside one computation")
    worker_threads: int = Field(default=1, ge=1, le=64, description="computations that run at once")
    max_queued_computations: int = Field(default=64, ge=0, le=100_000, description="computations that may wait for a worker thread")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the strongest first: arguments, the environment, the settings file."""
        return init_settings, env_settings, SettingsFileSource(settings_cls)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file are given together or not at all")
        if self.require_client_certificate and (self.tls_client_ca_file is None or self.tls_key_file is None):
            raise ValueError("require_client_certificate needs tls_client_ca_file, tls_certificate_file, tls_key_file")
        for name in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file", "auth_token_file"):
            file: Path | None = getattr(self, name)
            if file is not None and not file.is_file():
                raise ValueError(f"{name}: no such file: {file}")
        if self.default_deadline_s > self.max_deadline_s:
            raise ValueError("default_deadline_s is over max_deadline_s")
        return self


def load_settings(kind: type[S], **overrides: object) -> S:
    """Return settings of a kind from the environment and the settings file. `overrides` (command line options) win where they are
    not None.

    Raises:
        InvalidRequestError: a value is wrong. The message names each variable, or the file and its key, and the fault.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind(**given)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        prefix = str(kind.model_config.get("env_prefix", ""))
        wrong = [
            (_name_of("_".join(map(str, item["loc"])), prefix), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        text = "; ".join(f"{name}: {message}" if name else message for name, message in wrong)
        raise InvalidRequestError(f"wrong settings: {text}", field=wrong[0][0]) from None


def _name_of(setting: str, prefix: str) -> str:
    """Return what a user calls a setting: the file and its key if the file has the value, otherwise the variable."""
    variable = f"{prefix}{setting}".upper() if setting else ""
    if setting and not os.environ.get(variable) and setting in file_settings():
        return f"{settings_file()}: {setting}"
    return variable
