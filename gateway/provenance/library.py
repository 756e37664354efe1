"""The one module that calls c2pa: signs manifests and reads them. Never asks the network, except the time stamp authority."""

from __future__ import annotations

import ctypes
import io
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

from gateway.provenance.signer import Credential, SignerError, signature

if TYPE_CHECKING:
    import c2pa

UNKNOWN: Final = "application/octet-stream"
"""Media type of files that c2pa does not parse. Their manifests lie in a sidecar, and cover all bytes of the file."""
_OF_TIME_STAMP: Final = "internal error ("
"""Words of c2pa before any fault of a time stamp: the authority does not answer, or answers something else than a time stamp of
these bytes."""
_OFF: Final = {"enabled": False}
_BUILDER: Final = {
    # A thumbnail would show the person in a place that nobody looks at when the video is withdrawn.
    "thumbnail": _OFF,
    "actions": {"auto_created_action": _OFF, "auto_opened_action": _OFF, "auto_placed_action": _OFF},
}
_VERIFY: Final = {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False}
"""Files come from strangers: no address that a file names is fetched."""


class LibraryError(Exception):
    """c2pa cannot sign or read something. The text is c2pa's own reason.

    Attributes:
        of_time_stamp: whether the time stamp authority is at fault.
    """

    def __init__(self, reason: str, *, of_time_stamp: bool = False) -> None:
        super().__init__(reason)
        self.of_time_stamp = of_time_stamp


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A file whose own manifest is kept in the manifest of a video.

    Attributes:
        description: as `gateway.provenance.claim.ingredient` returns it, with the media type under `format`.
        file: content of the file, open for reading.
        sidecar: manifest that lies beside the file; empty: the manifest is in the file, or there is none.
    """

    description: dict[str, Any]
    file: IO[bytes]
    sidecar: bytes = b""

    def without_manifest(self) -> Ingredient:
        """Return the file as one whose own manifest is not looked for."""
        return Ingredient({**self.description, "format": UNKNOWN}, self.file)


def sign(
    definition: dict[str, Any],
    ingredients: Iterable[Ingredient],
    credential: Credential,
    *,
    time_stamp_url: str = "",
    before_authority: Callable[[], None] = lambda: None,
    connection: socket.socket | None = None,
) -> bytes:
    """Return a signed manifest.

    Args:
        definition: what the manifest says, with the digest of the file that the manifest is for (`gateway.provenance.binding`).
        ingredients: files that the file was made of.
        time_stamp_url: time stamp authority; empty: the manifest has no time.
        before_authority: called when all files are read and the command has signed. After this call, only the authority is waited
            for.
        connection: connection to the command of the credential (`gateway.provenance.signer.signer_process`); None: its key signs.

    Raises:
        LibraryError: c2pa refuses the definition or the credential, or the time stamp authority gives no time stamp of this
            manifest.
        SignerError: the command gives no signature.
    """
    import c2pa

    faults: list[SignerError] = []

    def signed_by(command: socket.socket, content: bytes) -> bytes:
        try:
            signed = signature(command, content, chain=credential.chain, algorithm=credential.algorithm)
        except SignerError as fault:
            faults.append(fault)  # c2pa does not tell why a callback failed
            raise
        before_authority()
        return signed

    by_command = partial(signed_by, connection) if connection is not None else None
    settings = {"builder": _BUILDER, "verify": {**_VERIFY, "verify_trust": False}}
    try:
        with (
            c2pa.Context.from_dict(settings, signer=_signer(credential, time_stamp_url, by_command)) as context,
            c2pa.Builder(definition, context=context) as builder,
        ):
            for ingredient in ingredients:
                _add(builder, ingredient)
            if connection is None:
                before_authority()
            return _signed(builder)
    except c2pa.C2paError as problem:
        if faults:
            raise faults[0] from problem
        of_time_stamp = isinstance(problem, c2pa.C2paError.Signature) and _OF_TIME_STAMP in str(problem)
        raise LibraryError(_reason(problem), of_time_stamp=bool(time_stamp_url) and of_time_stamp) from problem


def _signer(credential: Credential, time_stamp_url: str, by_command: Callable[[bytes], bytes] | None) -> c2pa.Signer:
    """Return c2pa's signer: `by_command` signs, or the key of the credential."""
    import c2pa

    algorithm, url = credential.algorithm, time_stamp_url or None
    if by_command is None:
        info = c2pa.C2paSignerInfo(algorithm.encode(), credential.chain, credential.key, url.encode() if url else None)
        return c2pa.Signer.from_info(info)
    return c2pa.Signer.from_callback(by_command, c2pa.C2paSigningAlg[algorithm.upper()], credential.chain.decode("ascii"), url)


def _signed(builder: c2pa.Builder) -> bytes:
    """Return the manifest of a builder whose definition has the digest of the file.

    c2pa's library has a function for this, `c2pa_builder_sign_embeddable`. No method of the Python package calls the function.
    """
    from c2pa import c2pa as native

    call = native._lib.c2pa_builder_sign_embeddable
    call.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(ctypes.c_ubyte)))
    call.restype = ctypes.c_int64
    manifest = ctypes.POINTER(ctypes.c_ubyte)()
    size = call(ctypes.cast(builder._handle, ctypes.c_void_p), b"application/c2pa", ctypes.byref(manifest))
    native._check_ffi_operation_result(size, "the manifest cannot be signed", check=lambda result: result < 0)
    try:
        return ctypes.string_at(manifest, size)
    finally:
        native._lib.c2pa_free(manifest)


def _add(builder: c2pa.Builder, ingredient: Ingredient) -> None:
    """Add an ingredient with its manifest. A file that c2pa cannot parse is added without one.

    c2pa looks at parts of a manifest only when it signs, and may then refuse the manifest (`gateway.provenance.seal`).
    """
    import c2pa

    description, file = ingredient.description, ingredient.file
    if ingredient.sidecar:
        try:
            report = read(file, sidecar=ingredient.sidecar)
        except LibraryError:
            report = None
        if report is not None:
            name = f"{description['label']}.c2pa"
            builder.add_resource(name, io.BytesIO(ingredient.sidecar))
            kept = {
                "manifest_data": {"format": "application/c2pa", "identifier": name},
                "active_manifest": report["active_manifest"],
                "validation_results": report["validation_results"],
            }
            file.seek(0)
            builder.add_ingredient({**description, **kept}, UNKNOWN, file)
            return
    file.seek(0)
    try:
        builder.add_ingredient(description, description["format"], file)
    except c2pa.C2paError:
        file.seek(0)
        builder.add_ingredient(ingredient.without_manifest().description, UNKNOWN, file)


def check_kept(manifest: bytes) -> None:
    """Check that readers find the manifests of all ingredients in a signed manifest.

    c2pa signs some damaged manifests of ingredients, and every reader then calls the video itself invalid.

    Raises:
        LibraryError: the manifest of an ingredient cannot be read.
    """
    report = read(io.BytesIO(), sidecar=manifest) or {}
    manifests = report.get("manifests", {})
    names = {
        item["active_manifest"] for each in manifests.values() for item in each.get("ingredients", ()) if "active_manifest" in item
    }
    if not names <= manifests.keys():
        raise LibraryError("it is signed, but readers cannot load it")


def read(file: IO[bytes], *, sidecar: bytes) -> dict[str, Any] | None:
    """Return the manifests of a sidecar, parsed. Files of strangers are read only in a separate process (`read_credentials`).

    Raises:
        LibraryError: as `read_json`.
    """
    report = read_json(file, UNKNOWN, sidecar=sidecar)
    return json.loads(report) if report is not None else None


def read_json(file: IO[bytes], media_type: str, *, sidecar: bytes = b"", anchors: str = "") -> str | None:
    """Return what c2pa says of a file's manifests, as JSON of c2pa's Reader; None: the file has none.

    Args:
        file: content of the file.
        media_type: type of the file, or `UNKNOWN`.
        sidecar: manifest that lies beside the file; empty: the manifest is in the file.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.

    Raises:
        LibraryError: the manifest cannot be read.
    """
    import c2pa

    settings: dict[str, Any] = {"verify": {**_VERIFY, "verify_trust": True}}
    if anchors:
        settings["trust"] = {"trust_anchors": anchors}
    file.seek(0)
    try:
        with c2pa.Context.from_dict(settings) as context, c2pa.Reader(media_type, file, sidecar or None, context=context) as reader:
            report: str = reader.json()
            return report
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except c2pa.C2paError as problem:
        raise LibraryError(_reason(problem)) from problem


def _reason(problem: Exception) -> str:
    return str(problem).splitlines()[0][:300] if str(problem) else type(problem).__name__
