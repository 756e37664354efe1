"""Channels to a server: options, TLS files, token."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

MAX_MESSAGE_BYTES: Final = 64 << 20
"""Largest message of a connection that is given no other limit. Servers take 32 MiB at most if they are given no other limit, and
refuse larger messages by name. A 4K picture has 25 MB."""
CALL_S: Final = 600.0
"""Seconds that a call may take, unless the connection or the call has a time of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """PEM files of a TLS connection.

    Attributes:
        ca: certificates of the authorities that may sign the server's certificate; None: the authorities that gRPC ships with.
        certificate: the client's own certificate, for servers that require one.
        key: private key of `certificate`.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the channel credentials that these files make.

        Raises:
            OSError: a file cannot be read.
        """
        ca, key, certificate = (None if file is None else file.read_bytes() for file in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


def channel_options(max_message_bytes: int) -> list[tuple[str, int | str]]:
    """Return the options of a channel whose messages, in and out, have at most `max_message_bytes`."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Calls go to all addresses of the target in turn; by default gRPC stays with the first address that answers.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ]


def token_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a bearer token; spaces and line ends around the token are removed.

    Raises:
        ValueError: the token has characters that no header can carry. The message does not show the token, which must not get into
            logs.
    """
    token = (token or "").strip()
    for place, character in enumerate(token):
        if not (character.isascii() and character.isprintable() and character != " "):
            kind = unicodedata.name(character, "a control character")
            raise ValueError(
                f"the token cannot be sent: character {place + 1} of {len(token)} is {kind}; a bearer token is one word of plain "
                "ASCII: give one line of the token file"
            )
    return (("authorization", f"Bearer {token}"),) if token else ()
