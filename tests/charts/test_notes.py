"""Tests of the notes of `helm install`: names that exist, and a script that Python takes."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

from dubstage.client import gateway
from dubstage.client.dub import DubOptions
from dubstage.gateway.v1 import consent_pb2
from tests.charts.rendering import CHART, NAMESPACE, helm, render, values_of

COMMAND = re.compile(r" *(POD=|kubectl |helm |export |dubstage batch)")
"""Begin of a block of shell commands. A block ends at an empty line."""
RECORD_CALLS = """
kubectl() { :; }; helm() { :; }; dubstage() { :; }
python() { cat > "$SCRIPT"; }
"""
"""Functions of a shell in place of the commands of the notes; `python` keeps its script."""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The notes by case. Helm shows notes of real installs only, so a copy of the chart has them in an object."""
    chart = tmp_path_factory.mktemp("chart") / "dubstage"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{- define "notes" }}}}{text}{{{{- end }}}}\nkind: Notes\ntext: |\n{{{{ include "notes" . | indent 2 }}}}\n',
        encoding="utf-8",
    )
    cases = {case: tuple(values_of(case)) for case in ("default", "production", "folders", "batch", "batch-gateway", "everything")}
    cases["tokens in plain text"] = ("--set", "gateway.tokensSecret.name=tokens")
    found = {}
    for case, given in cases.items():
        only = ("--show-only", "templates/notes.yaml")
        result = helm("template", "dubstage", str(chart), "--namespace", NAMESPACE, *given, *only)
        found[case] = str(yaml.safe_load(result.stdout)["text"])
    return found


def test_blocks_can_be_pasted(notes: dict[str, str], tmp_path: Path) -> None:
    """A shell takes each block as it stands, and Python gets a whole script."""
    for case, text in notes.items():
        blocks = [block for block in text.split("\n\n") if COMMAND.match(block.lstrip("\n"))]
        assert len(blocks) >= 3 or case == "batch", case
        for block in blocks:
            parsed = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
            assert (parsed.returncode, parsed.stderr) == (0, ""), (case, block)
        scripts = [block for block in blocks if "<<" in block]
        for block in scripts:
            script = tmp_path / "script.py"
            shell = ["bash", "-c", f"{RECORD_CALLS}\n{block}"]
            done = subprocess.run(shell, env={**os.environ, "SCRIPT": str(script)}, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), (case, block)
            called = {node.attr for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Attribute)}
            assert called >= {"dub", "wait"}
    assert "<<'PYTHON'" in notes["default"]


def test_pages_that_values_name_exist() -> None:
    """Each page that a comment of the values names exists, and the page of the alerts explains each alert."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    pages = set(re.findall(r"\bdocs/[\w./-]+\.md", text))
    assert pages
    assert all((CHART.parents[1] / page).is_file() for page in pages)
    (page,) = re.findall(r"(docs/\S+\.md)[^.\n]* explains each alert", text)
    alerts = re.findall(r"- alert: (\w+)", (CHART / "templates" / "prometheusrule.yaml").read_text(encoding="utf-8"))
    assert len(alerts) > 3
    explained = (CHART.parents[1] / page).read_text(encoding="utf-8")
    assert all(f"| `{alert}` |" in explained for alert in alerts)


def test_dub_script_matches_client(notes: dict[str, str]) -> None:
    """The script that dubs a clip is Python and calls what the client has."""
    for text in notes.values():
        lines = text.split("<<'PYTHON'")[1].split("PYTHON\n")[0].split("\n", 1)[1]
        tree = ast.parse(textwrap.dedent(lines))
        assert {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} >= {"dub", "wait"}
        known = {
            "dub": set(inspect.signature(gateway.dub.request).parameters) | set(DubOptions.__annotations__),
            "dict": set(consent_pb2.ConsentRecord.DESCRIPTOR.fields_by_name),
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert {keyword.arg for keyword in node.keywords} <= known.get(name, {"tls", "token", "ca", "certificate", "key"})


@pytest.mark.parametrize("case", ["default", "production"])
def test_what_the_notes_name_is_in_the_release(notes: dict[str, str], case: str) -> None:
    rendered = render(case)
    names = {(item["kind"].lower(), item["metadata"]["name"]) for item in rendered.objects}
    for kind, name in re.findall(r"\b(deployment|service)/([a-z-]+)", notes[case]):
        assert (kind, name) in names
    assert f"--namespace {NAMESPACE}" in notes[case]


def test_notes_fit_the_values(notes: dict[str, str]) -> None:
    """The notes say what is not protected, the settings of batches, the credentials that the gateway asks for, and who may call."""
    assert "plain text; global.tls.enabled changes that" in notes["default"]
    assert "plain text; global.tls.enabled changes that" not in notes["production"]
    assert "Network policies are off" in notes["folders"]
    assert "ReadWriteOnce" in notes["default"]
    assert "ReadWriteOnce" not in notes["production"]
    assert "consent=" in notes["default"]
    (name,) = re.findall(r"--config-map (\S+)", notes["batch"])
    assert render("batch").one("ConfigMap", name)
    assert "export DUBSTAGE_DATABASE_URL=" in notes["batch"]
    assert "batch submit" not in notes["default"]
    assert "The gateway can create Jobs in namespace dubbing" in notes["batch-gateway"]
    assert "create Jobs" not in notes["batch"]
    assert 'TlsFiles(ca=Path("ca.crt"), certificate=Path("tls.crt"), key=Path("tls.key"))' in notes["everything"]
    assert 'TlsFiles(ca=Path("ca.crt"))' in notes["production"]
    assert 'tls=tls, token="..."' in notes["production"]
    assert 'connect("localhost:50050", token="...")' in notes["tokens in plain text"]
    assert 'connect("localhost:50050")' in notes["default"]
    warning = "Only pods of namespace dubbing may call the gateway"
    assert warning in notes["everything"]
    assert not any(warning in notes[case] for case in ("default", "production", "folders"))
