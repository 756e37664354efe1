"""TLS files of a server or a client, read again when they change."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from services.common.errors import InvalidRequestError
from services.common.server.auth import file_versions
from services.common.server.settings import StageSettings

_log = structlog.stdlib.get_logger("dubstage.tls")


@dataclass(frozen=True, slots=True, eq=False)
class Pems:
    """Content of TLS files, PEM. None: there is no such file."""

    authorities: bytes | None
    certificate: bytes | None
    key: bytes | None

    @property
    def client_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of a client."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)


class RenewedTlsFiles:
    """Authorities, certificate and key of one side of TLS connections.

    While new files cannot be used, the content that was read before stays in use: a certificate and its key are seldom replaced in
    the same instant. The log says so.

    Args:
        authorities: PEM of the authorities that sign the peers' certificates.
        certificate: PEM chain of this side's certificate.
        key: PEM private key of the certificate.

    Raises:
        InvalidRequestError: a file cannot be read, holds no certificate or key, or the key is not the certificate's.
    """

    def __init__(self, *, authorities: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> None:
        self._authorities, self._certificate, self._key = authorities, certificate, key
        self._files = tuple(file for file in (authorities, certificate, key) if file is not None)
        self._lock = threading.Lock()
        self._versions: object = None
        self._pems = self._read()

    def current(self) -> Pems:
        """Return the content of the files; the same object until the content changes. Any thread may call."""
        with self._lock:
            try:
                versions: object = file_versions(self._files)
            except OSError:
                # A file that is about to be replaced may be missing for a moment.
                return self._pems
            if versions != self._versions:
                try:
                    self._pems = self._read()
                    _log.info("tls_files_replaced", files=[str(file) for file in self._files])
                except InvalidRequestError as error:
                    self._versions = versions
                    _log.error("tls_files_unusable", message=error.message, effect="the previous files stay in use")
            return self._pems

    def _read(self) -> Pems:
        given = (self._authorities, self._certificate, self._key)
        try:
            versions = file_versions(self._files)
            pems = Pems(*(None if file is None else file.read_bytes() for file in given))
            _check(*given)
            # Files that were replaced meanwhile may not fit together: the next call reads again.
            self._versions = versions if file_versions(self._files) == versions else None
        except OSError as error:
            raise InvalidRequestError(f"cannot read {error.filename}: {error.strerror or error}", field="tls") from error
        return pems


def _check(authorities: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Check that files hold what TLS needs. Raises InvalidRequestError or OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # gRPC judges the strength of keys.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise InvalidRequestError(
                f"{authorities} holds no usable certificate of an authority (PEM): {error.reason or error}", field="tls"
            ) from error
    if certificate is None or key is None:
        return
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise InvalidRequestError(
            f"the certificate {certificate} and the key {key} cannot be used together: {error.reason or error}; give a PEM chain "
            "and its PEM key without a password",
            field="tls",
        ) from error


def server_credentials(settings: StageSettings) -> grpc.ServerCredentials | None:
    """Return the credentials for TLS, or None for plain text. Each new connection gets the present content of the files.

    Raises:
        InvalidRequestError: a file cannot be used.
    """
    if settings.tls_key_file is None or settings.tls_certificate_file is None:
        return None
    files = RenewedTlsFiles(
        authorities=settings.tls_client_ca_file, certificate=settings.tls_certificate_file, key=settings.tls_key_file
    )
    used = files.current()

    def configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
        assert pems.key is not None
        assert pems.certificate is not None
        return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], root_certificates=pems.authorities)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        pems = files.current()
        if pems is used:
            return None
        used = pems
        return configuration(pems)

    return grpc.dynamic_ssl_server_credentials(
        configuration(used),
        changed,  # type: ignore[arg-type]  # None means that nothing has changed; the type stubs do not know
        require_client_authentication=settings.require_client_certificate,
    )
