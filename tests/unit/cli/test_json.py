"""The option --json: one document on stdout, with names of the HTTP API, and all sentences on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer

from dubstage.gateway.v1 import batch_pb2, gateway_pb2
from gateway.cli.app import app, register_commands, run
from research.cli import evaluate_run
from research.evaluation.types import METRICS, ClipResult, VariantScores

SERVERS = ("serve", "ui")
"""Commands that neither list nor make anything."""


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
    for word, child in (children or {}).items():
        yield from _commands(child, f"{name} {word}".strip())


def test_every_command_has_the_flag() -> None:
    """Every command but the servers has --json, and the option never takes a value."""
    register_commands()
    for name, command in _commands(typer.main.get_command(app), ""):
        found = [parameter for parameter in command.params if "--json" in parameter.opts]
        assert len(found) == (name not in SERVERS), name
        assert all(parameter.is_flag for parameter in found), name


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("actor list", {"actors", "nextPageToken"}),
        ("batch list", {"batches", "nextPageToken"}),
        ("jobs list", {"jobs"}),
        ("jobs clean --all --yes", {"jobs", "freedFolderBytes", "freedBlobBytes"}),
        ("audit list", {"entries"}),
        ("audit verify", {"numEntries", "headSha256"}),
        ("audit export log.jsonl", {"outputUri"}),
        ("receipt key", {"keySha256", "publicKey", "outputUri"}),
        ("backup file.tar", {"outputUri", "numActors", "numBlobs", "blobBytes"}),
        ("plan --live 1", {"stages"}),
        ("train list", {"networks"}),
        ("doctor", {"checks"}),
    ],
)
def test_stdout_is_one_document(
    line: str, fields: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json, stdout is one document. Without, the command prints what it did before."""
    monkeypatch.chdir(tmp_path)
    assert run(["actor", "list"]) == 0
    capsys.readouterr()
    assert run([*line.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == fields
    assert run(["-q", "receipt", "key"]) == 0
    assert capsys.readouterr().out.startswith("-----BEGIN PUBLIC KEY-----")


def test_lists_have_fields_of_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists are the messages of the HTTP API."""
    for line, message in (("actor list", gateway_pb2.ListActorsResponse()), ("batch list", batch_pb2.ListBatchesResponse())):
        assert run([*line.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out).keys() == {field.json_name for field in message.DESCRIPTOR.fields}


def test_failure_prints_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that fails prints its error to stderr, nothing to stdout, and keeps its exit code."""
    assert run(["actor", "show", "nobody", "--json"]) == 11
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")


def test_evaluation_logs_to_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of the log that an evaluation prints while its stages start are not in the document."""
    full = VariantScores(dict.fromkeys(METRICS, 1.0), {}, {}, 10, 0, 0)
    result = ClipResult("clip.mp4", Fraction(25), 0, (), {"full": full})
    monkeypatch.setattr(evaluate_run, "check_clips", lambda clips: dict.fromkeys(clips, ""))
    monkeypatch.setattr(evaluate_run, "evaluate_on", lambda *_: result)
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    assert run(["-v", "evaluate", str(tmp_path / "clip.mp4"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["method"] == "dubstage"
    assert "renderers_compute" in printed.err
