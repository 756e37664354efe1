"""How the facts of errors are written at each door, and that no code below the command line writes or edits sentences of a door."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import typer

import gateway
import services
from dubstage.gateway.v1 import batch_pb2, consent_pb2, dub_pb2, gateway_pb2
from gateway.api.errors import ErrorRewriter
from gateway.cli.app import app, register_commands
from gateway.cli.words import COMMAND_LINE
from gateway.dub.request.spec_text import ROWS
from gateway.settings import GatewaySettings
from services.common.errors import ActorNotFoundError, BackendUnavailableError, DubstageError, InvalidRequestError
from services.common.texts import RPCS, Command, Field, Option, Text, in_words

DOORS = {Path(gateway.__file__).parent / name for name in ("cli", "plugins", "ui")}
"""Packages that write options of the command line themselves."""
WITH_ARGUMENTS = {
    *("gateway/batch/kubernetes/jobs.py", "gateway/studio/open_job.py", "gateway/studio/opencue_job.py"),
    *("services/common/server/health_check.py", "services/face/mediapipe_wheel.py", "services/render/backends/triton_control.py"),
    *(f"services/render/triton/{name}.py" for name in ("installation", "launch", "repository")),
}
"""Modules that have a command line of their own, or start a process with arguments."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the modules below the doors, with their names."""
    for package in (gateway, services):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            if DOORS.isdisjoint(path.parents):
                yield str(path.relative_to(root.parent)), ast.parse(path.read_text())


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield the calls of a function by its plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


FIT = Text("leave {option} {fit} out", option=Option("fit"), fit="pad")
SPEECH = Text("give new speech with {speech}", speech=Option("speech_uri", "FILE"))
FACE = Text("choose another face with {face}", face=Option("face", "NUMBER"))
NAME = Text("choose another {name}", name=Option("batch_id", "NAME"))
ERASE = Text("erase it first ({erase})", erase=Command("actor erase", "ann"))
SIGN = Text("{sign} signs a record", sign=Command("consent sign"))
LINE = Text("{line}: no frame is dubbed", line=Field("lines[2]"))


@pytest.mark.parametrize(
    ("said", "at_the_command_line", "in_a_batch", "over_the_api"),
    [
        ("a plain {text}", "a plain {text}", "a plain {text}", "a plain {text}"),
        (FIT, "leave --fit pad out", "leave fit pad out", "leave fit pad out"),
        (SPEECH, "give new speech with --audio FILE", "give new speech with speech", "give new speech with speech_uri"),
        (
            FACE,
            "choose another face with --face NUMBER",
            "choose another face with face",
            "choose another face with face_id, point or face_rule",
        ),
        (NAME, "choose another --name NAME", "choose another batch_id", "choose another batch_id"),
        (
            ERASE,
            "erase it first (`dubstage actor erase ann`)",
            "erase it first (`dubstage actor erase ann` or EraseActor)",
            "erase it first (EraseActor)",
        ),
        (SIGN, *["`dubstage consent sign` signs a record"] * 3),
        (LINE, "line 3: no frame is dubbed", "line 3: no frame is dubbed", "lines[2]: no frame is dubbed"),
    ],
)
def test_each_door_has_its_words(said: str, at_the_command_line: str, in_a_batch: str, over_the_api: str) -> None:
    """A text and an error with the text read alike at each door, also inside of other texts."""
    error = BackendUnavailableError(said)
    for text in (said, error, Text("{inner}", inner=said), Text("{inner}", inner=error)):
        assert in_words(text, COMMAND_LINE) == at_the_command_line
        assert in_words(text, ROWS) == in_a_batch
        assert str(text) == over_the_api
    assert error.message == over_the_api


@pytest.mark.parametrize(
    ("field", "at_the_command_line", "over_the_api"),
    [
        ("encode_quality", "encode_quality: takes no", "encode_quality: takes no"),
        ("speech_uri", "speech: takes no", "speech_uri: takes no"),
        ("lines[0].consent_uri", "line 1: consent: takes no", "lines[0].consent_uri: takes no"),
        ("DUBSTAGE_KEYS", "DUBSTAGE_KEYS: takes no", "DUBSTAGE_KEYS: takes no"),
    ],
)
def test_named_errors_begin_with_field(field: str, at_the_command_line: str, over_the_api: str) -> None:
    """The name of the field is no part of what is said, so a field that is renamed has its new name in the text."""
    error = InvalidRequestError("takes no", field=field, named=True)
    assert (error.in_words(COMMAND_LINE), error.message) == (at_the_command_line, over_the_api)
    assert error.said() == "takes no"
    error.blame("config.fit")
    assert str(error) == "config.fit: takes no"
    error.add("(try again)")
    assert str(error) == "config.fit: takes no (try again)"


def test_rpcs_rename_fields_in_texts(tmp_path: Path) -> None:
    """The text of a named error has the name that the field has in the request, and other texts have the fields as facts."""
    names = ErrorRewriter(GatewaySettings(data_dir=tmp_path), "sqlite://", "memory://")
    error = InvalidRequestError("takes no", field="output", named=True)
    assert str(names.rewrite(error, in_dub=True)) == "dub.output_uri: takes no"
    error = InvalidRequestError(Text("leave {output} out in {data}", output=Option("output_uri"), data=tmp_path), field="output")
    assert str(names.rewrite(error)) == "leave output_uri out in DUBSTAGE_DATA_DIR"


def test_other_processes_get_contract_words() -> None:
    """A text that is copied to another process is a plain string, even with braces."""
    text = Text("{speech} {value}", speech=Option("speech_uri"), value="{x}")
    assert pickle.loads(pickle.dumps(text)) == copy.copy(text) == "speech_uri {x}"
    error: DubstageError = pickle.loads(pickle.dumps(ActorNotFoundError(ERASE, subject="ann")))
    assert (str(error), error.subject) == (str(ERASE), "ann")  # type: ignore[attr-defined]  # an ActorNotFoundError


def test_templates_are_literals_with_facts() -> None:
    """A value never stands in a template, where its braces would be read, and every name in a template is a fact."""
    wrong = []
    for name, tree in modules():
        for call in calls(tree, "Text"):
            template = call.args[0]
            if isinstance(template, ast.Constant):
                facts = {keyword.arg for keyword in call.keywords}
                named = {field for _, field, _, _ in Formatter().parse(str(template.value)) if field is not None}
                if None not in facts and named != facts:
                    wrong.append(f"{name}:{call.lineno}: {sorted(named ^ facts)}")  # type: ignore[type-var]  # no None
            elif any(isinstance(node, ast.JoinedStr) for node in ast.walk(template)):
                wrong.append(f"{name}:{call.lineno}: a template with values")
    assert wrong == []


def test_options_and_commands_exist() -> None:
    """Every Option and Command of a text is one of the command line, and every RPC is one of the contracts."""
    register_commands()
    known: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        known[name] = command
        for inner, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {inner}".strip())

    walk(typer.main.get_command(app), "")
    options = {option for command in known.values() for parameter in command.params for option in parameter.opts}
    wrong = []
    for name, tree in modules():
        for kind, names in (("Option", options), ("Command", known)):
            for call in calls(tree, kind):
                if isinstance(call.args[0], ast.Constant):
                    text = str(call.args[0].value)
                    if (COMMAND_LINE.option(Option(text)) if kind == "Option" else text) not in names:
                        wrong.append(f"{name}:{call.lineno}: {text}")
    assert wrong == []
    assert RPCS.keys() <= known.keys()
    services_of = [file.DESCRIPTOR.services_by_name.values() for file in (batch_pb2, consent_pb2, dub_pb2, gateway_pb2)]
    assert {*RPCS.values()} <= {method.name for found in services_of for service in found for method in service.methods}


def test_only_doors_name_options() -> None:
    """No string below the doors has an option of the command line. Docstrings and arguments of processes may."""
    found = []
    for name, tree in modules():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            f"{name}:{node.lineno}: {node.value[:80]!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if name not in WITH_ARGUMENTS and re.search("--[a-z]", node.value)
        ]
    assert found == []


def test_messages_are_never_compared() -> None:
    """No code compares, edits or searches the message of an error: errors have kinds, fields and facts."""

    def is_message(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "message"

    found = []
    for name, tree in modules():
        for node in ast.walk(tree):
            parts: list[ast.AST] = []
            match node:
                case ast.Compare():
                    parts = [node.left, *node.comparators]
                case ast.Assign():
                    parts = list(node.targets)
                case ast.AugAssign():
                    parts = [node.target]
                case ast.Call(func=ast.Attribute(value=inner)):
                    parts = [inner]
            found += [f"{name}:{part.lineno}" for part in parts if is_message(part)]  # type: ignore[attr-defined]
    assert found == []
