"""Errors name files as the caller does, and never show where the server keeps them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.errors import ErrorRewriter, with_names
from gateway.settings import GatewaySettings
from services.common.errors import ArtefactCorruptError, DubstageError, InvalidRequestError, StorageFullError, leaves
from services.common.server import error_status


@pytest.fixture
def names(tmp_path: Path) -> ErrorRewriter:
    (tmp_path / "media").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "media")
    settings = GatewaySettings(
        data_dir=tmp_path / "data",
        media_dir=tmp_path / "link",
        consent_keys=tmp_path / "keys",
        signing_key_file=tmp_path / "sign.pem",
    )
    return ErrorRewriter(settings, f"sqlite:///{tmp_path / 'data' / 'actors.sqlite'}", f"file://{tmp_path / 'data' / 'blobs'}")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("{root}/media/a/b.mp4 has no sound", "a/b.mp4 has no sound"),
        ("{root}/link/a/b.mp4: no space", "a/b.mp4: no space"),
        ("the folder {root}/media may not be written", "the folder the media folder may not be written"),
        ("no space left in {root}/data/jobs/12", "no space left in DUBSTAGE_DATA_DIR/jobs/12"),
        ("no artefact at file://{root}/data/blobs/ab/cd", "no artefact at DUBSTAGE_ARTEFACTS_URL/ab/cd"),
        ("{root}/data/blobs/ab is damaged", "DUBSTAGE_ARTEFACTS_URL/ab is damaged"),
        ("the database sqlite:///{root}/data/actors.sqlite refuses", "the database DUBSTAGE_DATABASE_URL refuses"),
        ("{root}/keys/studio.pem cannot be read", "DUBSTAGE_CONSENT_KEYS/studio.pem cannot be read"),
        ("{root}/sign.pem is damaged", "DUBSTAGE_SIGNING_KEY_FILE is damaged"),
        ("{root}/media-of-another/x", "{root}/media-of-another/x"),
        ("{temporary}/tmpab12_cd/footage: moov atom not found", "footage: moov atom not found"),
        ("media/b.mp4 and data", "media/b.mp4 and data"),
    ],
)
def test_a_text_loses_the_servers_folders(names: ErrorRewriter, tmp_path: Path, said: str, told: str) -> None:
    places = {"root": tmp_path, "temporary": tempfile.gettempdir()}
    assert names.for_caller(said.format(**places)) == told.format(**places)


@pytest.mark.parametrize("leaf", leaves())
def test_no_kind_of_error_shows_a_folder(names: ErrorRewriter, tmp_path: Path, leaf: type[DubstageError]) -> None:
    error = leaf(f"{tmp_path}/media/a.mp4 in {tmp_path}/data")
    for name in ("field", "resource", "subject"):
        if hasattr(error, name):
            setattr(error, name, f"{tmp_path}/media/a.mp4")
    status = error_status.to_status(names.rewrite(error), stage="gateway").SerializeToString()
    assert str(tmp_path).encode() not in status
    assert str(error) == "a.mp4 in DUBSTAGE_DATA_DIR"


def test_pipeline_field_renamed_for_request(names: ErrorRewriter) -> None:
    """A field of the pipeline gets its name in the request."""
    error = InvalidRequestError("x", field="output")
    assert names.rewrite(error) is error
    assert error.field == "output_uri"
    assert names.rewrite(InvalidRequestError("x", field="audio"), fields={}).field == "audio"  # type: ignore[attr-defined]


async def test_every_method_reports_errors(names: ErrorRewriter, tmp_path: Path) -> None:
    """Every method of a servicer tells its errors so."""

    class Servicer:
        async def Unary(self, request: Any, context: Any) -> str:
            if request == "fail":
                raise StorageFullError(f"no space left in {tmp_path}/data", subject=f"{tmp_path}/data")
            return "answer"

        async def Streaming(self, request: Any, context: Any) -> AsyncIterator[int]:
            yield 1
            raise ExceptionGroup("tasks", [ArtefactCorruptError(f"{tmp_path}/data/blobs/ab is damaged", resource="ab")])

    servicer = with_names(Servicer(), names)
    assert await servicer.Unary("", None) == "answer"
    with pytest.raises(StorageFullError) as caught:
        await servicer.Unary("fail", None)
    assert (caught.value.message, caught.value.subject) == ("no space left in DUBSTAGE_DATA_DIR", "DUBSTAGE_DATA_DIR")
    replies = servicer.Streaming("", None)
    assert await anext(replies) == 1
    with pytest.raises(ArtefactCorruptError, match=r"^DUBSTAGE_ARTEFACTS_URL/ab is damaged$"):
        await anext(replies)
