"""Tests of error texts as callers of RPCs see them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gateway
from gateway.api.errors import resource_of

ROOT = Path(gateway.__file__).parent


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
