"""The tests nearest to a module, by their paths and by what they import."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from itertools import takewhile
from pathlib import Path

from tests.unit.architecture.module_graph import ROOT, import_statements

MOST_FILES = 5
_FURTHEST = 2
"""Tests that import a module are near, and tests that import what imports the module. Tests that name the module follow."""
_FOLDERS = ("unit", "contract", "integration")
"""Folders of tests, the nearest first. Tests of whole dubs take too long for one mutant."""


def nearest_tests(path: str) -> list[str]:
    """Return at most MOST_FILES files of tests of a file of the product, the nearest first.

    A unit test with the path of the module comes first. The others come in the order of their distance in imports, then of the
    folders and of the words in their names that they share with the module, then of their kind. Tests that reach a module by a
    command or a server import nothing of it, and only name it.
    """
    return [str(test.relative_to(ROOT)) for test in sorted(_distances(path), key=lambda test: _rank(path, test))][:MOST_FILES]


def _rank(path: str, test: Path) -> tuple[object, ...]:
    kind, *folders, name = test.relative_to(ROOT / "tests").with_suffix("").parts
    _, *module_folders, module = Path(path).with_suffix("").parts
    is_mirror = kind == "unit" and folders == module_folders and name == f"test_{module}"
    shared_words = len(set(name.split("_")) & set(module.split("_")))
    shared_folders = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(folders, module_folders, strict=False)))
    return not is_mirror, _distances(path)[test], -shared_folders, -shared_words, _FOLDERS.index(kind), str(test)


@cache
def _distances(path: str) -> dict[Path, int]:
    """Return the files of tests near a file, and their distances: 1 for tests that import the module."""
    distances = {ROOT / path: 0}
    edge = [ROOT / path]
    for distance in range(1, _FURTHEST + 1):
        edge = [each for file in edge for each in _importers()[file] if each not in distances]
        distances.update(dict.fromkeys(edge, distance))
    tests = {ROOT / "tests" / folder for folder in _FOLDERS}
    found = {file: n for file, n in distances.items() if file.name.startswith("test_") and tests & set(file.parents)}
    word = re.compile(rf"\b{Path(path).stem}\b")
    naming = {file for folder in tests for file in folder.rglob("test_*.py") if word.search(_text(file))}
    return dict.fromkeys(naming, _FURTHEST + 1) | found


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _importers() -> dict[Path, list[Path]]:
    """Return the files that import each file. A test also imports the `conftest.py` of its folders."""
    files = [file for folder in ("services", "gateway", "tests") for file in sorted((ROOT / folder).rglob("*.py"))]
    by_name = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    found = defaultdict[Path, list[Path]](list)
    for file in files:
        imported = {folder / "conftest.py" for folder in file.parents if file.name.startswith("test_")}
        for each in import_statements(file):
            if not each.for_types_alone:
                names = [f"{each.module}.{name}" if each.module else name for name in each.names]
                imported |= {by_name.get(name, by_name.get(each.module, file)) for name in names}
        for other in imported - {file}:
            found[other].append(file)
    return found
