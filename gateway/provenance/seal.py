"""Signs videos with manifests (C2PA).

A video is signed while it still has its temporary name, so that no video without a manifest ever takes its name. c2pa signs in a
separate process with bounds on memory and time, because c2pa reads manifests that strangers wrote, and what a time stamp authority
answers. What goes wrong there becomes an error for the user.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import structlog

from gateway.media.mp4 import copy_with_padding, padding_box
from gateway.media.output import OutputFile
from gateway.provenance.binding import (
    check_sidecar,
    embedded_binding,
    embedded_type,
    manifest_boxes,
    media_type_of,
    padding_for,
    put_manifest,
    read_sidecar,
    sidecar_binding,
    sidecar_of,
)
from gateway.provenance.c2pa_process import ANSWERED, ASKING, LARGEST_ANSWER, limit_s, run_c2pa
from gateway.provenance.claim import Claim, DeliveryClaim, SourceFile, definition, dub_facts, ingredient
from gateway.provenance.disclosure import append_packet, disclosure_packet, find_packet
from gateway.provenance.library import Ingredient, LibraryError
from gateway.provenance.signer import SIGNER_SETTING, Credential, SignerError, signer_process
from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.payload import Payload
from gateway.safe_paths import open_media_file
from services.common.errors import BackendUnavailableError, InvalidRequestError

TIME_STAMP_SETTING: Final = "DUBSTAGE_PROVENANCE_TIME_STAMP_URL"
_BASE_S: Final = 300.0
SIGNING_ERRORS: Final = (LibraryError, SignerError, ValueError, OverflowError)
"""Errors that signing raises, besides errors of the system and of dubstage."""
_log = structlog.stdlib.get_logger("dubstage.provenance")
_SMALLEST_PADDING: Final = 16 << 10
"""Padding for the parts of a manifest whose size does not depend on the video, bytes."""
_TIME_STAMP_PADDING: Final = 16 << 10
"""Padding for the answer of a time stamp authority, bytes. A larger answer costs a copy of the video."""


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A signed manifest.

    Attributes:
        left_out: why the manifests of the ingredients are not in it, in c2pa's words; empty: they are in it.
    """

    manifest: bytes
    left_out: str = ""


def sign_manifest(
    definition: dict[str, Any],
    ingredients: Sequence[Ingredient],
    credential: Credential,
    *,
    folder: Path,
    time_stamp_url: str = "",
    time_stamp_limit_s: float = 30.0,
) -> SignedManifest:
    """Return what `gateway.provenance.library.sign` returns. All files must be files of the system. Blocks.

    A damaged manifest of an ingredient can prevent the signature. The manifest is then signed without those of the ingredients.

    Args:
        definition, ingredients, credential, time_stamp_url: as in `sign`.
        folder: folder for temporary files, which have no names.
        time_stamp_limit_s: longest wait for the whole answer of the time stamp authority, seconds.

    Raises:
        LibraryError: as `sign`, or the process ended without an answer, or took too long.
        SignerError: as `sign`, or the command of the credential cannot be started.
        OSError: temporary files cannot be written.
    """
    sign = partial(
        _sign,
        definition,
        credential=credential,
        folder=folder,
        time_stamp_url=time_stamp_url,
        time_stamp_limit_s=time_stamp_limit_s,
    )
    try:
        return SignedManifest(sign(ingredients))
    except LibraryError as problem:
        if problem.of_time_stamp or not ingredients:
            raise
        # If the credential is at fault, this raises the same error.
        return SignedManifest(sign([each.without_manifest() for each in ingredients]), left_out=str(problem))


def _sign(
    definition: dict[str, Any],
    ingredients: Sequence[Ingredient],
    *,
    credential: Credential,
    folder: Path,
    time_stamp_url: str,
    time_stamp_limit_s: float,
) -> bytes:
    """Return a manifest, signed by one process."""
    request = {
        "definition": definition,
        "ingredients": [
            {"description": each.description, "file": each.file.fileno(), "sidecar": b64encode(each.sidecar).decode()}
            for each in ingredients
        ],
        "signer": None,
        "chain": credential.chain.decode("ascii"),
        "key": credential.key.decode("ascii"),
        "algorithm": credential.algorithm,
        "time_stamp_url": time_stamp_url,
        "time_stamp_limit_s": time_stamp_limit_s,
    }
    files = [each.file.fileno() for each in ingredients]
    longest_s = limit_s(_BASE_S + time_stamp_limit_s, files)
    try:
        # The command is started here: it has the gateway's environment and none of the limits of the process that signs.
        with signer_process(credential.command) as connection:
            if connection is not None:
                request["signer"] = connection.fileno()
                files.append(connection.fileno())
            done = run_c2pa(
                "sign",
                json.dumps(request).encode(),
                files,
                limit_s=longest_s,
                TMPDIR=str(folder.absolute()),
                **(_way_to_the_authority() if time_stamp_url else {}),
            )
            return _manifest(done, time_stamp_limit_s)
    except subprocess.TimeoutExpired:
        raise LibraryError(f"it took more than {longest_s:.0f} s") from None


def _way_to_the_authority() -> dict[str, str]:
    """Return the variables with the proxies and the trusted certificates of this machine, which c2pa reads itself."""
    names = [f"{kind}_PROXY" for kind in ("ALL", "HTTP", "HTTPS", "NO")]
    names += [*map(str.lower, names), "SSL_CERT_DIR", "SSL_CERT_FILE"]
    return {name: os.environ[name] for name in names if name in os.environ}


def _manifest(done: subprocess.CompletedProcess[bytes], time_stamp_limit_s: float) -> bytes:
    """Return the manifest of an answer, or raise what the answer says."""
    try:
        answer = json.loads(done.stdout.removeprefix(ASKING).removeprefix(ANSWERED))
    except ValueError:
        if done.stdout == ASKING:
            raise LibraryError(_unanswered(done.returncode, time_stamp_limit_s), of_time_stamp=True) from None
        raise LibraryError(f"the process that signs ended with status {done.returncode}") from None
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "refused" in answer:
        raise LibraryError(answer["refused"], of_time_stamp=answer["of_time_stamp"])
    if "no_signature" in answer:
        raise SignerError(answer["no_signature"])
    return b64decode(answer["manifest"])


def _unanswered(status: int, time_stamp_limit_s: float) -> str:
    """Return why a process that asked a time stamp authority ended without an answer, in words."""
    if status == -signal.SIGALRM:
        return f"its answer was not complete after {time_stamp_limit_s:g} s"
    return f"its answer does not fit into {LARGEST_ANSWER >> 20} MB; the process that read the answer ended with status {status}"


def signing_error(problem: Exception, video: Path | str, time_stamp_url: str) -> BackendUnavailableError | InvalidRequestError:
    """Return the error for a video that was not signed.

    Args:
        problem: one of SIGNING_ERRORS.
        video: name that the video would have got, or what else is not written.
        time_stamp_url: the time stamp authority.
    """
    if isinstance(problem, SignerError):
        return BackendUnavailableError(f"the command of {SIGNER_SETTING} gave no signature ({problem}); {video} was not written")
    if isinstance(problem, LibraryError) and problem.of_time_stamp:
        return BackendUnavailableError(
            f"the time stamp authority {time_stamp_url} gave no time stamp ({problem}); {video} was not "
            f"written. {TIME_STAMP_SETTING} must name an authority that answers as RFC 3161 says"
        )
    return InvalidRequestError(f"{video}: its manifest cannot be signed ({problem})", field="output")


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source.

    Attributes:
        label: name of the file in the manifest.
        sha256: digest of the file, hexadecimal.
        ingredient: the file with its own manifest, as c2pa takes it.
    """

    label: str
    sha256: str
    ingredient: Ingredient


def open_source(source: SourceFile, stack: ExitStack) -> OpenedSource:
    """Return a source that stays open until the stack closes.

    Raises:
        MediaUnsupportedError: the file cannot be read.
    """
    handle = stack.enter_context(open_media_file(source.path, field=source.role))
    file = stack.enter_context(open(handle, "rb", closefd=False))  # noqa: SIM115 - the stack closes the file
    digest = source.sha256 or hashlib.file_digest(file, "sha256").hexdigest()
    sidecar = read_sidecar(sidecar_of(source.path))
    return OpenedSource(source.label, digest, Ingredient(ingredient(source, media_type_of(source.path)), file, sidecar))


def manifest_bytes_of(path: Path) -> int:
    """Return the size of the manifest that a file has, inside (MP4 and MOV) or beside it, bytes; 0: none was found.

    Raises:
        MediaUnsupportedError: the file cannot be read.
    """
    with open_media_file(path, field="footage") as handle, open(handle, "rb", closefd=False) as file:
        inside = sum(box.end - box.start for box in manifest_boxes(file))
    return inside + len(read_sidecar(sidecar_of(path)))


@dataclass(frozen=True, slots=True)
class SignedDisclosure:
    """Signed disclosure record of pictures that have no container.

    Attributes:
        packet: XMP packet (`gateway.provenance.disclosure`).
        manifest: C2PA manifest of the packet.
    """

    packet: bytes
    manifest: bytes


@dataclass(frozen=True, slots=True)
class Sealer:
    """Signs videos with one credential.

    Attributes:
        credential: what videos are signed with.
        time_stamp_url: time stamp authority; empty: manifests have no time.
        time_stamp_limit_s: longest wait for the authority's whole answer, seconds. c2pa itself waits for at most 30 s.
        watermark_key: key of the watermarks of dubbed mouths, 32 bytes; None: videos get no watermark.
        watermark_public: whether anybody can read the watermarks.
    """

    credential: Credential
    time_stamp_url: str = ""
    time_stamp_limit_s: float = 30.0
    watermark_key: bytes | None = field(default=None, repr=False)
    watermark_public: bool = True

    @property
    def sha256(self) -> str:
        """Digest of all that decides what signs and marks a video, hexadecimal. The digest tells nothing of the keys."""
        key = hashlib.sha256(self.watermark_key).hexdigest() if self.watermark_key is not None else ""
        said = [self.credential.chain.decode("ascii"), self.credential.algorithm, self.time_stamp_url, key, self.watermark_public]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def check_sidecar_path(self, video: Path, *, overwrite: bool) -> None:
        """Check before any work that the manifest of a video can be written.

        Raises:
            InvalidRequestError: the manifest belongs beside the video, and its name is too long, or a file that is no manifest has
                it.
        """
        check_sidecar(video, overwrite=overwrite)

    def mark(self, claim: Claim) -> Mark | None:
        """Return the watermark of a video; None: videos get none.

        Args:
            claim: what the manifest will say, with the digests of all sources and without the watermark.
        """
        return self.mark_of(dub_facts(claim, {source.label: source.sha256 for source in claim.sources}).statement)

    def mark_of(self, statement: bytes) -> Mark | None:
        """Return the watermark that is bound to a statement; None: videos get none.

        Args:
            statement: of a dub (`DubFacts.statement`) or of a live stream (`stream_statement`).
        """
        key = self.watermark_key
        return Mark(key, Payload.of_video(key, statement, public=self.watermark_public)) if key is not None else None

    def disclosure(self, claim: Claim) -> SignedDisclosure:
        """Return the signed disclosure record of a live stream. Blocks.

        Args:
            claim: what the manifest says, without sources.

        Raises:
            BackendUnavailableError: the time stamp authority or the command that signs does not answer.
            InvalidRequestError: the record cannot be signed.
        """
        packet = disclosure_packet(claim.description)
        try:
            signed = sign_manifest(
                definition(claim, {}, sidecar_binding(BytesIO(packet))),
                (),
                self.credential,
                folder=Path(tempfile.gettempdir()),
                time_stamp_url=self.time_stamp_url,
                time_stamp_limit_s=self.time_stamp_limit_s,
            )
        except SIGNING_ERRORS as problem:
            raise signing_error(problem, "the disclosure record of the stream", self.time_stamp_url) from problem
        return SignedDisclosure(packet, signed.manifest)

    def seal(self, claim: Claim | DeliveryClaim, video: Path, *, takes_over: bool = False) -> VideoSeal:
        """Return the seal of a video.

        Args:
            claim: what the manifest says.
            video: name that the video gets.
            takes_over: whether the unfinished sidecar of another process is removed, as in `OutputFile`.
        """
        return VideoSeal(self, claim, video, takes_over)


@dataclass(frozen=True, slots=True)
class VideoSeal:
    """Puts the manifest of one video into the video, or beside it. `Sealer.seal` makes it.

    Attributes:
        sealer: what signs.
        claim: what the manifest says.
        video: name that the video gets.
        takes_over: as in `Sealer.seal`.
        warnings: warnings for the user about the signed manifest. Complete when the video is signed.
    """

    sealer: Sealer
    claim: Claim | DeliveryClaim
    video: Path
    takes_over: bool
    warnings: list[str] = field(default_factory=list)

    @property
    def padding(self) -> int:
        """Padding that a video needs for its manifest, bytes; 0: the manifest lies beside the video.

        Raises:
            MediaUnsupportedError: a source of the video cannot be read.
        """
        if embedded_type(self.video) is None:
            return 0
        said = len(str(definition(self.claim, dict.fromkeys((source.label for source in self.claim.sources), "0" * 64), {})))
        kept = sum(manifest_bytes_of(source.path) for source in self.claim.sources)
        time = _TIME_STAMP_PADDING if self.sealer.time_stamp_url else 0
        return _SMALLEST_PADDING + said + kept + time + len(self.sealer.credential.chain)

    def __call__(self, file: OutputFile) -> OutputFile | None:
        """Sign the finished content of a video.

        Returns:
            The sidecar, which must get its name together with the video; None: the manifest is in the video.

        Raises:
            BackendUnavailableError: the time stamp authority does not answer, or answers no time stamp of this video; or the
                command that signs gives no signature.
            InvalidRequestError: the video cannot be signed, or another job is writing the sidecar.
            MediaUnsupportedError: a source of the video cannot be read any more.
            OSError: the manifest cannot be written.
        """
        try:
            if embedded_type(self.video) is not None:
                self._embed(file)
                return None
            with file.content() as content:
                manifest = self._sign(content, sidecar_binding)
        except SIGNING_ERRORS as problem:
            raise signing_error(problem, self.video, self.sealer.time_stamp_url) from problem
        sidecar = OutputFile(sidecar_of(self.video), overwrite=True, takes_over=self.takes_over)
        try:
            with sidecar.content() as beside:
                beside.write(manifest)
        except BaseException:
            sidecar.discard()
            raise
        return sidecar

    def _embed(self, file: OutputFile) -> None:
        """Put the manifest into the video. The video is copied if its padding is missing or too small for the manifest."""
        with file.content() as content:
            self._disclose(content)
            padding = padding_box(content)
            manifest = self._sign(content, embedded_binding)
            if padding is not None and padding_for(manifest) <= padding.end - padding.start:
                put_manifest(content, manifest)
                return
        with file.rewriting() as (old, new):
            copy_with_padding(old, new, padding_for(manifest) + _SMALLEST_PADDING)
            put_manifest(new, self._sign(new, embedded_binding))

    def _disclose(self, video: BinaryIO) -> None:
        """Write the disclosure record and the footage's XMP packet into a video. A delivered video has both already."""
        if isinstance(self.claim, DeliveryClaim):
            return
        own = b""
        for source in self.claim.sources:
            if source.role == "footage" and embedded_type(source.path) is not None:
                with open_media_file(source.path, field="footage") as handle, open(handle, "rb", closefd=False) as footage:
                    own = find_packet(footage)
        if not self.claim.synthetic:
            packet = own
        else:
            try:
                packet = disclosure_packet(self.claim.description, own)
            except ValueError:  # the footage's packet is damaged, and no reader could read it
                packet = disclosure_packet(self.claim.description)
        if packet:
            append_packet(video, packet)

    def _sign(self, video: BinaryIO, binding: Callable[[BinaryIO], dict[str, Any]]) -> bytes:
        with ExitStack() as stack:
            sources = [open_source(source, stack) for source in self.claim.sources]
            signed = sign_manifest(
                definition(self.claim, {source.label: source.sha256 for source in sources}, binding(video)),
                [source.ingredient for source in sources],
                self.sealer.credential,
                folder=self.video.parent,
                time_stamp_url=self.sealer.time_stamp_url,
                time_stamp_limit_s=self.sealer.time_stamp_limit_s,
            )
        self._warn(signed.left_out)
        return signed.manifest

    def _warn(self, left_out: str) -> None:
        """Tell why the video has no manifests of its sources; empty: the video has them."""
        self.warnings.clear()  # a video that is copied is signed twice
        if left_out:
            roles = ", ".join(source.label for source in self.claim.sources)
            self.warnings.append(
                f"the video's manifest names its sources ({roles}) without their own manifests: one of these is damaged and could "
                f"not be carried over ({left_out})"
            )
            _log.warning("source_manifests_left_out", sources=roles, reason=left_out)
