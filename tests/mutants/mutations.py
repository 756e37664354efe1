"""Mutants of a source file: the same text with one comparison, sign, constant or boolean changed."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = ("comparison", "sign", "constant", "boolean")
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SIGNS: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
_SMALL = 10
"""Integers below this count or index something and grow by one. All other numbers double: a deadline of 901 s is no mistake."""


_GUARDS = frozenset({"strict", "frozen", "slots", "repr", "kw_only"})
"""Arguments that guard against mistakes of programmers, such as zip's `strict`: the program does the same without them."""


@dataclass(frozen=True, order=True)
class Mutant:
    """A source file with one change.

    Attributes:
        path: file, relative to the checkout.
        line: line of the change, from 1.
        column: byte of the line at which the changed expression begins, from 0.
        before: the changed expression, as `ast.unparse` writes it.
        after: what it became.
        code: the line in which the changed expression begins, without the spaces around.
        kind: kind of the change, one of KINDS.
    """

    path: str
    line: int
    column: int
    before: str
    after: str
    code: str
    kind: str
    _end: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before}  ->  {self.after}"

    def text(self, source: str) -> str:
        """Return the text of the mutant. Lines keep their numbers unless the changed expression has several."""
        lines = source.encode().splitlines(keepends=True)
        (end_line, end_column), first = self._end, self.line - 1
        tail = lines[end_line - 1][end_column:]
        lines[first:end_line] = [lines[first][: self.column] + f"({self.after})".encode() + tail]
        return b"".join(lines).decode()


def mutants(path: str, source: str) -> list[Mutant]:
    """Return all mutants of a file, in the order of its text. Annotations, docstrings and texts stay as they are."""
    lines = source.splitlines()
    found = []
    for node in _expressions(ast.parse(source)):
        for kind, after in _changed(node):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            place = node.lineno, node.col_offset
            code = lines[node.lineno - 1].strip()
            end = node.end_lineno, node.end_col_offset
            found.append(Mutant(path, *place, ast.unparse(node), ast.unparse(after), code, kind, end))
    return sorted(found)


def mutants_below(root: Path, folders: tuple[str, ...]) -> list[Mutant]:
    """Return all mutants of the Python files below folders of a checkout."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
    return [each for file in files for each in mutants(str(file.relative_to(root)), file.read_text(encoding="utf-8"))]


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Return the expressions below a node that may change."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            # Python 3.11 has no places of what stands in an f-string.
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or _is_for_tools(child):
                continue
            if isinstance(child, ast.expr):
                yield child
            yield from _expressions(child)


def _is_for_tools(node: ast.AST) -> bool:
    """Return whether a part is not for the program: imports for type checkers, what runs as a script, and guards."""
    if isinstance(node, ast.keyword):
        return node.arg in _GUARDS
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def _changed(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Return the kinds of changes of an expression, and what it becomes."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                other = copy.copy(node)
                other.ops = [*node.ops[:place], _COMPARISONS[type(operator)](), *node.ops[place + 1 :]]
                yield "comparison", other
        case ast.BinOp(op=ast.Add() | ast.Sub()) if not (_is_text(node.left) or _is_text(node.right)):
            yield "sign", ast.BinOp(node.left, _SIGNS[type(node.op)](), node.right)
        case ast.UnaryOp(op=ast.USub()):
            yield "sign", node.operand
        case ast.UnaryOp(op=ast.Not()):
            yield "boolean", node.operand
        case ast.BoolOp():
            yield "boolean", ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        case ast.Constant(value=bool()):
            yield "boolean", ast.Constant(not node.value)
        case ast.Constant(value=0):
            yield "constant", ast.Constant(1.0 if isinstance(node.value, float) else 1)
        case ast.Constant(value=int() | float()):
            is_small = isinstance(node.value, int) and node.value < _SMALL
            yield "constant", ast.Constant(node.value + 1 if is_small else node.value * 2)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
