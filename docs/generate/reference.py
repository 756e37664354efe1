"""Write docs/reference/: settings, command line, chart values, contracts, Python client and columns of reports, from the code.

    python -m docs.generate.reference            # writes the pages; a test compares them with the committed pages

The pages depend on the code alone: not on the width of the terminal, the processor, the environment or the user's home folder.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import typer.main
from google.api import field_behavior_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2
from pydantic.fields import FieldInfo

import dubstage
from charts import schema
from docs.generate.dub_options import HEAD, option_rows
from dubstage.common.v1 import bounds_pb2
from gateway.batch.report import ReportRow
from gateway.batch.types import ShotAppearance, ShotMotion
from gateway.cli.app import app, register_commands
from services.common.server.settings import PREFIX, StageSettings, default_artefacts_url, default_data_dir

CHECKOUT: Final = Path(__file__).parents[2]
FOLDER: Final = CHECKOUT / "docs" / "reference"
_NOTICE: Final = "`python -m docs.generate.reference` writes this page."
_IMAGE: Final = CHECKOUT / "protos" / "gen" / "dubstage" / "contracts.binpb"
_CLIENT: Final = CHECKOUT / "protos" / "dubstage" / "client"
_CLIENT_MODULES: Final = (
    "dub",
    "gateway",
    "batch",
    "files",
    "webhook",
    "operations",
    "audio",
    "face",
    "motion",
    "texture",
    "render",
)
_PATHS: Final[dict[Callable[..., object], str]] = {
    default_data_dir: "`~/.local/share/dubstage`, or `$XDG_DATA_HOME/dubstage` if `XDG_DATA_HOME` is set",
    default_artefacts_url: "the folder `artefacts` in the data folder",
}
"""Text of the defaults that depend on the user."""
_SINGLE: Final[dict[int, str]] = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", r"\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""] if lines else []


def _page(title: str, *parts: Iterable[str]) -> str:
    lines = [f"# {title}", "", _NOTICE, "", *(line.rstrip() for part in parts for line in part)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _bound(field: FieldInfo) -> str:
    bounds = {key: getattr(rule, key) for rule in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(rule, key)}
    low = f"from {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}" if "gt" in bounds else ""
    high = f"to {bounds['le']}" if "le" in bounds else f"below {bounds['lt']}" if "lt" in bounds else ""
    return " ".join(part for part in (low, high) if part)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return _PATHS[field.default_factory]
    value = field.default
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "" if value is None or text == "" else f"`{text}`"


def _words(kind: Any) -> str:
    members = getattr(kind, "__members__", None)
    values = [str(member.value) for member in members.values()] if members else [str(value) for value in get_args(kind)]
    is_literal = members or (values and all(isinstance(value, str) for value in get_args(kind)))
    return ", ".join(f"`{value}`" for value in values) if is_literal else ""


def settings_page() -> str:
    """Return the page of all settings: those of every server, then those of each component."""
    shared = StageSettings.model_fields

    def rows(fields: dict[str, FieldInfo]) -> Iterator[tuple[str, str, str, str]]:
        for name, field in fields.items():
            allowed = _words(field.annotation) or _bound(field)
            yield f"`{PREFIX}{name.upper()}`", _default(field), allowed, field.description or ""

    head = ("variable", "default", "allowed", "meaning")
    parts = [
        "Settings are environment variables. An empty default means that the setting is unset. A wrong value ends the process with",
        "exit code 10 and a message that names the variable. The [settings file](../operations/start.md#settings) holds the",
        "same names in lower case, without `DUBSTAGE_`. Rules for several settings: [start](../operations/start.md#settings).",
        "",
        "## Every server",
        "",
        *_table(head, rows(dict(shared))),
    ]
    for component, kind in schema.SETTINGS.items():
        own = {
            name: field
            for name, field in kind.model_fields.items()
            if name not in shared or (field.default, field.description) != (shared[name].default, shared[name].description)
        }
        parts += [f"## {component.capitalize()}", "", *_table(head, rows(own))]
    return _page("Settings", parts)


def _option(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-"))
    is_flag = getattr(parameter, "is_flag", False)
    value = _value(parameter, is_argument=not names)
    if not names:
        names = f"`{value}`"
    elif not is_flag:
        names += f" `{value}`"
    default = None if callable(parameter.default) else parameter.default
    text = (
        ("on" if default else "") if is_flag else "" if default in (None, "", (), []) else f"`{getattr(default, 'value', default)}`"
    )
    shown = parameter.show_default if isinstance(parameter.show_default, str) else "required" if parameter.required else text
    low, high = parameter.min, parameter.max
    bounds = "" if low is None and high is None else f" {low} or more" if high is None else f" {low} to {high}"
    return names, shown, f"{parameter.help or ''}{f' Allowed:{bounds}.' if bounds else ''}"


def _value(parameter: Any, *, is_argument: bool = False) -> str:
    kind = parameter.type_descriptor.annotation
    value = parameter.metavar or "|".join(map(str, getattr(kind, "__members__", {}).values() or get_args(kind)))
    return str(value or (parameter.name.upper() if is_argument else getattr(kind, "__name__", "value").upper()))


def _commands(command: Any, name: str, depth: int) -> Iterator[str]:
    subcommands = getattr(command, "commands", {})
    if name != "dubstage":
        yield from (f"{'#' * depth} {name}", "", *inspect.cleandoc(command.help or "").splitlines(), "")
    if not subcommands or name == "dubstage":
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False) and parameter.name != "help"]
        yield from _table(("argument or option", "default", "meaning"), map(_option, shown))
    for key in sorted(subcommands):
        yield from _commands(subcommands[key], f"{name} {key}", 2 if name == "dubstage" else 3)


def command_line_page() -> str:
    """Return the page of all commands with their arguments and options."""
    register_commands()
    head = [
        "`dubstage COMMAND --help` or `-h` prints the same texts. Options of the table stand before the command.",
        "[Troubleshooting](../troubleshooting.md#exit-codes) lists the exit codes.",
        "",
    ]
    return _page("Command line", head, _commands(typer.main.get_command(app), "dubstage", 2))


def dub_options_page() -> str:
    """Return the page of what the options of a dub are called on the command line, in the form, in batches, the API and Python."""
    register_commands()
    command: Any = typer.main.get_command(app)
    shown = [parameter for parameter in command.commands["dub"].params if parameter.name != "help"]
    parameters = []
    for parameter in shown:
        value = "-" if getattr(parameter, "is_flag", False) else _value(parameter)
        option = value if parameter.param_type_name == "argument" else max(parameter.opts, key=len)
        parameters.append((parameter.name, option, value))
    head = [
        "The names of each option of `dubstage dub` elsewhere; `-`: there is none. [Meanings](command-line.md#dubstage-dub), "
        "[ranges](contracts.md).",
        "",
    ]
    return _page("Options of a dub", head, _table(HEAD, option_rows(parameters)))


def _type(field: descriptor_pb2.FieldDescriptorProto, package: str) -> str:
    name = _SINGLE.get(field.type) or field.type_name.removeprefix(".").removeprefix(f"{package}.")
    name = name.removeprefix("dubstage.").replace(".v1.", ".")
    return f"repeated {name}" if field.label == field.LABEL_REPEATED else f"optional {name}" if field.proto3_optional else name


def _range(field: descriptor_pb2.FieldDescriptorProto) -> str:
    options = field.options
    required = field_behavior_pb2.REQUIRED in options.Extensions[field_behavior_pb2.field_behavior]
    rules = options.Extensions[bounds_pb2.bounds].ListFields() if options.HasExtension(bounds_pb2.bounds) else ()
    ranges = [f"{rule.name} {int(value) if value == int(value) else value}" for rule, value in rules]
    return ", ".join(["required", *ranges] if required else ranges)


def _messages(
    messages: Sequence[descriptor_pb2.DescriptorProto], path: tuple[int, ...], number: int, prefix: str
) -> Iterator[tuple[str, tuple[int, ...], descriptor_pb2.DescriptorProto]]:
    for index, message in enumerate(messages):
        if not message.options.map_entry:
            here = (*path, number, index)
            yield prefix + message.name, here, message
            yield from _messages(message.nested_type, here, 3, f"{prefix}{message.name}.")


def _contract(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    notes = {tuple(item.path): item.leading_comments or item.trailing_comments for item in file.source_code_info.location}
    yield from (f"## {file.name.removeprefix('dubstage/')}", "", _cell(notes.get((12,), "")), "")
    for index, service in enumerate(file.service):
        yield from (f"### {service.name}", "", _cell(notes.get((6, index), "")), "")

        def streamed(name: str, is_stream: bool) -> str:
            return f"{'stream ' if is_stream else ''}`{name.rpartition('.')[2]}`"

        yield from _table(
            ("RPC", "request", "response", "meaning"),
            (
                (
                    f"`{rpc.name}`",
                    streamed(rpc.input_type, rpc.client_streaming),
                    streamed(rpc.output_type, rpc.server_streaming),
                    notes.get((6, index, 2, at), ""),
                )
                for at, rpc in enumerate(service.method)
            ),
        )
    for name, path, message in _messages(file.message_type, (), 4, ""):
        yield from (f"### {name}", "", _cell(notes.get(path, "")), "")
        yield from _table(
            ("field", "type", "range", "meaning"),
            (
                (f"`{field.name}`", f"`{_type(field, file.package)}`", _range(field), notes.get((*path, 2, at), ""))
                for at, field in enumerate(message.field)
            ),
        )
        yield from _enums(message.enum_type, (*path, 4), notes, f"{name}.")
    yield from _enums(file.enum_type, (5,), notes, "")


def _enums(
    enums: Sequence[descriptor_pb2.EnumDescriptorProto], path: tuple[int, ...], notes: dict[tuple[int, ...], str], prefix: str
) -> Iterator[str]:
    for index, enum in enumerate(enums):
        yield from (f"### {prefix}{enum.name}", "", _cell(notes.get((*path, index), "")), "")
        rows = ((f"`{value.name}`", notes.get((*path, index, 2, at), "")) for at, value in enumerate(enum.value))
        yield from _table(("value", "meaning"), rows)


def contracts_page() -> str:
    """Return the page of the contracts: services, RPCs, messages and fields of every .proto file."""
    image = descriptor_pb2.FileDescriptorSet.FromString(_IMAGE.read_bytes())
    files = [file for file in image.file if file.name.startswith("dubstage/")]
    head = [
        "The sources are in [protos/dubstage](../../protos/dubstage).",
        "A server refuses a value outside of its range with INVALID_ARGUMENT.",
        "",
    ]
    return _page("Contracts", head, *(_contract(file) for file in sorted(files, key=lambda file: file.name)))


def _docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[str]:
    text, _, sections = (ast.get_docstring(node) or "").partition("\n\nArgs:")
    if not sections:
        text, _, sections = text.partition("\n\nAttributes:")
    yield from (*text.splitlines(), "")
    if not sections:
        return
    arguments, *rest = re.split(r"\n\n(?=\w+:)", sections)
    for line in arguments.splitlines():
        if argument := re.match(r" {4}(\*{0,2}\w+): (.*)", line):
            yield f"- `{argument[1]}`: {argument[2]}"
        elif line.strip():
            yield f"  {line.strip()}"
    yield ""
    for section in rest:
        title, _, words = section.partition(":")
        yield from (f"{title}: {_cell(words)}", "")


def _definition(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = ast.unparse(node.args)
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        yield from (f"### `{node.name}`", "", "```python", f"{node.name}({arguments}){returns}", "```", "", *_docstring(node))
    elif isinstance(node, ast.ClassDef):
        yield from (f"### `{node.name}`", "", *_docstring(node))
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
                words = " ".join(line.strip() for line in (ast.get_docstring(item) or "").partition("\n\n")[0].splitlines())
                yield f"- `{item.name}`: {words}"
        yield ""


def _module(name: str) -> Iterator[str]:
    tree = ast.parse((_CLIENT / f"{name}.py").read_text(encoding="utf-8"))
    yield from (f"## dubstage.client.{name}", "", *(ast.get_docstring(tree) or "").splitlines(), "")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield from _definition(node)


def _one_call() -> Iterator[str]:
    """Yield the section of `import dubstage` itself."""
    folder = _CLIENT.parent
    yield from (
        "## dubstage",
        "",
        *(ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or "").splitlines(),
        "",
    )
    for source in ("dubbing", "error_kinds"):
        for node in ast.parse((folder / f"{source}.py").read_text("utf-8")).body:
            if getattr(node, "name", None) in dubstage.__all__:
                yield from _definition(node)


def _root() -> Iterator[str]:
    tree = ast.parse((_CLIENT / "__init__.py").read_text(encoding="utf-8"))
    yield from ("## dubstage.client", "", *(ast.get_docstring(tree) or "").splitlines(), "")
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            names = {alias.name for alias in statement.names}
            source = ast.parse((_CLIENT / f"{statement.module.rpartition('.')[2]}.py").read_text(encoding="utf-8"))
            for node in source.body:
                if getattr(node, "name", None) in names:
                    yield from _definition(node)


def client_page() -> str:
    """Return the page of the public Python client: functions with their signatures, and classes with their attributes."""
    head = [
        "[Integrating](../integrating.md) has whole programs. Every call has a counterpart for asyncio: "
        "`await CALL.aio(connection, ...)`.",
        "",
    ]
    return _page("Python client", head, _one_call(), _root(), *map(_module, _CLIENT_MODULES))


def report_page() -> str:
    """Return the page of the columns of the reports of batches."""
    documented = {kind.__name__: _attributes(kind) for kind in (ReportRow, ShotMotion, ShotAppearance)}
    rows = []
    for column, text in documented["ReportRow"].items():
        other = re.match(r"as in (\w+)", text)
        rows.append((f"`{column}`", documented[other[1]][column] if other else text))
    head = [
        "Columns of `shots.csv`, and keys of a shot in `shots.json`, of [`dubstage batch report`](../batch.md). `format` in "
        "`shots.json` counts up if a name must change. In the CSV, unknown values (None) are empty, lists are joined by ` | `, "
        "and counts are written as `DUBBED=80; NO_FACE=20`.",
        "",
    ]
    return _page("Columns of batch reports", head, _table(("column", "meaning"), rows))


def _attributes(kind: type) -> dict[str, str]:
    """Return what the docstring of a class says about each attribute."""
    part = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    texts: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", part, re.MULTILINE):
        texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return texts


def pages() -> dict[Path, str]:
    """Return the path and the text of every page. Files of the checkout are named by their path in it."""
    texts = {
        "settings.md": settings_page(),
        "command-line.md": command_line_page(),
        "dub-options.md": dub_options_page(),
        "chart-values.md": schema.reference(),
        "contracts.md": contracts_page(),
        "client.md": client_page(),
        "report.md": report_page(),
    }
    return {FOLDER / name: text.replace(f"{CHECKOUT}{os.sep}", "") for name, text in texts.items()}


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
