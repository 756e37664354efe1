"""The assertion of dubstage in a manifest: what C2PA has no field for. Written by a dub, and read from files of strangers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["footage", "speech", "reference"]
"""What a file was to a film. The manifest names files by their role alone: names of files may be names of people."""

DUB_LABEL: Final = "dubstage.dub"
"""Label of the assertion."""
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Frame = Annotated[int, Field(ge=0, le=1 << 53)]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmWatermark:
    """Watermark of a film.

    Attributes:
        on: whether the setting was on.
        payload: what the watermark says, 9 hexadecimal digits; empty: the film has none, because the setting was off or no frame
            was dubbed.
    """

    on: bool
    payload: str = ""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class ModelFacts(_Facts):
    """A model that drew or moved the mouth.

    Attributes:
        stage: stage that ran the model.
        name: name of the model.
        version: what tells this model from others of the name: the SHA-256 of its files, hexadecimal, where the stage says it.
    """

    stage: str
    name: str
    version: str


class SourceFacts(_Facts):
    """A file that the film was made of, by its role and its SHA-256."""

    role: Role
    sha256: _Digest


class DubFacts(_Facts):
    """What a dub says of itself.

    Attributes:
        version: version of this assertion.
        method: name of the method.
        models: models of the method.
        frames: frames of the film.
        frame_rate: frames per second of the film, on average, as NUMERATOR/DENOMINATOR.
        dubbed: spans of frames whose mouth is synthetic, [begin, end) each, in order.
        sources: files that the film was made of.
        consent_sha256: digests of the consent records: `person`, `reference`, and `actor` for the actor's own record if another
            record came with the request.
        job: key of the job that made the film, SHA-256, hexadecimal; empty: the film was made by an earlier version, or of a live
            stream.
        watermark: what the watermark of the dubbed mouths says, 9 hexadecimal digits; empty: the film has no watermark.
    """

    version: Literal[1] = 1
    method: str
    models: list[ModelFacts]
    frames: _Frame
    frame_rate: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}/[1-9][0-9]{0,17}$")]
    dubbed: list[Annotated[list[_Frame], Field(min_length=2, max_length=2)]]
    sources: list[SourceFacts]
    consent_sha256: dict[str, _Digest]
    job: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    watermark: Annotated[str, Field(pattern=r"^([0-9a-f]{9})?$")] = ""

    @property
    def statement(self) -> bytes:
        """All that the manifest says of the dub, except its watermark, in one form: the watermark is bound to these bytes.

        Fields that a manifest does not have are left out, so a new field does not change the statement of older films.
        """
        said = self.model_dump(exclude_unset=True, exclude={"watermark"})
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
