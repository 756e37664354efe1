"""Renders the chart with the real helm and hands out the objects."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gateway.batch.kubernetes.jobs import JobPlan, job_of
from gateway.batch.kubernetes.settings import KEY, read_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "dubstage"
VALUES = Path(__file__).with_name("values")
HELM = Path(sys.executable).with_name("helm")
NAMESPACE = "dubbing"
STAGES = ("audio", "face", "motion", "texture", "render")
COMPONENTS = (*STAGES, "gateway")
KEEP_ARTEFACTS = {"gateway"} | {
    stage for stage in STAGES if "ArtefactStore(" in (ROOT / "services" / stage / "__main__.py").read_text(encoding="utf-8")
}
"""Components that read or write artefacts, as their own code has it."""

Object = dict[str, Any]

CASES: dict[str, tuple[str, ...]] = {
    "default": (),
    "production": ("values-production.yaml",),
    "keda": ("values-keda.yaml",),
    "gpu": ("values-gpu.yaml",),
    "gpu-mig": ("values-gpu.yaml", "values-gpu-mig.yaml"),
    "gpu-shared": ("values-gpu.yaml", "values-gpu-shared.yaml"),
    "production-gpu": ("values-production.yaml", "values-gpu.yaml"),
    "everything": ("everything.yaml",),
    "folders": ("folders.yaml",),
    "batch": ("batch.yaml",),
    "batch-gateway": ("batch.yaml", "batch-gateway.yaml"),
}
"""Values files by name: the chart's own, and those of tests/charts/values."""


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs helm, which takes less than a second."""
    result = subprocess.run([str(HELM), *arguments], capture_output=True, text=True, check=False, timeout=120)
    if check and result.returncode:
        raise AssertionError(f"helm {' '.join(arguments)}:\n{result.stderr}")
    return result


def values_of(case: str) -> Iterator[str]:
    """Helm's arguments that name the values files of a case."""
    for name in CASES[case]:
        file = CHART / name if (CHART / name).is_file() else VALUES / name
        yield from ("--values", str(file))


def template(
    *, case: str = "default", release: str = "dubstage", sets: Sequence[str] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """`helm template` of a case, with further `--set` values."""
    settings = [word for value in sets for word in ("--set", value)]
    return helm("template", release, str(CHART), "--namespace", NAMESPACE, *values_of(case), *settings, check=check)


@dataclass(frozen=True)
class Rendered:
    """Objects of one rendering."""

    objects: tuple[Object, ...]

    def of(self, kind: str) -> list[Object]:
        """Objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The object of a kind and name."""
        (found,) = [item for item in self.of(kind) if item["metadata"]["name"] == name]
        return found

    def deployment(self, component: str) -> Object:
        """The Deployment of a component."""
        (found,) = [item for item in self.of("Deployment") if label(item, "component") == component]
        return found

    def container(self, component: str, name: str = "") -> Object:
        """A container of a component; its own where no name is given."""
        containers = pod_spec(self.deployment(component))["containers"]
        (found,) = [item for item in containers if item["name"] == (name or component)]
        return dict(found)

    def environment(self, component: str) -> dict[str, Any]:
        """Variables of a component's own container; the reference instead of a value that a Secret holds."""
        variables = self.container(component)["env"]
        found = {item["name"]: item.get("value", item.get("valueFrom")) for item in variables}
        assert len(found) == len(variables), f"{component} has a variable twice"
        return found

    def pods(self) -> list[Object]:
        """Everything that has a pod specification, as (metadata, spec) of the pod."""
        found = [item["spec"]["template"] for item in (*self.of("Deployment"), *self.jobs()[:1])]
        return found + [{"metadata": item["metadata"], "spec": item["spec"]} for item in self.of("Pod")]

    def jobs(self) -> list[Object]:
        """The Jobs that `dubstage batch submit` makes of the chart's settings: one for each profile, by name."""
        found = []
        for item in self.of("ConfigMap"):
            if KEY in item["data"]:
                settings = read_settings(item["data"], item["metadata"]["name"])
                plan = JobPlan("night-1", "0" * 64, 0, 0, (0, 1, 2), 3)
                found = [job_of(plan, settings, settings.profile(name), NAMESPACE) for name in sorted(settings.profiles)]
        return found


@cache
def text_of(case: str, release: str = "dubstage", sets: tuple[str, ...] = ()) -> str:
    """Output of `helm template` for a case."""
    return template(case=case, release=release, sets=sets).stdout


@cache
def _cached(case: str, release: str, sets: tuple[str, ...]) -> tuple[Object, ...]:
    # libyaml's loader, where it is there, takes a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = yaml.load_all(text_of(case, release, sets), Loader=loader)
    return tuple(item for item in documents if item)


def render(case: str = "default", *sets: str, release: str = "dubstage") -> Rendered:
    """The objects of a case; a copy, so that a test may change them."""
    return Rendered(deepcopy(_cached(case, release, sets)))


def label(item: Object, name: str) -> str:
    """A label app.kubernetes.io/NAME."""
    return str(item["metadata"]["labels"][f"app.kubernetes.io/{name}"])


def pod_spec(deployment: Object) -> Object:
    """The pod specification of a Deployment."""
    return dict(deployment["spec"]["template"]["spec"])
