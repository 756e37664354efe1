"""Tests of error texts as callers of RPCs see them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.api.errors import in_contract_words, resource_of
from services.common import errors

ROOT = Path(gateway.__file__).parent
RAISED = {leaf.__name__ for leaf in errors.leaves()}


def texts() -> Iterator[tuple[str, str]]:
    """Text of every error that the gateway's code makes, with its place. Values are X."""
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] == "cli":
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in RAISED and call.args:
                parts = [node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)]
                yield f"{path}:{call.lineno}", "X".join(part for part in parts if isinstance(part, str))


def has_option(text: str) -> bool:
    """Whether a text has an option, apart from whole commands between backticks."""
    return re.search(r"--[a-z]", re.sub("`[^`]*`", "", text)) is not None


def test_no_text_has_options() -> None:
    """No error text of the wire tells the caller to give an option of the command line. Commands without an RPC stay."""
    found = list(texts())
    assert len(found) > 300
    assert sum("--" in text for _, text in found) > 10, "the texts of the command line are among them"
    assert [(place, text) for place, text in found if has_option(in_contract_words(text))] == []


def test_invalid_arguments_name_fields() -> None:
    """Every INVALID_ARGUMENT that the gateway's code makes names a field."""
    nameless = [
        f"{path}:{call.lineno}"
        for path in ROOT.rglob("*.py")
        if "cli" not in path.parts
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in {"InvalidRequestError", "MediaUnsupportedError"}
        and not any(keyword.arg in {"field", None} for keyword in call.keywords)
    ]
    assert nameless == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no sound to dub to: give new speech with --audio FILE", "no sound to dub to: give new speech with speech_uri"),
        ("choose one with --face X,Y", "choose one with face_id, point or face_rule"),
        ("leave --keep-audio out", "leave keep_audio out"),
        ("or replace the file with --overwrite", "or replace the file with overwrite"),
        ("erase it first (`dubstage actor erase ann`), or", "erase it first (EraseActor), or"),
        ("`dubstage consent subject FILE --record R` adds it", "`dubstage consent subject FILE --record R` adds it"),
    ],
)
def test_words_of_the_contract(text: str, told: str) -> None:
    """Options and commands have the names of fields and RPCs. A command that no RPC replaces stays."""
    assert in_contract_words(text) == told


@pytest.mark.parametrize(
    ("collection", "resource", "name"),
    [
        ("actors", "ann", "actors/ann"),
        ("actors", "actors/ann", "actors/ann"),
        ("batches", "night/s1", "batches/night/shots/s1"),
        ("webhooks", "", ""),
    ],
)
def test_missing_resources_have_names(collection: str, resource: str, name: str) -> None:
    """ResourceInfo has the name of the resource."""
    assert resource_of(collection, resource) == name
