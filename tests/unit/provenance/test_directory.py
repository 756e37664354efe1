"""Directories of installations: an entry says who wrote a public watermark, and its signature holds or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.provenance.credential import KEY_FILE, certificates_in, installation_credential
from gateway.provenance.directory import Entry, entries_of, read_directories, signed_entry
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState
from services.common.errors import InvalidRequestError

ENTRY = Entry(installation="3f2", name="A studio", contact="https://studio.example/watermarks")
OTHER = Entry(installation="abc", name="Another studio", contact="mailto:marks@other.example")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folder of an installation, with a directory of two entries that the installation has signed."""
    folder = tmp_path_factory.mktemp("installation")
    sealer = Sealer(installation_credential(folder))
    lines = [signed_entry(entry, sealer, folder / "entry.json") for entry in (ENTRY, OTHER)]
    (folder / "directory").write_bytes(b"\n".join(lines))
    return folder


def test_entry_is_found_by_its_digits(home: Path) -> None:
    lines = read_directories([home / "directory"])
    assert [line.entry for line in lines] == [ENTRY, OTHER]
    (found,) = entries_of(lines, "3f2", b"")
    assert (found.entry, found.state) == (ENTRY, ManifestState.VALID)
    assert "self-signed" in found.signer
    assert entries_of(lines, "000", b"") == []


def test_entry_of_a_trusted_signer(home: Path) -> None:
    (found,) = entries_of(read_directories([home / "directory"]), "3f2", certificates_in(home / KEY_FILE))
    assert found.state is ManifestState.TRUSTED


@pytest.mark.parametrize(
    ("field", "value"), [("name", "Somebody else"), ("contact", "https://evil.example"), ("installation", "3f3")]
)
def test_changed_entry_does_not_hold(home: Path, tmp_path: Path, field: str, value: str) -> None:
    line = json.loads((home / "directory").read_text().splitlines()[0])
    line["entry"][field] = value
    (tmp_path / "changed").write_text(json.dumps(line))
    lines = read_directories([tmp_path / "changed"])
    (found,) = entries_of(lines, lines[0].entry.installation, b"")
    assert found.state is ManifestState.INVALID


@pytest.mark.parametrize("manifest", ["", "words", "d29yZHM="])
def test_entry_without_a_manifest_does_not_hold(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "bare").write_text(json.dumps({"entry": ENTRY.model_dump(), "manifest": manifest}))
    (found,) = entries_of(read_directories([tmp_path / "bare"]), "3f2", b"")
    assert (found.state, found.signer) == (ManifestState.INVALID, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"words", "line 1: the line: Invalid JSON"),
        (b"\xff\xfe", "line 1: the line: Invalid JSON"),
        (b'{"entry": {}}', "line 1: entry.installation: Field required"),
        (b'{"entry": {"installation": "xyz", "name": "A", "contact": "https://a"}, "manifest": ""}', "line 1: entry.installation:"),
        (b'{"entry": {"installation": "abc", "name": "A", "contact": "javascript:a"}, "manifest": ""}', "line 1: entry.contact:"),
    ],
)
def test_a_file_that_is_no_directory_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "directory"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRequestError) as refused:
        read_directories([file])
    assert str(refused.value).startswith(str(file))
    assert reason in str(refused.value)
