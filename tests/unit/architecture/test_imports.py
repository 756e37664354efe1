"""The import rules that keep stages apart and algorithms free of the wire."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STAGES = ("audio", "face", "motion", "texture", "render")
WIRE_FILES = ("convert.py", "servicer.py", "__main__.py")


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_never_imports_another_stage_or_the_gateway(stage: str) -> None:
    others = [f"services.{other}" for other in STAGES if other != stage]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(f"services/{stage}")
        for name in imports(path)
        if name.split(".")[0] == "gateway" or any(name == other or name.startswith(f"{other}.") for other in others)
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_wire_files_of_a_stage_know_grpc_and_messages(stage: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(f"services/{stage}")
        if path.name not in WIRE_FILES
        for name in imports(path)
        if name.split(".")[0] == "grpc" or "_pb2" in name
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_serving_code_never_imports_training_code(stage: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(f"services/{stage}")
        if "train" not in path.relative_to(ROOT).parts and path.name != "export.py"
        for name in imports(path)
        if name.startswith(f"services.{stage}.train")
    ]
    assert wrong == []


def test_the_shared_code_knows_no_stage_and_no_gateway() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("services/common")
        for name in imports(path)
        if name.split(".")[0] == "gateway" or any(name.startswith(f"services.{stage}") for stage in STAGES)
    ]
    assert wrong == []


def test_the_gateway_knows_the_stages_by_contract_and_composes_them_in_one_place() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("gateway")
        for name in imports(path)
        if any(name == f"services.{stage}" or name.startswith(f"services.{stage}.") for stage in STAGES)
    ]
    assert wrong == []


def test_no_file_of_the_product_is_longer_than_four_hundred_lines() -> None:
    long = [str(path.relative_to(ROOT)) for path in modules("services", "gateway") if len(path.read_text().splitlines()) > 400]
    assert long == []
