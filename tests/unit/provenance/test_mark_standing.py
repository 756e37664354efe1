"""A watermark proves something only together with a valid manifest of a trusted signer that the mark belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.provenance.facts import DubFacts, ModelFacts, SourceFacts
from gateway.provenance.mark_standing import Standing, standing_of
from gateway.provenance.verdict import State, Verdict
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import Payload, installation_of, watermark_key

KEY = watermark_key(b"an installation")


def facts(**changed: object) -> DubFacts:
    """What the manifest of a marked film says."""
    said = {
        "version": 1,
        "method": "ugc",
        "models": [ModelFacts(stage="render", name="ugc", version="ab" * 32)],
        "frames": 90,
        "frame_rate": "30000/1001",
        "dubbed": [[0, 90]],
        "sources": [SourceFacts(role="footage", sha256="cd" * 32)],
        "consent_sha256": {},
        "job": "ef" * 32,
        **changed,
    }
    bare = DubFacts.model_validate({**said, "watermark": ""})
    return bare.model_copy(update={"watermark": str(Payload.of_film(KEY, bare.statement))})


FILM = facts()
OTHER = facts(sources=[SourceFacts(role="footage", sha256="12" * 32)])


def mark_of(dub: DubFacts, version: int = 2) -> Finding:
    payload = Payload.of_message(int(dub.watermark, 16))
    return Finding(log10_chance=-40.0, soft=np.ones(64), payload=payload, version=version, agreeing=63, spans=())


def verdict_of(state: State, dub: DubFacts | None, *footage: DubFacts, valid: bool = True) -> Verdict:
    ingredients = tuple({"title": "footage", "valid": valid, "dub": each.model_dump(exclude_unset=True)} for each in footage)
    return Verdict(Path("film.mp4"), state, (), "embedded", "0" * 64, ingredients=ingredients, dub=dub)


def test_a_mark_that_belongs_to_a_trusted_manifest_is_of_this_film() -> None:
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.TRUSTED, FILM)) is Standing.THIS_FILM


@pytest.mark.parametrize("state", [State.VALID, State.INVALID])
def test_a_mark_is_a_clue_if_its_manifest_does_not_hold_or_is_of_an_unknown_signer(state: State) -> None:
    assert standing_of(mark_of(FILM), KEY, verdict_of(state, FILM)) is Standing.CLUE


def test_a_mark_without_a_manifest_or_without_a_dub_in_it_is_a_clue() -> None:
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.NONE, None)) is Standing.CLUE
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.TRUSTED, None)) is Standing.CLUE


@pytest.mark.parametrize("state", [State.TRUSTED, State.VALID, State.INVALID])
def test_a_mark_that_was_copied_under_another_manifest_is_told(state: State) -> None:
    assert standing_of(mark_of(FILM), KEY, verdict_of(state, OTHER)) is Standing.ANOTHER_FILM
    # The forger writes the digits of the copied mark into the manifest of the other film.
    forged = OTHER.model_copy(update={"watermark": FILM.watermark})
    assert standing_of(mark_of(FILM), KEY, verdict_of(state, forged)) is Standing.ANOTHER_FILM


def test_every_field_of_the_manifest_binds_the_mark() -> None:
    changes: dict[str, object] = {
        "method": "headpose",
        "models": [],
        "frames": 91,
        "frame_rate": "25/1",
        "dubbed": [[0, 89]],
        "sources": [],
        "consent_sha256": {"person": "34" * 32},
        "job": "56" * 32,
    }
    assert changes.keys() == DubFacts.model_fields.keys() - {"version", "watermark"}
    for name, value in changes.items():
        said = FILM.model_copy(update={name: value})
        assert standing_of(mark_of(FILM), KEY, verdict_of(State.TRUSTED, said)) is Standing.ANOTHER_FILM, name


def test_the_mark_of_footage_that_was_a_dub_itself_is_told_apart_from_a_copied_one() -> None:
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.TRUSTED, OTHER, FILM)) is Standing.FOOTAGE
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.TRUSTED, None, FILM)) is Standing.FOOTAGE
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.VALID, OTHER, FILM)) is Standing.CLUE
    assert standing_of(mark_of(FILM), KEY, verdict_of(State.TRUSTED, OTHER, FILM, valid=False)) is Standing.ANOTHER_FILM


def test_a_mark_of_an_earlier_version_belongs_to_a_trusted_manifest_with_its_digits_and_is_a_clue_without() -> None:
    payload = Payload(installation_of(KEY, 1), 0xC0FFEE)
    early = DubFacts.model_validate({**FILM.model_dump(exclude={"job"}), "watermark": str(payload)})
    mark = replace(mark_of(early), version=payload.version(KEY))
    assert standing_of(mark, KEY, verdict_of(State.TRUSTED, early)) is Standing.THIS_FILM
    assert standing_of(mark, KEY, verdict_of(State.NONE, None)) is Standing.CLUE
    assert standing_of(mark, KEY, verdict_of(State.TRUSTED, FILM)) is Standing.ANOTHER_FILM


def test_a_mark_that_cannot_be_read_is_a_clue() -> None:
    assert standing_of(mark_of(FILM, version=0), KEY, verdict_of(State.TRUSTED, FILM)) is Standing.CLUE
