import sys
from functools import cache
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from charts.images.requirements import requirements
from tests.charts.images.dockerfile import ROOT, SERVICES, TABLE, read_services
from tests.unit.architecture.module_graph import imported_names

# Imported only where somebody brings it along or asks for it, with an error that says what is missing.
ON_DEMAND = {
    # The plug-in of the asset manager is installed with them.
    "gateway.batch.assets": {"openassetio", "openassetio_mediacreation"},
    # No image has OpenCue's packages: they bring compilers of contracts.
    "gateway.studio.opencue_job": {"opencue", "outline"},
    "research.evaluation.perceptual": {"torch"},
    "services.common.geometry.rasterise_pytorch3d": {"torch", "pytorch3d"},
}
OURS = {"services", "gateway", "dubstage"}


@cache
def installed(service: str) -> frozenset[str]:
    """Names of all distributions in a service's image."""
    row = read_services()[service]
    waiting = [*requirements(row.extras), "dubstage"]
    found = {canonicalize_name(Requirement(line).name) for line in row.without}
    while waiting:
        wanted = Requirement(waiting.pop())
        environments = [{"extra": extra} for extra in (wanted.extras or {""})]
        if wanted.marker is not None and not any(wanted.marker.evaluate(one) for one in environments):
            continue
        name = canonicalize_name(wanted.name)
        if name in found and not wanted.extras:
            continue
        found.add(name)
        for line in requires(name) or []:
            further = Requirement(line)
            if further.marker is None or any(further.marker.evaluate(one) for one in environments):
                waiting.append(f"{further.name}[{','.join(further.extras)}]" if further.extras else further.name)
    return frozenset(found)


def reachable(module: str) -> set[str]:
    """Third-party packages that a module imports, directly or through our own modules, anywhere in their text."""
    waiting, seen, foreign = [module], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.split(".")[0]
        if top not in OURS:
            foreign.add(name)
            continue
        place = ROOT / name.replace(".", "/")
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                waiting += (
                    one for one in imported_names(path) if one.split(".")[0] not in ON_DEMAND.get(name, ()) and not is_export(one)
                )
    return {name for name in foreign if name.split(".")[0] not in sys.stdlib_module_names}


def is_export(name: str) -> bool:
    """Whether a module of ours, or a name in one, belongs to an export: a room names its export, and no server runs one."""
    parts = name.split(".")
    return parts[0] in OURS and "export" in parts


def entrances(service: str) -> list[str]:
    """The server, and where the gateway is the command line as well."""
    if service == "suite":
        return [entrance for one in SERVICES for entrance in entrances(one)]
    if service != "gateway":
        return [f"services.{service}.__main__"]
    return ["gateway.__main__", *(f"gateway.cli.{path.stem}" for path in (ROOT / "gateway" / "cli").glob("*.py"))]


@pytest.mark.parametrize("service", TABLE)
def test_an_image_has_what_its_service_imports(service: str) -> None:
    distributions = packages_distributions()
    present = installed(service)
    wanted = {name.split(".")[0] for entrance in entrances(service) for name in reachable(entrance)}
    missing = {name for name in wanted if not present & {canonicalize_name(one) for one in distributions.get(name, [name])}}
    assert missing == set()


def test_an_image_has_nothing_of_another_service() -> None:
    heavy = {
        "torch": {"render"},
        "openvino": {"render"},
        "tritonclient": {"render"},
        "mediapipe": {"face"},
        "matplotlib": {"face", "gateway"},
        "av": {"gateway"},
        "pocketsphinx": {"gateway"},
        "sqlalchemy": {"gateway"},
        "onnxruntime": {"audio", "face", "motion", "texture", "render"},
        "librosa": {"audio"},
    }
    assert {name: {service for service in SERVICES if name in installed(service)} for name in heavy} == heavy


@pytest.mark.parametrize("service", TABLE)
def test_no_image_has_tools_of_tests_or_training(service: str) -> None:
    assert not installed(service) & {"pytest", "mypy", "ruff", "onnx", "grpcio-tools", "boto3", "moto"}


def test_extras_become_requirements() -> None:
    """An unknown extra is refused by name, and the project's own distributions are left out."""
    with pytest.raises(SystemExit, match=r"'rendr'.*render"):
        requirements(["rendr"])
    assert not [line for line in requirements(["audio"]) if line.startswith("dubstage")]
