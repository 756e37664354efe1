"""A policy scanner reads every rendering; what it finds and we keep is in charts/policy-exceptions.yaml with its reason."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.charts.rendering import ROOT, text_of

# The scanner needs about ten seconds of two cores.
pytestmark = pytest.mark.long

EXCEPTIONS = ROOT / "charts" / "policy-exceptions.yaml"
SCANNED = ("default", "production", "keda", "production-gpu", "everything", "batch", "batch-gateway")
"""`folders` is for `podman kube play`: it has no network policies, and pods share the host's network. MIG slices and shares differ
from a whole GPU in one word."""
UNSAFE = "unsafe"
"""Namespace of a rendering that was made worse, to see that the scanner sees it."""


class Finding(NamedTuple):
    """A check that failed."""

    check: str
    resource: str
    """Kind.namespace.name"""
    title: str

    def is_kept_by(self, entry: dict[str, str]) -> bool:
        """Whether an exception is about it."""
        return entry["check"] == self.check and re.fullmatch(entry["objects"], self.resource) is not None


def scanner() -> Path:
    """The scanner, in an environment of its own, since it pins boto3."""
    path = Path(os.environ.get("DUBSTAGE_CHECKOV") or ROOT / ".checkov" / "bin" / "checkov")
    if not path.is_file():
        pytest.skip("checkov is missing: make setup-dev")
    return path


def scan(folder: Path) -> dict[str, Any]:
    """The scanner's report on a folder of manifests."""
    command = [str(scanner()), "--directory", str(folder), "--framework", "kubernetes", "--skip-download", "--compact", "--quiet"]
    result = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, check=False)
    assert result.stdout.startswith("{"), result.stderr[-2000:]
    return dict(json.loads(result.stdout))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """Failed checks of all renderings, read in one run, for its start takes seconds."""
    folder = tmp_path_factory.mktemp("manifests")
    for case in SCANNED:
        (folder / f"{case}.yaml").write_text(text_of(case), encoding="utf-8")
    worse = text_of("default").replace("runAsNonRoot: true", "runAsNonRoot: false").replace("runAsUser: 65532", "runAsUser: 0")
    (folder / "unsafe.yaml").write_text(worse.replace("namespace: dubbing", f"namespace: {UNSAFE}"), encoding="utf-8")
    report = scan(folder)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    return [Finding(item["check_id"], item["resource"], item["check_name"]) for item in report["results"]["failed_checks"]]


@pytest.fixture
def findings(everything: list[Finding]) -> list[Finding]:
    """Failed checks of the renderings that are really installed."""
    return [finding for finding in everything if f".{UNSAFE}." not in finding.resource]


def exceptions() -> list[dict[str, str]]:
    return list(yaml.safe_load(EXCEPTIONS.read_text(encoding="utf-8")))


def test_findings_are_the_justified_ones(findings: list[Finding]) -> None:
    """The scanner finds nothing but what is justified, and every exception is still needed."""
    unjustified = {finding for finding in findings if not any(finding.is_kept_by(entry) for entry in exceptions())}
    assert not unjustified
    for entry in exceptions():
        assert any(finding.is_kept_by(entry) for finding in findings), entry["check"]
        assert len(entry["reason"].split()) > 10


def test_scanner_detects_root_pod(everything: list[Finding]) -> None:
    """The scanner would see a pod that runs as root."""
    assert {"CKV_K8S_23", "CKV_K8S_40"} <= {finding.check for finding in everything if f".{UNSAFE}." in finding.resource}
