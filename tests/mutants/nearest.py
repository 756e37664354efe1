"""The tests nearest to a module, by their paths and by what they import."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from itertools import count, takewhile
from pathlib import Path

from tests.unit.architecture.module_graph import ROOT, import_statements

MOST_FILES = 5
_FURTHEST = 2
"""Tests that import a module are near, and tests that import what imports the module. Tests that name the module follow."""
_FOLDERS = ("unit", "contract", "integration")
"""Folders of tests, the nearest first. Tests of whole dubs take too long for one mutant."""
_COMMANDS = ROOT / "gateway" / "cli"
"""Folder of the commands. Tests name a command in the arguments of a program."""
_REFERENCE = ROOT / "tests" / "unit" / "docs" / "test_reference.py"
"""Compares the defaults of options and settings with the pages that list them."""
_UPGRADES = ROOT / "tests" / "contract" / "stores" / "test_upgrades.py"
"""Compares the tables with their migrations."""
_STARTED = re.compile(r'"((?:services|gateway)(?:\.\w+)+)"')
"""Module that runs in a process of its own, as the module that starts it writes the name."""


def nearest_tests(path: str) -> list[str]:
    """Return at most MOST_FILES files of tests of a file of the product, the nearest first.

    A unit test with the path of the module comes first, then other tests with its name. The others come in the order of their
    distance in imports, then of the folders and of the words in their names that they share with the module, of the number of
    ways by which they reach it, and of their kind. Tests that reach a module by a command, a server or another process import
    nothing of it: they name it, or name a module that imports it. Settings, commands and tables also have the test that
    compares them with their page or migration.
    """
    found = sorted(_distances(path), key=lambda test: _rank(path, test))[:MOST_FILES]
    comparing = _comparing(ROOT / path)
    if comparing is not None and comparing not in found:
        found[MOST_FILES - 1 :] = [comparing]
    return [str(test.relative_to(ROOT)) for test in found]


def _comparing(path: Path) -> Path | None:
    """Return the test that compares what a module states with a file that is no module; None: there is none."""
    if path.parent == _COMMANDS or path.stem == "settings":
        return _REFERENCE
    return _UPGRADES if "mapped_column(" in _text(path) or "migrations" in path.parts else None


def _rank(path: str, test: Path) -> tuple[object, ...]:
    kind, *folders, name = test.relative_to(ROOT / "tests").with_suffix("").parts
    _, *module_folders, module = Path(path).with_suffix("").parts
    is_mirror = kind == "unit" and folders == module_folders and name == f"test_{module}"
    shared_words = len(set(name.split("_")) & set(module.split("_")))
    shared_folders = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(folders, module_folders, strict=False)))
    is_namesake = name == f"test_{module}" and folders[:1] == module_folders[: len(folders[:1])]
    distance, ways = _distances(path)[test]
    return not is_mirror, not is_namesake, distance, -shared_folders, -shared_words, ways, _FOLDERS.index(kind), str(test)


@cache
def _distances(path: str) -> dict[Path, tuple[int, int]]:
    """Return the files of tests near a file, each with its distance and the number of ways to the module, with a minus.

    The distance is 1 for tests that import the module.
    """
    seen = {ROOT / path}
    edge = [ROOT / path]
    found: dict[Path, tuple[int, int]] = {}
    for distance in count(1):
        named = Counter(test for file in edge for test in _tests_that_name(file))
        for test, ways in named.items():
            found.setdefault(test, (distance + _FURTHEST, -ways))
        reached = Counter(each for file in edge for each in _importers()[file] if each not in seen)
        seen.update(reached)
        edge = list(reached)
        for test in _tests() & reached.keys():
            found[test] = min(found.get(test, (distance, 0)), (distance, -reached[test]))
        num_near = sum(found[test][0] <= distance for test in found)
        if not edge or (distance >= _FURTHEST and num_near >= MOST_FILES):
            break
    return found


@cache
def _tests() -> frozenset[Path]:
    return frozenset(file for folder in _FOLDERS for file in (ROOT / "tests" / folder).rglob("test_*.py"))


@cache
def _tests_that_name(path: Path) -> list[Path]:
    """Return the files of tests that name a file of the product."""
    if path.is_relative_to(ROOT / "tests") or path.stem.startswith("__"):
        return []
    if path.parent == _COMMANDS:
        word = re.compile(rf'"{path.stem}[" ]')
        return [test for test in _tests() if _is_of_commands(test) and word.search(_text(test))]
    # A name of several words also counts inside the name of a test.
    word = re.compile(rf"(?<![^\W_]){path.stem}(?![^\W_])" if "_" in path.stem else rf"\b{path.stem}\b")
    return [test for test in _tests() if word.search(_text(test))]


def _is_of_commands(test: Path) -> bool:
    """Return whether a test may run a command. Other unit tests have the same words as names of fields."""
    kind, *folders, _ = test.relative_to(ROOT / "tests").parts
    return kind != "unit" or "cli" in folders


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _importers() -> dict[Path, list[Path]]:
    """Return the files that import or start each file. A test also imports the `conftest.py` of its folders."""
    files = [file for folder in ("services", "gateway", "tests") for file in sorted((ROOT / folder).rglob("*.py"))]
    by_name = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    found = defaultdict[Path, list[Path]](list)
    for file in files:
        imported = {folder / "conftest.py" for folder in file.parents if file.name.startswith("test_")}
        imported |= {by_name[name] for name in _STARTED.findall(_text(file)) if name in by_name}
        for each in import_statements(file):
            if not each.for_types_alone:
                names = [f"{each.module}.{name}" if each.module else name for name in each.names]
                imported |= {by_name.get(name, by_name.get(each.module, file)) for name in names}
        for other in imported - {file}:
            found[other].append(file)
    return found
