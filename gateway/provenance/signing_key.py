"""What films are signed with. The process that signs loads this module, and so starts without the library of certificates."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credential:
    """What films are signed with.

    Attributes:
        chain: certificates, PEM: the signer's first, then those of its authorities.
        key: private key, PEM, PKCS 8; empty: `command` signs.
        algorithm: C2PA's name of the signature algorithm, such as ed25519.
        command: program and arguments that make signatures (`gateway.provenance.signer_command`); empty: `key` signs.
    """

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    command: tuple[str, ...] = ()
