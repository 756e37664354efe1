"""What is read of manifests that other people made, and of files that are no films."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import pytest

from gateway.media.film_room import copy_with_room
from gateway.provenance.binding import embedded_binding, put_manifest
from gateway.provenance.claim import definition
from gateway.provenance.credential import installation_credential
from gateway.provenance.library import sign
from gateway.provenance.places import sidecar_of
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import State, verdict_of
from services.common.errors import InvalidRequest, MediaUnsupported
from tests.unit.provenance.signed_films import claim_gigabytes, claim_of, write_film

FACTS = {"footage": "ab" * 32}


@pytest.fixture(scope="module")
def signed(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    return write_film(folder / "film.mp4", carphone, Sealer(installation_credential(folder / "data")))


def lying(film: Path, tmp_path: Path, **facts: Any) -> Path:
    """A film whose manifest is signed, and says of the dub what no dub says."""
    output = tmp_path / "lying.mp4"
    with film.open("rb") as source, output.open("w+b") as target:
        copy_with_room(source, target, 2 << 20)
        told = definition(claim_of(film), FACTS, embedded_binding(target))
    told["assertions"][0]["data"]["actions"] = [
        {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
    ]
    told["assertions"][1]["data"] |= facts
    with output.open("r+b") as target:
        put_manifest(target, sign(told, (), installation_credential(tmp_path / "data")))
    return output


@pytest.mark.parametrize(
    "facts",
    [
        {"frame_rate": "25/0"},
        {"frame_rate": 25},
        {"dubbed": [[1]]},
        {"dubbed": [["a", "b"]]},
        {"dubbed": None},
        {"models": ["drawer"]},
        {"consent_sha256": {"person": "Jane Doe"}},
        {"version": 2},
    ],
)
def test_facts_that_no_dub_says_are_not_shown(facts: dict[str, Any], carphone: Path, tmp_path: Path) -> None:
    verdict = verdict_of(lying(carphone, tmp_path, **facts))
    assert (verdict.state, verdict.dub) == (State.VALID, None)


def test_facts_of_a_dub_are_shown(carphone: Path, tmp_path: Path) -> None:
    verdict = verdict_of(lying(carphone, tmp_path))
    assert verdict.dub is not None
    assert verdict.dub.dubbed == [[2, 5], [8, 9]]


def test_a_file_without_a_manifest_has_none(carphone: Path, tmp_path: Path) -> None:
    assert (verdict_of(carphone).state, verdict_of(carphone).place) == (State.NONE, "")
    (tmp_path / "notes.txt").write_text("words")
    assert verdict_of(tmp_path / "notes.txt").state == State.NONE


def test_whatever_bytes_of_a_manifest_are_changed_there_is_a_verdict(signed: Path, tmp_path: Path) -> None:
    content = signed.read_bytes()
    begin = content.index(b"jumb")
    generator = random.Random(5)
    states = set()
    for _ in range(40):
        changed = bytearray(content)
        for _ in range(generator.choice((1, 3, 30))):
            changed[begin + generator.randrange(4000)] = generator.randrange(256)
        (tmp_path / "film.mp4").write_bytes(changed)
        states.add(verdict_of(tmp_path / "film.mp4").state)
    assert State.INVALID in states
    assert State.TRUSTED not in states


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_manifest_that_claims_gigabytes_is_invalid_and_takes_no_memory_here(suffix: str, carphone: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / f"film{suffix}", carphone, Sealer(installation_credential(tmp_path / "data")))
    claim_gigabytes(film if suffix == ".mp4" else sidecar_of(film))
    before = peak_bytes()
    verdict = verdict_of(film)
    assert verdict.state == State.INVALID
    assert verdict.reasons
    assert peak_bytes() - before < 100 << 20


def test_a_manifest_that_says_too_much_to_be_shown_is_invalid(carphone: Path, tmp_path: Path) -> None:
    size = 900_000
    film = lying(carphone, tmp_path, method="Q" * size)
    # CBOR: in place of the text, an array of as many empty arrays, which c2pa prints as 14 characters each
    said = b"\x7a" + size.to_bytes(4, "big") + b"Q" * size
    film.write_bytes(film.read_bytes().replace(said, b"\x9a" + size.to_bytes(4, "big") + b"\x80" * size))
    before = peak_bytes()
    verdict = verdict_of(film)
    assert (verdict.state, verdict.reasons) == (State.INVALID, ("the manifest cannot be read: it says more than 8 MB",))
    assert peak_bytes() - before < 100 << 20


@pytest.mark.parametrize("part", [0.01, 0.05, 0.5, 0.999])
def test_a_film_that_is_cut_off_is_not_valid(part: float, signed: Path, tmp_path: Path) -> None:
    content = signed.read_bytes()
    (tmp_path / "film.mp4").write_bytes(content[: int(part * len(content))])
    assert verdict_of(tmp_path / "film.mp4").state in (State.INVALID, State.NONE)


def test_a_sidecar_without_its_film_or_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "film.mkv.c2pa").write_bytes(b"words")
    with pytest.raises(InvalidRequest, match=r"its film film\.mkv is not beside it"):
        verdict_of(tmp_path / "film.mkv.c2pa")
    (tmp_path / "film.mkv").write_bytes(b"a film")
    with pytest.raises(InvalidRequest, match="is no C2PA manifest"):
        verdict_of(tmp_path / "film.mkv.c2pa")
    with pytest.raises(MediaUnsupported, match="does not exist"):
        verdict_of(tmp_path / "none.mp4")
