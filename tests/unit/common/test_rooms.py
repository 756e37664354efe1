"""The rooms of the shared code: each imports only rooms before it."""

from __future__ import annotations

import ast
from pathlib import Path

import services.common

COMMON = Path(services.common.__file__).parent
OUTSIDE = ("errors.py", "consent_errors.py", "tenant_errors.py", "array_types.py")
ROOMS = ("chassis", "store", "geometry", "face", "wire")


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("services.common.")]
    return {part[2] for part in parts} & set(ROOMS)


def test_every_module_lies_in_a_room_but_the_errors_and_array_types() -> None:
    assert {path.name for path in COMMON.glob("*.py")} == {"__init__.py", *OUTSIDE}
    assert {path.parent.name for path in COMMON.glob("*/__init__.py")} == set(ROOMS)


def test_the_docstring_lists_the_rooms_in_their_order() -> None:
    listed = [line.split()[0] for line in (services.common.__doc__ or "").splitlines() if line.startswith("    ")]
    assert tuple(listed) == ROOMS


def test_no_room_imports_a_room_after_it() -> None:
    wrong = {
        f"{path.relative_to(COMMON)} imports {other}"
        for number, room in enumerate(ROOMS)
        for path in (COMMON / room).rglob("*.py")
        for other in imported_rooms(path) & set(ROOMS[number + 1 :])
    }
    assert wrong == set()
    assert [name for name in OUTSIDE if imported_rooms(COMMON / name)] == []
