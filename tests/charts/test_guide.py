"""The commands of the guide name what the release and the command line have."""

import json
import re
import shlex
from typing import Any

import kubernetes_validate
import pytest
import typer.main

from gateway.cli.app import app, register_commands
from tests.charts.rendering import CASES, ROOT, Object, render

GUIDES = (
    "kubernetes.md",
    "troubleshooting.md",
    "operations/start.md",
    "operations/storage.md",
    "operations/people.md",
    "operations/load.md",
    "operations/backup.md",
    "quickstart.md",
    "consent.md",
)


def guide(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def patched(item: Object, patch: list[Object]) -> Object:
    """Apply a JSON patch of additions to maps and of removals."""
    for step in patch:
        *path, last = step["path"].strip("/").split("/")
        target = item
        for part in path:
            target = target[int(part) if isinstance(target, list) else part]
        if step["op"] == "remove":
            del target[last]
        else:
            target[last] = step["value"]
    return item


@pytest.mark.parametrize("case", CASES)
def test_a_gateway_sleeps_while_a_backup_is_restored(case: str) -> None:
    (patch,) = re.findall(r"--patch '(\[.*?\])'", guide("kubernetes.md"), re.DOTALL)
    deployment = patched(render(case).deployment("gateway"), json.loads(patch))
    kubernetes_validate.validate(deployment, "1.33", strict=True)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["name"] == "gateway"
    assert container["command"] == ["sleep", "infinity"]
    assert not [key for key in container if key.endswith("Probe")]


@pytest.mark.parametrize("name", GUIDES)
def test_guide_commands_exist(name: str) -> None:
    register_commands()
    root: Any = typer.main.get_command(app)
    lines = [line.split("#")[0] for line in guide(name).splitlines() if line.startswith("    ")]
    found = [line.partition("dubstage ")[2] for line in lines if re.search(r"(^    |-- |-- env \S+ )dubstage [a-z]", line)]
    assert found
    for words in map(shlex.split, found):
        command = root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"{name}: dubstage ... {words}"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.strip("[]").split("=")[0] for word in words if word.strip("[").startswith("-")}
        assert asked <= known, f"{name}: {command.name}"
