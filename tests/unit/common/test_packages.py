"""The packages of the shared code: each imports only packages before it."""

from __future__ import annotations

import ast
from pathlib import Path

import services.common

COMMON = Path(services.common.__file__).parent
OUTSIDE = ("errors.py", "array_types.py")
PACKAGES = ("server", "store", "geometry", "face", "wire")


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("services.common.")]
    return {part[2] for part in parts} & set(PACKAGES)


def test_every_module_lies_in_a_package_but_errors_and_array_types() -> None:
    assert {path.name for path in COMMON.glob("*.py")} == {"__init__.py", *OUTSIDE}
    assert {path.parent.name for path in COMMON.glob("*/__init__.py")} == set(PACKAGES)


def test_the_docstring_lists_the_packages_in_their_order() -> None:
    listed = [line.split()[0] for line in (services.common.__doc__ or "").splitlines() if line.startswith("    ")]
    assert tuple(listed) == PACKAGES


def test_no_package_imports_a_package_after_it() -> None:
    wrong = {
        f"{path.relative_to(COMMON)} imports {other}"
        for number, package in enumerate(PACKAGES)
        for path in (COMMON / package).rglob("*.py")
        for other in imported_packages(path) & set(PACKAGES[number + 1 :])
    }
    assert wrong == set()
    assert [name for name in OUTSIDE if imported_packages(COMMON / name)] == []
