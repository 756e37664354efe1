"""The product's modules and what each imports, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[3]
STAGES = ("audio", "face", "motion", "texture", "render")


@cache
def modules() -> Mapping[str, Path]:
    """Return the file of each module of `services` and `gateway`, by dotted name; a package's name is its `__init__`'s."""
    paths = sorted(path for top in ("services", "gateway") for path in (ROOT / top).rglob("*.py"))
    return MappingProxyType(
        {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    )


@cache
def imported_names(path: Path) -> tuple[str, ...]:
    """Return every name that a file imports, anywhere in its text: modules, and `module.name` for the names from a module."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += (node.module, *(f"{node.module}.{name.name}" for name in node.names))
    return tuple(found)


@cache
def imports(name: str, *, inside_functions: bool = True) -> frozenset[str]:
    """Return the modules of ours that a module imports.

    Args:
        name: dotted name of the module.
        inside_functions: count imports inside functions and methods too. Imports for type checkers alone never count.
    """
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    return frozenset(found for found in _imported(tree, inside_functions=inside_functions) if found in modules() and found != name)


def _imported(node: ast.AST, *, inside_functions: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and child.level == 0:
            whole = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (full if full in modules() else child.module for full in whole)
        yield from _imported(child, inside_functions=inside_functions)


def package(name: str) -> str:
    """Return the package of a module. A `__main__` composes and is imported by nobody: it is a package of its own."""
    if modules()[name].name in ("__init__.py", "__main__.py"):
        return name
    return name.rpartition(".")[0]


def reached(start: Iterable[str], *, inside_functions: bool) -> dict[str, str]:
    """Return each module that is imported from `start`, directly or not, and the module that imports it first."""
    found: dict[str, str] = dict.fromkeys(start, "")
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        for imported in sorted(imports(name, inside_functions=inside_functions)):
            if imported not in found:
                found[imported] = name
                waiting.append(imported)
    return found


def route(found: Mapping[str, str], name: str) -> str:
    """Return how `reached` came to a module: `first -> ... -> name`."""
    steps = [name]
    while found[steps[-1]]:
        steps.append(found[steps[-1]])
    return " -> ".join(reversed(steps))


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
