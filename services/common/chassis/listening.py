"""Options and addresses of a listening server, from the settings."""

from __future__ import annotations

from typing import Final

from services.common.chassis.health import MAX_REQUEST_BYTES
from services.common.chassis.messages import receive_limit
from services.common.chassis.settings import StageSettings

_UNREAD_BYTES: Final = 64 << 10
"""Bytes of a call that gRPC takes from its caller before the server reads: the call's window of HTTP/2. While the server reads a
message, gRPC makes room for that one message."""
_COMMON: Final = (
    # A port in use is an error. By default, two stages on Linux would share the port.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
    # The probe of the bandwidth would let each call's window grow to a GiB, for callers without a token too.
    ("grpc.http2.bdp_probe", 0),
    # A caller that connects, and neither ends the handshake of TLS nor begins HTTP/2, is gone after this time.
    ("grpc.server_handshake_timeout_ms", 20_000),
)
_MAX_HEALTH_STREAMS: Final = 64
"""Calls of one connection of the plain port at the same time. A kubelet has one."""
_FURTHER_STREAMS: Final = 128
"""Calls of one connection beyond those that run and wait: health, and calls that are refused. More calls wait in the client."""


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
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ]
