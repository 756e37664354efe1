"""Settings of the gateway and of the command line, read once: from the environment (prefix `DUBSTAGE_`), then the settings file."""

from __future__ import annotations

import importlib
import os
import re
import shlex
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from services.common.errors import InvalidRequestError
from services.common.server.call_context import DEFAULT_TENANT
from services.common.server.settings import (
    DEFAULT_PORTS,
    LARGE_MESSAGE_BYTES,
    PREFIX,
    StageSettings,
    default_artefacts_url,
    default_data_dir,
)
from services.common.server.settings_file import check_names, file_settings

if TYPE_CHECKING:
    from services.common.server.client import ClientConfig

TENANTS_FOLDER: Final = ".tenants"
"""Folder of the media folder that holds the folders of all tenants but the default tenant."""
DATABASE_CONNECTIONS: Final = 5
"""Default of `database_connections`."""
SPEECH_PLACEHOLDERS: Final = ("{text}", "{text_file}", "{language}", "{voice}", "{seconds}", "{output}")
"""Arguments of `speech_command` that stand for values."""
_PLACEHOLDER: Final = re.compile(r"\{[a-z_]+\}")
_WITH_PORT: Final = re.compile(r"[^:/\[\]]+:\d+|\[.*\]:\d+")
"""Matches HOST:PORT and [IPv6]:PORT, but no URL such as `dns:///host`."""


_BOOL: Final[TypeAdapter[bool]] = TypeAdapter(bool)


_HEADER: Final = r"^[A-Za-z0-9-]*$"


def _check_settings_file(own: frozenset[str]) -> None:
    """Check the names in the settings file, which has the settings of the gateway and of the stages.

    Args:
        own: names of the gateway's settings.

    Raises:
        InvalidRequestError: see `check_names`.
    """
    if own.issuperset(file_settings()):
        return
    names = set(own)
    for stage in DEFAULT_PORTS.keys() - {"gateway"}:
        try:
            # By name: the gateway uses no code of the stages, and an image of the gateway may lack their packages.
            module = importlib.import_module(f"services.{stage}.settings")
        except ModuleNotFoundError:
            return
        names |= getattr(module, f"{stage.capitalize()}Settings").model_fields.keys()
    check_names(names)


class RequireConsent(StrEnum):
    """Consent records that an installation asks for."""

    NO = "false"
    YES = "true"
    SIGNED = "signed"


class GatewaySettings(StageSettings):
    """Settings of the gateway process and of the command line."""

    port: int = Field(DEFAULT_PORTS["gateway"], ge=0, le=65535, description="port to listen on; 0 takes a free one")
    http_port: int = Field(0, ge=0, le=65535, description="port of the same RPCs over HTTP/JSON (docs/integrating.md); 0 is off")
    http_host: str = Field("", description="address to listen on for HTTP alone; empty: DUBSTAGE_HOST")
    proxy_user_header: str = Field(
        "",
        max_length=100,
        pattern=_HEADER,
        description="header in which an OIDC proxy names the user, such as X-Forwarded-Email (docs/ui.md); empty: off",
    )
    proxy_groups_header: str = Field(
        "", max_length=100, pattern=_HEADER, description="header with the groups of the user, with commas between them"
    )
    proxy_users_file: Path | None = Field(
        None, description="file of the users of the proxy, `TENANT USER` or `TENANT @GROUP` a line, read again when it changes"
    )
    proxy_networks: str = Field(
        "",
        max_length=1000,
        description="networks of the proxy, CIDRs with commas between them; requests from elsewhere name no user, and their "
        "X-Forwarded-Proto and X-Forwarded-For do not count",
    )
    proxy_secret_file: Path | None = Field(
        None, description="file with the secret that the proxy sends in the header X-Dubstage-Proxy-Secret"
    )
    tenant: str = Field(
        DEFAULT_TENANT,
        max_length=31,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        description="tenant that the commands of this machine work for; a gateway serves every tenant, by its tokens",
    )
    tenant_limits_file: Path | None = Field(
        None, description="TOML or JSON file with the limits of tenants, read again when it changes; None: no limits"
    )
    data_dir: Path = Field(default_factory=default_data_dir, description="folder of jobs and of the actor database")
    database_url: str = Field("", description="SQLAlchemy url of actors and jobs; empty: SQLite in data_dir")
    database_connections: int = Field(
        DATABASE_CONNECTIONS,
        ge=1,
        le=100,
        description="most connections of a process to PostgreSQL, besides the one by which a gateway claims the database",
    )
    media_dir: Path | None = Field(None, description="only folder in which RPCs may name files; None: media RPCs are refused")
    media_url: str = Field(
        "",
        max_length=1000,
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^/?#:*\s]+)*)?$",
        description="only URL below which RPCs may name files, s3://BUCKET/FOLDER; empty: URLs are refused",
    )
    uploads_max_bytes: int = Field(
        100 << 30,
        ge=0,
        le=1 << 60,
        description="largest size of the uploads of each tenant, bytes; a gateway counts the open signed URLs of its own alone; "
        "tenant_limits_file may name another; 0: no limit",
    )
    uploads_max_files: int = Field(
        50_000,
        ge=0,
        le=1 << 60,
        description="largest number of uploads of each tenant, whole or not; a gateway counts the open signed URLs of its own "
        "alone; tenant_limits_file may name another; 0: no limit",
    )
    upload_max_age_days: float = Field(
        7.0, ge=0, le=36_500, description="days after which an upload that no work uses is removed; 0: never"
    )
    require_consent: RequireConsent = Field(
        RequireConsent.NO,
        description="refuse to enrol or dub a person without a consent record (true), or without a signed record (signed)",
    )
    consent_keys: Path | None = Field(
        None,
        description="PEM file, or folder of PEM files, with the public keys of signed consent records; None: no key is trusted",
    )
    max_concurrent_rpcs: int = Field(
        64, ge=1, le=10_000, description="number of calls served at once; most calls only wait for an operation"
    )
    max_live_streams: int = Field(
        8,
        ge=1,
        le=1024,
        description="largest number of live streams at once, whatever the time of their frames allows; further streams get "
        "RESOURCE_EXHAUSTED",
    )
    max_live_frame_ms: float = Field(
        150.0,
        ge=1,
        le=3_600_000,
        description="largest mean time from the motion of a live frame to its picture, with one more stream, at which the gateway "
        "takes a further stream, ms",
    )
    stages_start_s: float = Field(
        120.0, gt=0, le=86_400, description="time that the gateway and each operation wait for the stages, seconds"
    )
    max_concurrent_jobs: int = Field(1, ge=1, le=1024, description="number of dubs and enrolments that run at once")
    max_queued_jobs: int = Field(16, ge=0, le=1 << 20, description="number of further dubs and enrolments that may wait")
    operation_lease_s: float = Field(
        15.0,
        ge=3,
        le=600,
        description="time after which other gateways take the operations of a gateway that died, seconds; PostgreSQL only",
    )
    max_finished_operations: int = Field(
        10_000,
        ge=1,
        le=1 << 30,
        description="number of finished operations of each kind that are kept; the oldest are deleted first",
    )
    operation_max_age_days: float = Field(
        90.0, ge=0, le=36_500, description="days after its submission in which a finished operation is kept; 0: for ever"
    )
    webhook_networks: str = Field(
        "",
        max_length=1000,
        description="networks that are not public and to which webhooks may go, also over http: CIDRs with commas between them",
    )
    webhook_attempts: int = Field(
        15, ge=1, le=100, description="attempts before an event is a dead letter; with webhook_retry_s = 5, about 24 hours"
    )
    webhook_retry_s: float = Field(
        5.0, gt=0, le=86_400, description="time before the second attempt, seconds; it doubles with every attempt, up to 12 hours"
    )
    webhook_deadline_s: float = Field(15.0, gt=0, le=30, description="longest time of one attempt, seconds")
    max_job_bytes: int = Field(
        200 << 30, ge=1 << 20, le=1 << 60, description="largest size on disk of one job (records and background video), bytes"
    )
    job_max_age_days: float = Field(
        30.0, ge=0, le=36_500, description="days after which a job that failed or was interrupted is removed; 0: never"
    )
    analysis_max_age_days: float = Field(
        1.0,
        ge=0,
        le=36_500,
        description="days after its last use in which the analysis of footage is kept for further dubs and enrolments; 0: it "
        "ends with the dub or enrolment",
    )
    analyses_max_bytes: int = Field(
        20 << 30,
        ge=1 << 20,
        le=1 << 60,
        description="largest size of all kept analyses together, bytes, and never more than is free on their disk; above, the "
        "least recently used analyses are removed",
    )
    jobs_max_bytes: int = Field(
        0,
        ge=0,
        le=1 << 60,
        description="largest size of all jobs together, bytes; above, the least recently used jobs are removed; 0: no limit",
    )
    batch_max_age_days: float = Field(
        90.0,
        ge=0,
        le=36_500,
        description="days after which a batch whose shots have all ended is removed, without its videos; 0: never",
    )
    batches_max_bytes: int = Field(
        0,
        ge=0,
        le=1 << 60,
        description="largest size of all batches in the database, bytes; above, the oldest ended batches are removed; 0: no limit",
    )
    max_batch_shots: int = Field(
        1, ge=1, le=1024, description="number of shots of batches that a gateway dubs at once, beside the other dubs"
    )
    batch_config_map: str = Field(
        "dubstage-batch", max_length=253, description="ConfigMap with the settings of batches that a gateway sends to Kubernetes"
    )
    provenance_certificate_file: Path | None = Field(
        None,
        description="PEM chain of the certificate that videos are signed with (C2PA), the signer's first; None: a key of the "
        "installation's own",
    )
    provenance_key_file: Path | None = Field(None, description="PEM private key of provenance_certificate_file")
    provenance_signer_command: str = Field(
        "",
        max_length=4000,
        description="program with arguments that signs with the key of provenance_certificate_file, in place of "
        "provenance_key_file: the bytes to sign come by its standard input, the signature goes to its standard output",
    )
    signing_key_file: Path | None = Field(
        None,
        description="PEM file with the Ed25519 key that signs receipts and audit logs; None: signing.pem in data_dir",
    )
    watermark: bool = Field(
        True, description="put a watermark into the dubbed mouths, which `dubstage inspect` finds after re-encoding"
    )
    watermark_public: bool = Field(
        True, description="let anybody read the watermark; false: only `dubstage inspect` of this installation can read it"
    )
    watermark_key_file: Path | None = Field(
        None,
        description="file of at least 32 secret bytes that the watermark follows from; None: the key that videos are signed with",
    )
    provenance_time_stamp_url: str = Field(
        "",
        max_length=1000,
        pattern=r"^(https?://\S+)?$",
        description="time stamp authority (RFC 3161) that dates manifests; empty: manifests have no time",
    )
    face_model: str = Field(
        "",
        max_length=200,
        description="face model that people are fitted on: a name in the stages' folder of morphable models; empty: mediapipe_468",
    )
    speech_command: str = Field(
        "",
        max_length=4000,
        description="program with arguments that speaks words (docs/length.md); arguments that are {text}, {text_file}, "
        "{language}, {voice}, {seconds} or {output} become values; for commands of this machine, never for callers of a gateway",
    )
    speech_deadline_s: float = Field(300.0, gt=0, le=86_400, description="longest time of speech_command, seconds")
    stages_host: str = Field("", description="host of the five stages on their default ports; empty: in this process")
    audio_endpoint: str = Field("", description="HOST:PORT of the audio stage; empty: stages_host and the default port")
    face_endpoint: str = ""
    motion_endpoint: str = ""
    texture_endpoint: str = ""
    render_endpoint: str = ""
    stages_tls: bool = Field(False, description="reach the stages over TLS")
    stages_tls_ca_file: Path | None = None
    stages_tls_certificate_file: Path | None = None
    stages_tls_key_file: Path | None = None
    stages_token_file: Path | None = Field(None, description="file whose first line is sent to the stages as bearer token")
    stage_deadline_s: float = Field(3600.0, gt=0, le=604_800, description="longest time of one call to a stage, seconds")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, after a look for names in the settings file that no component knows.

        Raises:
            InvalidRequestError: the settings file cannot be read, or names a setting that there is not.
        """
        _check_settings_file(frozenset(cls.model_fields))
        return super().settings_customise_sources(settings_cls, *sources, **named)

    @model_validator(mode="before")
    @classmethod
    def _artefacts_in_the_data_folder(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("artefacts_url"):
            return given
        return {**given, "artefacts_url": default_artefacts_url(Path(given.get("data_dir") or default_data_dir()))}

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if self.provenance_signer_command:
            if self.provenance_certificate_file is None or self.provenance_key_file is not None:
                raise ValueError("provenance_signer_command needs provenance_certificate_file, and no provenance_key_file")
            if self.watermark and self.watermark_key_file is None:
                raise ValueError("provenance_signer_command needs watermark_key_file, or watermark=false")
        elif (self.provenance_certificate_file is None) != (self.provenance_key_file is None):
            raise ValueError("provenance_certificate_file and provenance_key_file are given together or not at all")
        return self

    @field_validator("provenance_signer_command", "speech_command")
    @classmethod
    def _words(cls, command: str) -> str:
        try:
            shlex.split(command)
        except ValueError as problem:
            raise ValueError(f"the command is not written as for a shell: {problem}") from problem
        return command.strip()

    @field_validator("speech_command")
    @classmethod
    def _placeholders(cls, command: str) -> str:
        words = shlex.split(command)
        for word in words:
            if word in SPEECH_PLACEHOLDERS:
                continue
            if _PLACEHOLDER.fullmatch(word):
                raise ValueError(f"there is no {word}: there are {', '.join(SPEECH_PLACEHOLDERS)}")
            if inside := [name for name in SPEECH_PLACEHOLDERS if name in word]:
                raise ValueError(f"{inside[0]} is a part of an argument: give it as an argument of its own, or call a script")
        if words and ("{output}" not in words or words[0] in SPEECH_PLACEHOLDERS):
            raise ValueError("give a program and its arguments, one of them {output}: the path of the WAV file to write")
        return command

    @field_validator("provenance_time_stamp_url")
    @classmethod
    def _without_password(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError(
                "the address has a user or a password, which C2PA's library does not send: give an address without them"
            )
        return url

    @model_validator(mode="after")
    def _proxy_whole(self) -> Self:
        if not self.proxy_user_header:
            return self
        if self.auth_token_file is None:
            raise ValueError("proxy_user_header needs auth_token_file: without tokens every caller is trusted")
        if self.proxy_users_file is None:
            raise ValueError("proxy_user_header needs proxy_users_file, which says for which tenant a user works")
        if not self.proxy_networks and self.proxy_secret_file is None:
            raise ValueError(
                "proxy_user_header needs proxy_networks or proxy_secret_file: otherwise every caller could name a user"
            )
        return self

    @field_validator("webhook_networks", "proxy_networks")
    @classmethod
    def _networks(cls, text: str) -> str:
        try:
            for name in text.split(",") if text else ():
                ip_network(name.strip())
        except ValueError as problem:
            raise ValueError(f"{problem}: give networks such as 10.0.0.0/8,fd00::/8") from None
        return text

    @field_validator("data_dir")
    @classmethod
    def _utf8(cls, folder: Path) -> Path:
        try:
            str(folder).encode()
        except UnicodeEncodeError:
            raise ValueError("SQLite needs a path in UTF-8, and this path is not UTF-8: give another folder") from None
        return folder

    @field_validator("require_consent", mode="before")
    @classmethod
    def _yes_no_or_signed(cls, value: Any) -> Any:
        text = value.strip().lower() if isinstance(value, str) else value
        if text == RequireConsent.SIGNED:
            return RequireConsent.SIGNED
        try:
            return RequireConsent.YES if _BOOL.validate_python(text) else RequireConsent.NO
        except ValidationError:
            raise ValueError(f"{value!r} is not known: give true, false or signed") from None

    @field_validator("stages_host")
    @classmethod
    def _without_port(cls, host: str) -> str:
        if not host.isprintable():
            raise ValueError(f"{host!r} is no host: give the name or the address of a host")
        if _WITH_PORT.fullmatch(host):
            raise ValueError(
                f"{host!r} has a port: give the host alone, the stages listen on their default ports there; or give the address of "
                f"each stage: {PREFIX}AUDIO_ENDPOINT=HOST:PORT, {PREFIX}FACE_ENDPOINT=HOST:PORT and so on"
            )
        return host

    @field_validator(*(f"{name}_endpoint" for name in DEFAULT_PORTS if name != "gateway"))
    @classmethod
    def _with_port(cls, target: str) -> str:
        if target and (":" not in target or not target.isprintable()):
            raise ValueError(f"{target!r} is no address with a port: give HOST:PORT")
        return target

    def check_media_dir(self) -> None:
        """Check that a gateway can read the media folder, before the gateway starts.

        Raises:
            InvalidRequestError: there is no such folder, or the folder cannot be read.
        """
        if self.media_dir is not None and not (os.path.isdir(self.media_dir) and os.access(self.media_dir, os.R_OK | os.X_OK)):
            folder = str(self.media_dir)[:200]
            raise InvalidRequestError(
                f"{PREFIX}MEDIA_DIR: {folder} is no folder that can be read: make the folder, or name another one",
                field=f"{PREFIX}MEDIA_DIR",
            )

    @property
    def web_host(self) -> str:
        """Address to listen on for HTTP."""
        return self.http_host or self.host

    @property
    def is_default_tenant(self) -> bool:
        """Whether the locations of these settings are those of the default tenant."""
        return self.tenant == DEFAULT_TENANT

    @property
    def database_may_be_shared(self) -> bool:
        """Whether several gateways may use the database at the same time: PostgreSQL."""
        return self.database_url.startswith("postgresql")

    def endpoint(self, stage: str) -> str:
        """Return HOST:PORT of a stage; empty: the stages are in this process."""
        explicit = str(getattr(self, f"{stage}_endpoint"))
        if explicit or not self.stages_host:
            return explicit
        bare_ipv6 = self.stages_host.count(":") > 1 and "/" not in self.stages_host and not self.stages_host.startswith("[")
        return f"[{self.stages_host}]:{DEFAULT_PORTS[stage]}" if bare_ipv6 else f"{self.stages_host}:{DEFAULT_PORTS[stage]}"

    def client_config(self, stage: str) -> ClientConfig:
        """Return the client's settings for a stage."""
        # gRPC is imported by a process that calls stages, not by each command that reads settings.
        from services.common.server.client import ClientConfig

        return ClientConfig(
            stage=stage,
            target=self.endpoint(stage),
            tls=self.stages_tls,
            tls_ca_file=self.stages_tls_ca_file,
            tls_certificate_file=self.stages_tls_certificate_file,
            tls_key_file=self.stages_tls_key_file,
            auth_token_file=self.stages_token_file,
            # The gateway's own limit is for its callers. What a stage does not take, the stage refuses by name.
            max_message_bytes=max(self.max_message_bytes, LARGE_MESSAGE_BYTES),
            deadline_s=self.stage_deadline_s,
        )
