"""Signs a film while the film still has its temporary name, so that no film without a manifest ever takes its name."""

from __future__ import annotations

import hashlib
import io
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.media.output_file import OutputFile
from gateway.media.regular_file import reading
from gateway.provenance.claim import Claim, Source, definition, ingredient
from gateway.provenance.credential import Credential
from gateway.provenance.facts import Role
from gateway.provenance.library import UNKNOWN, Ingredient, LibraryError, read, sign
from gateway.provenance.places import embedded_type, media_type_of, read_sidecar, sidecar_of
from gateway.provenance.signing import sign_aside
from services.common.errors import BackendUnavailable, InvalidRequest

_CREATED: Final = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
_PROBE: Final[dict[str, Any]] = {
    "claim_generator_info": [{"name": "dubstage"}],
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [_CREATED]}}],
}


@dataclass(frozen=True, slots=True)
class Sealer:
    """Signs films with one credential.

    Attributes:
        credential: what films are signed with.
        time_stamp_url: time stamp authority; empty: manifests have no time.
    """

    credential: Credential
    time_stamp_url: str = ""

    def check_credential(self) -> None:
        """Sign a few bytes and read the manifest back.

        Raises:
            LibraryError: c2pa refuses the credential, or readers would call its manifests invalid. The text is c2pa's reason.
        """
        probe = io.BytesIO(b"dubstage")
        manifest = sign(_PROBE, (), self.credential, probe, None, media_type=UNKNOWN)
        told = read(probe, UNKNOWN, sidecar=manifest)
        faults = told["validation_results"]["activeManifest"]["failure"] if told else [{"code": "no manifest"}]
        reasons = [fault.get("explanation") or fault["code"] for fault in faults if fault["code"] != "signingCredential.untrusted"]
        if reasons:
            raise LibraryError("; ".join(reasons))

    def check_place(self, film: Path, *, overwrite: bool) -> None:
        """Check before any work that the manifest of a film can be written.

        Raises:
            InvalidRequest: the manifest belongs beside the film, and a file that is no manifest has its name.
        """
        if embedded_type(film) is not None or overwrite:
            return
        sidecar = sidecar_of(film)
        if (sidecar.exists() or sidecar.is_symlink()) and not read_sidecar(sidecar):
            raise InvalidRequest(
                f"{sidecar} exists and is no manifest, and the manifest of {film.name} is written there; give the film another "
                "name, or replace both files with --overwrite",
                field="output",
            )

    def seal(self, claim: Claim, film: Path, *, takes_over: bool = False) -> Seal:
        """Return the seal of a film.

        Args:
            claim: what the manifest says.
            film: name that the film gets.
            takes_over: whether the unfinished sidecar of another process is removed, as in `OutputFile`.
        """
        return Seal(self, claim, film, takes_over)


@dataclass(frozen=True, slots=True)
class Seal:
    """Puts the manifest of one film into the film, or beside it. `Sealer.seal` makes it."""

    sealer: Sealer
    claim: Claim
    film: Path
    takes_over: bool

    def __call__(self, file: OutputFile) -> OutputFile | None:
        """Sign the finished content of a film.

        Returns:
            The sidecar, which must get its name together with the film; None: the manifest is in the film.

        Raises:
            BackendUnavailable: the time stamp authority does not answer, or answers no time stamp of this film.
            InvalidRequest: c2pa refuses the film, or another job is writing the sidecar.
            MediaUnsupported: a source of the film cannot be read any more.
            OSError: the manifest cannot be written.
        """
        media_type = embedded_type(self.film)
        try:
            if media_type is not None:
                with file.rewriting() as (old, new):
                    self._sign(old, new, media_type)
                return None
            with file.content() as content:
                manifest = self._sign(content, None, UNKNOWN)
        except LibraryError as problem:
            raise self._refused(problem) from problem
        sidecar = OutputFile(sidecar_of(self.film), overwrite=True, takes_over=self.takes_over)
        try:
            with sidecar.content() as beside:
                beside.write(manifest)
        except BaseException:
            sidecar.discard()
            raise
        return sidecar

    def _sign(self, content: Any, target: Any, media_type: str) -> bytes:
        with ExitStack() as stack:
            opened = [(source, *_opened(source, stack)) for source in self.claim.sources]
            digests: dict[Role, str] = {source.role: digest for source, digest, _ in opened}
            return sign_aside(
                definition(self.claim, digests),
                [item for _, _, item in opened],
                self.sealer.credential,
                content,
                target,
                media_type=media_type,
                folder=self.film.parent,
                time_stamp_url=self.sealer.time_stamp_url,
            )

    def _refused(self, problem: LibraryError) -> BackendUnavailable | InvalidRequest:
        if problem.of_time_stamp:
            url = self.sealer.time_stamp_url
            return BackendUnavailable(f"the time stamp authority {url} gave no time stamp ({problem}); {self.film} was not written")
        return InvalidRequest(f"{self.film}: its manifest cannot be signed ({problem})", field="output")


def _opened(source: Source, stack: ExitStack) -> tuple[str, Ingredient]:
    """Return the SHA-256 of a source, and the source with its own manifest."""
    handle = stack.enter_context(reading(source.path, field=source.role))
    file = stack.enter_context(open(handle, "rb", closefd=False))  # noqa: SIM115 - the stack closes the file
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    sidecar = read_sidecar(sidecar_of(source.path))
    return digest, Ingredient(ingredient(source, media_type_of(source.path)), file, sidecar)
