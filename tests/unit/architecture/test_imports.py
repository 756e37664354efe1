"""The import rules that keep stages apart and algorithms free of the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.architecture.module_graph import ROOT, STAGES, imported_names

WIRE_FILES = ("convert.py", "servicer.py", "__main__.py")


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_never_imports_another_stage_or_the_gateway(stage: str) -> None:
    others = [f"services.{other}" for other in STAGES if other != stage]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(f"services/{stage}")
        for name in imported_names(path)
        if name.split(".")[0] == "gateway" or any(name == other or name.startswith(f"{other}.") for other in others)
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_wire_files_of_a_stage_know_grpc_and_messages(stage: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(f"services/{stage}")
        if path.name not in WIRE_FILES
        for name in imported_names(path)
        if name.split(".")[0] == "grpc" or "_pb2" in name
    ]
    assert wrong == []


def test_the_shared_code_knows_no_stage_and_no_gateway() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("services/common")
        for name in imported_names(path)
        if name.split(".")[0] == "gateway" or any(name.startswith(f"services.{stage}") for stage in STAGES)
    ]
    assert wrong == []


def test_the_gateway_knows_the_stages_by_contract_and_composes_them_in_one_place() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("gateway")
        for name in imported_names(path)
        if any(name == f"services.{stage}" or name.startswith(f"services.{stage}.") for stage in STAGES)
    ]
    assert wrong == []
