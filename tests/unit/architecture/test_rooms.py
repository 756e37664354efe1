"""A method has one room in each stage. Packages lie in layers: arrows run down, and none runs in a circle."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.methods import METHODS
from tests.unit.architecture.module_graph import ROOT, STAGES, circles, imports, modules, package, reached, route

ROOMS = ("services.motion.predictors", "services.render.renderers", "research.methods")
REGISTRIES = tuple(f"{rooms}.registry" for rooms in ROOMS)
MAY_NAME_METHODS = ("gateway/methods.py", "services/motion/predictors/", "services/render/renderers/", "research/methods/")
GATEWAY_LAYERS = (
    ("gateway.safe_paths",),
    (
        "gateway.async_utilities",
        "gateway.child_process",
        "gateway.consent",
        "gateway.methods",
        "gateway.private_files",
        "gateway.settings",
        "gateway.crash_report",
    ),
    ("gateway.media", "gateway.planning", "gateway.signatures"),
    ("gateway.compositing", "gateway.provenance"),
    ("gateway.stages",),
    ("gateway.dub",),
    ("gateway.database",),
    ("gateway.audit",),
    ("gateway.operations",),
    ("gateway.actors", "gateway.tenants"),
    ("gateway.backup", "gateway.housekeeping", "gateway.live"),
    ("gateway.reports",),
    ("gateway.batch",),
    ("gateway.api",),
    ("gateway.cli",),
    ("gateway.__main__",),
)
"""From the ground up. Packages of one layer do not import each other."""
CODE = (".py", ".pyi", ".proto", ".sh", ".tpl", ".yaml")


def room(name: str) -> str | None:
    """Return the room that a module lies in, such as services.motion.predictors.x, or None."""
    for rooms in ROOMS:
        parts = name.removeprefix(f"{rooms}.").split(".")
        if name.startswith(f"{rooms}.") and f"{rooms}.{parts[0]}" not in REGISTRIES:
            return f"{rooms}.{parts[0]}"
    return None


def is_training(name: str) -> bool:
    return "train" in name.split(".") or name.startswith(("research.training", "research"))


def is_export(name: str) -> bool:
    return name.rpartition(".")[2] == "export"


def test_a_method_never_imports_another_method() -> None:
    def method(name: str) -> str:
        return (room(name) or "").rpartition(".")[2]

    wrong = [
        f"{name} -> {other}"
        for name in modules()
        if method(name)
        for other in imports(name)
        if method(other) not in ("", method(name))
    ]
    assert wrong == []


def test_what_methods_share_imports_no_room() -> None:
    wrong = [
        f"{name} -> {other}"
        for name in modules()
        if room(name) is None and name not in REGISTRIES
        for other in imports(name)
        if room(other)
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_serving_never_reaches_training_or_export(stage: str) -> None:
    found = reached([f"services.{stage}.__main__"], inside_functions=False)
    assert [route(found, name) for name in found if is_training(name) or is_export(name)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_serving_modules_never_import_training_code_inside_functions_either(stage: str) -> None:
    serving = [
        name for name in modules() if name.startswith(f"services.{stage}.") and not is_training(name) and not is_export(name)
    ]
    assert [f"{name} -> {other}" for name in serving for other in imports(name) if is_training(other)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({name: imports(name) for name in modules()}) == []


def test_no_packages_of_the_gateway_import_each_other_in_a_circle() -> None:
    arrows: defaultdict[str, set[str]] = defaultdict(set)
    for name in modules():
        if name.startswith("gateway."):
            arrows[layer_name(name)] |= {layer_name(other) for other in imports(name) if other.startswith("gateway.")}
    assert circles({node: others - {node} for node, others in arrows.items()}) == []


def layer_name(name: str) -> str:
    """Return the name under which a module of the gateway stands in GATEWAY_LAYERS."""
    return ".".join(name.split(".")[:2])


def test_arrows_of_the_gateway_run_down() -> None:
    height = {name: floor for floor, names in enumerate(GATEWAY_LAYERS) for name in names}
    ours = [name for name in modules() if name.startswith("gateway.") and package(name) != name]
    assert {layer_name(name) for name in ours} <= set(height)
    wrong = [
        f"{name} -> {other}"
        for name in ours
        for other in imports(name)
        if other.startswith("gateway.")
        and layer_name(other) != layer_name(name)
        and height[layer_name(other)] >= height[layer_name(name)]
    ]
    assert wrong == []


def test_methods_are_named_in_rooms_and_tables_alone() -> None:
    """Code and comments count; names of files and folders in strings count too."""
    word = re.compile(r"\b(" + "|".join(METHODS) + r")\b")
    wrong = []
    others = [path for folder in ("charts", "images", "protos/dubstage", "scripts") for path in sorted((ROOT / folder).rglob("*"))]
    for path in (*modules().values(), ROOT / "Makefile", *(path for path in others if path.suffix in CODE)):
        where = str(path.relative_to(ROOT))
        if where.startswith(MAY_NAME_METHODS):
            continue
        wrong += [f"{where}:{line}: {text}" for line, text in _lines(path) if word.search(text)]
    assert wrong == []


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file with their numbers."""
    return list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
