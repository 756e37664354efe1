"""Options and addresses of a listening server, from the settings."""

from __future__ import annotations

from typing import Final

from services.common.chassis.messages import receive_limit
from services.common.chassis.settings import StageSettings

_COMMON: Final = (
    # A port in use is an error. By default, two stages on Linux would share the port.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
# A health check has at most 259 bytes. The rest is room for a refusal that says so.
_MAX_HEALTH_REQUEST_BYTES: Final = 4 << 10
# Calls of one connection of the plain port at the same time. A kubelet has one.
_MAX_HEALTH_STREAMS: Final = 64
# Calls of one connection beyond those that run and wait: health, and calls that are refused. Still more calls wait in the client.
_FURTHER_STREAMS: Final = 512


def bracketed(host: str) -> str:
    """Return a host as written before `:PORT`: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith(("[", "unix:")) else host


def server_options(settings: StageSettings) -> list[tuple[str, int]]:
    """Return gRPC's options of a server."""
    return [
        *_COMMON,
        ("grpc.max_concurrent_streams", settings.max_concurrent_rpcs + settings.max_queued_rpcs + _FURTHER_STREAMS),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", receive_limit(settings.max_message_bytes)),
        # A client that stays connected for ever would never see new replicas. An aged connection takes no new calls. Its running
        # calls may last as long as any call, so that no call is cut.
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_deadline_s * 1000) + 60_000),
    ]


def health_options() -> list[tuple[str, int]]:
    """Return gRPC's options of the server that serves health only, in plain text."""
    return [
        *_COMMON,
        ("grpc.max_concurrent_streams", _MAX_HEALTH_STREAMS),
        ("grpc.max_receive_message_length", _MAX_HEALTH_REQUEST_BYTES),
    ]
