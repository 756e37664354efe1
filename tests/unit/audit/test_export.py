"""Exports of the audit log, and every way in which somebody may change one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.actors.store import ActorStore
from gateway.audit.entries import AuditEvent, ChainBrokenError, ChainHead, EventKind
from gateway.audit.export import verify_export, write_export
from gateway.audit.log import AuditLog
from gateway.settings import GatewaySettings
from gateway.signatures import InstallationKey, installation_key
from services.common.errors import InvalidRequestError
from tests.unit.actors.installation import actors, database_url, settings

__all__ = ["actors", "database_url", "settings"]

AT = "2026-05-01T00:00:00+00:00"


@pytest.fixture
def log(actors: ActorStore) -> AuditLog:
    for number in range(5):
        actors.audit.record(AuditEvent(event=EventKind.DUB_BEGUN, work=f"dubs/{number}"))
    return actors.audit


@pytest.fixture
def key(settings: GatewaySettings) -> InstallationKey:
    return installation_key(settings.data_dir)


@pytest.fixture
def export(log: AuditLog, key: InstallationKey, tmp_path: Path) -> Path:
    write_export(log, key, tmp_path / "log.jsonl", at=AT)
    return tmp_path / "log.jsonl"


def checked(file: Path, key: InstallationKey) -> ChainHead:
    return verify_export(file, lambda _: key.public).head


def test_export_verifies_with_public_key(export: Path, key: InstallationKey, log: AuditLog) -> None:
    """An export is checked with the public key alone."""
    assert checked(export, key) == log.verify()
    assert export.stat().st_mode & 0o777 == 0o600
    assert len(export.read_bytes().splitlines()) == 6


def test_an_empty_log_is_exported_too(actors: ActorStore, key: InstallationKey, tmp_path: Path) -> None:
    write_export(actors.audit, key, tmp_path / "log.jsonl", at=AT)
    assert checked(tmp_path / "log.jsonl", key) == ChainHead()


def changed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b"dubs/2", b"dubs/7"), *lines[3:]]


def renamed_last(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[4].replace(b"dubs/4", b"dubs/7"), lines[5]]


def with_head(lines: list[bytes], **fields: object) -> list[bytes]:
    ending = json.loads(lines[-1])
    ending["head"] |= fields
    return [*lines[:-1], json.dumps(ending, sort_keys=True, separators=(",", ":")).encode()]


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (changed, 4, "does not hold the digest of entry 3"),
        (lambda lines: [*lines[:2], *lines[3:]], 3, "entry 3 is due here, and this is entry 4"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2, "entry 2 is due here, and this is entry 3"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "entry 4 is due here, and this is entry 3"),
        (lambda lines: lines[1:], 1, "entry 1 is due here"),
        (lambda lines: [*lines[:3], lines[-1]], 4, "entries 4 to 5 are missing: the end was cut"),
        (lambda lines: lines[:3], 4, "signed head is missing: the end of the file was cut"),
        (lambda lines: [], 1, "signed head is missing"),
        (lambda lines: [*lines[:3], lines[3][:-20]], 4, "no JSON: it was changed or cut"),
        (renamed_last, 5, "the last entry is not the one"),
        (lambda lines: with_head([*lines[:3], lines[-1]], sequence=3), 4, "signature does not fit the head"),
        (lambda lines: with_head(lines, key="0" * 64), 6, "the head names the key 0000"),
        (lambda lines: [*lines, lines[0]], 7, "behind the signed head"),
        (lambda lines: [lines[0].replace(b'","', b'", "', 1), *lines[1:]], 1, "canonical form"),
        (lambda lines: [b'{"a":' * 20000, *lines], 1, "more than 65536 bytes"),
        (lambda lines: [b"[" * 5000, *lines], 1, "no JSON"),
        (lambda lines: [b"\xff\xfe", *lines], 1, "no JSON"),
        (lambda lines: [b'{"sequence":1}', *lines], 1, "no entry of an audit log"),
        (lambda lines: [b"[]", *lines], 1, "no JSON object"),
    ],
)
def test_what_was_changed_is_told_by_its_line(
    export: Path, key: InstallationKey, change: Callable[[list[bytes]], list[bytes]], line: int, reason: str
) -> None:
    export.write_bytes(b"".join(one + b"\n" for one in change(export.read_bytes().splitlines())))
    with pytest.raises(ChainBrokenError, match=reason) as caught:
        checked(export, key)
    assert caught.value.line == line


def test_rewritten_chain_is_forged(log: AuditLog, key: InstallationKey, tmp_path: Path) -> None:
    """A chain that was written anew has a forged head."""
    forger = installation_key(tmp_path / "forger")
    write_export(log, forger, tmp_path / "forged.jsonl", at=AT)
    with pytest.raises(ChainBrokenError, match="and the given key is"):
        checked(tmp_path / "forged.jsonl", key)


def test_export_keeps_existing_file(export: Path, log: AuditLog, key: InstallationKey) -> None:
    """An export never replaces a file unasked and leaves no half."""
    with pytest.raises(InvalidRequestError, match="exists"):
        write_export(log, key, export, at=AT)
    with pytest.raises(InvalidRequestError, match="cannot be written"):
        write_export(log, key, export.parent / "missing" / "log.jsonl", at=AT)
    write_export(log, key, export, at=AT, overwrite=True)
    assert [path.name for path in export.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("statement", "line", "reason"),
    [
        ("UPDATE audit_log SET line = replace(line, 'dubs/2', 'dubs/9') WHERE sequence = 3", 3, "not the one that was written"),
        ("DELETE FROM audit_log WHERE sequence = 3", 3, "entry 3 is due here, and this is entry 4"),
        ("DELETE FROM audit_log WHERE sequence = 5", 5, "entries 5 to 5 of the earlier export are missing"),
        ("UPDATE audit_log SET sequence = sequence + 10 WHERE sequence = 5", 5, "not the one that was written"),
        ("DELETE FROM audit_log", 1, "entries 1 to 5 of the earlier export are missing"),
    ],
)
def test_changes_in_the_database_are_told(
    actors: ActorStore, log: AuditLog, export: Path, key: InstallationKey, statement: str, line: int, reason: str
) -> None:
    earlier = checked(export, key)
    with actors.database.writing() as session:
        session.execute(text(statement))
    with pytest.raises(ChainBrokenError, match=reason) as caught:
        log.verify(earlier)
    assert caught.value.line == line


def test_earlier_export_reveals_rewrite(actors: ActorStore, log: AuditLog, export: Path, key: InstallationKey) -> None:
    """An earlier export reveals a log that was written anew."""
    earlier = checked(export, key)
    with actors.database.writing() as session:
        session.execute(text("DELETE FROM audit_log"))
    for number in range(8):
        log.record(AuditEvent(event=EventKind.DUB_BEGUN, work=f"dubs/{number}"))
    assert log.verify().sequence == 8
    with pytest.raises(ChainBrokenError, match="the log was written anew"):
        log.verify(earlier)
