"""Credentials that videos are signed with, and signatures by a command of the user.

Such a command uses a private key that a key management service or a hardware module keeps. The command reads the bytes to sign from
its standard input, and writes the signature to its standard output. The process that signs loads this module, and so starts without
the library of certificates.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Final

SIGNER_SETTING: Final = "DUBSTAGE_PROVENANCE_SIGNER_COMMAND"
LIMIT_S: Final = 30.0
"""Longest wait for a signature, seconds."""
_LARGEST_ANSWER: Final = 16 << 10
_LAST_S: Final = 1.0
"""Seconds that a command without an answer has to end."""
_STDERR_TAIL_BYTES: Final = 300
"""Last bytes of the command's standard error, whose last line is reported."""
_NUMBER_BYTES: Final = {"es256": 32, "es384": 48, "es512": 66}
"""Size of each of the two numbers of an ECDSA signature in a manifest."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Certificate chain, and key or command, that videos are signed with.

    Attributes:
        chain: certificates, PEM: the signer's first, then those of its authorities.
        key: private key, PEM, PKCS 8; empty: `command` signs.
        algorithm: C2PA's name of the signature algorithm, such as ed25519.
        command: program and arguments that make signatures (`gateway.provenance.signer`); empty: `key` signs.
    """

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    command: tuple[str, ...] = ()


class SignerError(Exception):
    """The command gave no signature, or a wrong one. The text says why."""


@contextmanager
def signer_process(command: Sequence[str]) -> Iterator[socket.socket | None]:
    """Start the command, and return the connection for one signature (`signature`), which another process may inherit.

    Args:
        command: program and arguments; empty: there is no command, and no connection.

    Raises:
        SignerError: the command cannot be started. A SignerError of the context is raised with what the command said about its end.
    """
    if not command:
        yield None
        return
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as said:
        with theirs:
            try:
                process = subprocess.Popen(
                    list(command), stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=said, start_new_session=True
                )
            except OSError as problem:
                raise SignerError(f"{command[0]} cannot be started: {problem.strerror}") from problem
        try:
            yield ours
        except SignerError as fault:
            end = _end(process, said)
            raise SignerError(f"{command[0]}: {fault}{end}") from fault
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end(process: subprocess.Popen[bytes], said: IO[bytes]) -> str:
    """Return how a command ended that gave no signature, as the rest of a sentence."""
    try:
        status = process.wait(_LAST_S)
    except subprocess.TimeoutExpired:
        return ""
    words = last_line(said)
    return f"; it ended with status {status}" + (f": {words}" if words else "")


def last_line(stderr: IO[bytes]) -> str:
    """Return the last line that a command has written to a file for its standard error, at most 300 bytes; empty: none."""
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_TAIL_BYTES))
    return stderr.read(_STDERR_TAIL_BYTES).decode("utf-8", "replace").strip().rpartition("\n")[2].strip()


def signature(connection: socket.socket, content: bytes, *, chain: bytes, algorithm: str) -> bytes:
    """Ask the command of a connection for the signature of some bytes, and check the signature.

    Args:
        connection: from `signer_process`.
        content: bytes to sign.
        chain: certificates, PEM, the signer's first.
        algorithm: C2PA's name of the signature algorithm. ECDSA signatures may be DER, or two numbers of equal size.

    Raises:
        SignerError: no answer, or no signature of these bytes by the key of the certificate.
    """
    connection.settimeout(LIMIT_S)
    answer = b""
    try:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while len(answer) <= _LARGEST_ANSWER and (piece := connection.recv(_LARGEST_ANSWER)):
            answer += piece
    except OSError as problem:
        raise SignerError(f"no signature came: {problem.strerror or problem}") from problem
    if not answer:
        raise SignerError("no signature came")
    return _checked(answer, content, chain, algorithm)


def _checked(answer: bytes, content: bytes, chain: bytes, algorithm: str) -> bytes:
    """Return a signature in the form of manifests."""
    # Only installations with such a command wait for this library in the process that signs.
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

    key = x509.load_pem_x509_certificates(chain)[0].public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            size = _NUMBER_BYTES[algorithm]
            if len(answer) == 2 * size:
                numbers = int.from_bytes(answer[:size], "big"), int.from_bytes(answer[size:], "big")
            else:
                numbers = utils.decode_dss_signature(answer)
            sha = {"es256": hashes.SHA256(), "es384": hashes.SHA384(), "es512": hashes.SHA512()}[algorithm]
            key.verify(utils.encode_dss_signature(*numbers), content, ec.ECDSA(sha))
            return b"".join(number.to_bytes(size, "big") for number in numbers)
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(answer, content)
        elif isinstance(key, rsa.RSAPublicKey):
            salt = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
            key.verify(answer, content, salt, hashes.SHA256())
    except (InvalidSignature, ValueError, OverflowError):
        raise SignerError(f"the answer of {len(answer)} bytes is no signature ({algorithm}) by the certificate's key") from None
    return answer
