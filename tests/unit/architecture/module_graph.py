"""The product's modules and what each imports, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[3]
STAGES = ("audio", "face", "motion", "texture", "render")


@cache
def modules() -> Mapping[str, Path]:
    """Return the file of each module of `services`, `gateway`, `research`, by dotted name; a package's name is its `__init__`'s."""
    paths = sorted(path for top in ("services", "gateway", "research") for path in (ROOT / top).rglob("*.py"))
    return MappingProxyType(
        {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    )


@dataclass(frozen=True, slots=True)
class Import:
    """An import statement.

    Attributes:
        module: module that the names are imported from; empty: the names are modules.
        names: what is imported.
        inside_function: the statement is in a function or method.
        for_types_alone: the statement is for type checkers alone.
    """

    module: str
    names: tuple[str, ...]
    inside_function: bool
    for_types_alone: bool


@cache
def import_statements(path: Path) -> tuple[Import, ...]:
    """Return the import statements of a file, anywhere in its text. Relative imports do not count."""
    return tuple(_imports_below(ast.parse(path.read_text(encoding="utf-8"))))


def _imports_below(node: ast.AST, *, inside_function: bool = False, for_types_alone: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield Import("", tuple(alias.name for alias in child.names), inside_function, for_types_alone)
        elif isinstance(child, ast.ImportFrom):
            if child.module and child.level == 0:
                yield Import(child.module, tuple(alias.name for alias in child.names), inside_function, for_types_alone)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no expression holds a statement
            yield from _imports_below(
                child,
                inside_function=inside_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef),
                for_types_alone=for_types_alone or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)),
            )


@cache
def imported_names(path: Path) -> tuple[str, ...]:
    """Return every name that a file imports, anywhere in its text: modules, and `module.name` for the names from a module."""
    found: list[str] = []
    for each in import_statements(path):
        found += (each.module, *(f"{each.module}.{name}" for name in each.names)) if each.module else each.names
    return tuple(found)


@cache
def imports(name: str, *, inside_functions: bool = True) -> frozenset[str]:
    """Return the modules of ours that a module imports.

    Args:
        name: dotted name of the module.
        inside_functions: count imports inside functions and methods too. Imports for type checkers alone never count.
    """
    found: set[str] = set()
    for each in import_statements(modules()[name]):
        if each.for_types_alone or (each.inside_function and not inside_functions):
            continue
        for imported in each.names:
            whole = f"{each.module}.{imported}" if each.module else imported
            found.add(whole if whole in modules() else each.module)
    return frozenset(found & modules().keys() - {name})


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan's strongly connected components of two nodes or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found
