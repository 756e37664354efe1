"""Import rules that `lint-imports` (pyproject.toml) cannot state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.common.methods import PAPERS, PREDICTORS
from tests.unit.architecture.module_graph import ROOT, STAGES, circles, imported_names, imports, modules

WIRE_FILES = ("convert.py", "servicer.py", "__main__.py")
METHOD_FOLDERS = ("services.motion.predictors", "services.render.renderers", "research.methods")
REGISTRIES = tuple(f"{folder}.registry" for folder in METHOD_FOLDERS)
MAY_NAME_METHODS = (
    "services/common/methods.py",
    *(f"{folder.replace('.', '/')}/{name}/" for folder in METHOD_FOLDERS for name in {row.package for row in PREDICTORS.values()}),
    "research/bench/",
    "research/reproduce/",
)
CODE = (".py", ".pyi", ".proto", ".sh", ".tpl", ".yaml")


def method_package(name: str) -> str | None:
    """Return the method's package that a module lies in, such as services.motion.predictors.x, or None."""
    for folder in METHOD_FOLDERS:
        parts = name.removeprefix(f"{folder}.").split(".")
        if name.startswith(f"{folder}.") and f"{folder}.{parts[0]}" not in REGISTRIES:
            return f"{folder}.{parts[0]}"
    # The protocol of a paper is a module, not a package.
    return name if name.removeprefix("research.reproduce.") in PAPERS else None


def test_shared_modules_import_no_method() -> None:
    """No shared module imports the package of a method."""
    wrong = [
        f"{name} -> {other}"
        for name in modules()
        if method_package(name) is None
        for other in imports(name)
        if method_package(other)
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_only_wire_files_import_grpc(stage: str) -> None:
    """Only the wire files of a stage know gRPC and messages."""
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "services" / stage).rglob("*.py"))
        if path.name not in WIRE_FILES
        for name in imported_names(path)
        if name.split(".")[0] == "grpc" or "_pb2" in name
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({name: imports(name) for name in modules()}) == []


def test_papers_named_in_packages_only() -> None:
    """Code and comments count; names of files and folders in strings count too."""
    word = re.compile(r"\b(" + "|".join(PAPERS) + r")\b")
    wrong = []
    others = [path for folder in ("charts", "protos/dubstage") for path in sorted((ROOT / folder).rglob("*"))]
    for path in (*modules().values(), ROOT / "Makefile", *(path for path in others if path.suffix in CODE)):
        where = str(path.relative_to(ROOT))
        if not where.startswith(MAY_NAME_METHODS):
            wrong += [f"{where}:{line}: {text}" for line, text in _lines(path) if word.search(text)]
    assert wrong == []


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file with their numbers."""
    return list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
