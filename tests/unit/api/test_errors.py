"""Errors name files as the caller does, and never show where the server keeps them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from gateway.api.errors import ErrorRewriter
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, InvalidRequestError, StorageFullError, leaves
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


@pytest.mark.parametrize("in_tasks", [False, True])
def test_errors_of_rpcs_are_rewritten(names: ErrorRewriter, tmp_path: Path, in_tasks: bool) -> None:
    """The error that an RPC ends with names no folder of the server, also if a group of tasks raised the error."""
    error = StorageFullError(f"no space left in {tmp_path}/data", subject=f"{tmp_path}/data")
    with pytest.raises(StorageFullError) as caught, names.rewriting("CreateDub"):
        raise ExceptionGroup("tasks", [error]) if in_tasks else error
    assert (caught.value.message, caught.value.subject) == ("no space left in DUBSTAGE_DATA_DIR", "DUBSTAGE_DATA_DIR")


def test_fields_are_those_of_rpc(names: ErrorRewriter) -> None:
    for rpc, field in (("CreateDub", "dub.output_uri"), ("CreateActor", "output_uri"), ("GetUpload", "output")):
        with pytest.raises(InvalidRequestError) as caught, names.rewriting(rpc):
            raise InvalidRequestError("x", field="output")
        assert caught.value.field == field
