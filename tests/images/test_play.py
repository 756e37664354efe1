"""What `scripts/play` makes of the chart's output; the run itself needs podman and the images (docs/images.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scripts.play.__main__ import CHECKOUT, TRITON_VALUES, VALUES, _beside_python
from scripts.play.manifests import PLAYED, Document, playable, probes, render_chart
from tests.images.dockerfile import SERVICE, SERVICES, read

SETTINGS = ["global.artefacts.volume.hostPath=/a", "gateway.data.hostPath=/d", "gateway.media.hostPath=/m"]


@pytest.fixture(scope="module", params=["cpu", "triton"])
def rendered(request: pytest.FixtureRequest) -> list[Document]:
    values = [VALUES, *([TRITON_VALUES] if request.param == "triton" else [])]
    return render_chart(_beside_python("helm"), CHECKOUT / "charts" / "dubstage", values, SETTINGS, "play")


def pods(documents: list[Document]) -> dict[str, Document]:
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment"}


def test_every_service_is_played_from_its_own_image_and_nothing_is_lost(rendered: list[Document], tmp_path: Path) -> None:
    result = playable(rendered, tmp_path)
    assert {f"play-dubstage-{service}" for service in SERVICES} == pods(result.documents).keys()
    for name, pod in pods(result.documents).items():
        assert pod["containers"][0]["image"].startswith(f"dubstage/{name.removeprefix('play-dubstage-')}:")
    assert len(result.documents) + sum(map(len, result.skipped.values())) == len(rendered)
    assert not set(result.skipped) & set(PLAYED)
    assert {"Service", "ServiceAccount"} <= set(result.skipped)


def test_no_empty_volume_is_left_and_each_has_a_folder(rendered: list[Document], tmp_path: Path) -> None:
    result = playable(rendered, tmp_path)
    assert "emptyDir" not in yaml.safe_dump_all(result.documents)
    paths = {volume["hostPath"]["path"] for pod in pods(result.documents).values() for volume in pod["volumes"]}
    assert {str(folder) for folder in result.folders} == paths - {"/a", "/d", "/m"}
    assert all(tmp_path in folder.parents for folder in result.folders)


def test_every_mount_has_its_volume(rendered: list[Document], tmp_path: Path) -> None:
    for pod in pods(playable(rendered, tmp_path).documents).values():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "/dev/shm" not in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_only_volumes_ports_and_the_namespace_are_changed(rendered: list[Document], tmp_path: Path) -> None:
    def without_those(documents: list[Document]) -> list[Document]:
        kept = yaml.safe_load(yaml.safe_dump([one for one in documents if one["kind"] in PLAYED]))
        for one in kept:
            one["metadata"].pop("namespace", None)
            if one["kind"] == "Deployment":
                pod = one["spec"]["template"]["spec"]
                del pod["volumes"]
                for container in pod["containers"]:
                    container.pop("ports", None)
                    mounts = container["volumeMounts"]
                    container["volumeMounts"] = [mount for mount in mounts if mount["mountPath"] != "/dev/shm"]
        return list(kept)

    assert without_those(playable(rendered, tmp_path).documents) == without_those(rendered)


def test_memory_is_left_unlimited_only_where_that_is_asked_for(rendered: list[Document], tmp_path: Path) -> None:
    limited = [one["resources"] for pod in pods(playable(rendered, tmp_path).documents).values() for one in pod["containers"]]
    assert all({"cpu", "memory"} == one["limits"].keys() == one["requests"].keys() for one in limited)
    free = playable(rendered, tmp_path, limit_memory=False)
    assert all(one["resources"]["limits"].keys() == {"cpu"} for pod in pods(free.documents).values() for one in pod["containers"])
    assert any("memory" in change for change in free.changes)


def test_no_two_servers_share_a_port(rendered: list[Document]) -> None:
    ports = [port["containerPort"] for pod in pods(rendered).values() for one in pod["containers"] for port in one["ports"]]
    assert len(ports) == len(set(ports))


def test_the_probes_are_the_images_own_health_check(rendered: list[Document]) -> None:
    found = [probe for probe in probes(rendered) if probe.container != "triton"]
    assert {(probe.container, probe.kind) for probe in found} == {
        (service, kind) for service in SERVICES for kind in ("startup", "readiness", "liveness")
    }
    for probe in found:
        (check,) = read(SERVICE).final.all("HEALTHCHECK")
        assert list(probe.command[:3]) == yaml.safe_load(check[check.index("[") :])
        assert probe.command[3:] == (("--service=liveness",) if probe.kind == "liveness" else ())


def test_a_probe_that_podman_cannot_run_is_refused(rendered: list[Document]) -> None:
    document = yaml.safe_load(yaml.safe_dump(next(one for one in rendered if one["kind"] == "Deployment")))
    document["spec"]["template"]["spec"]["containers"][0]["startupProbe"] = {"grpc": {"port": 1}}
    with pytest.raises(ValueError, match="startup probe is no command"):
        probes([document])
    del document["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    with pytest.raises(ValueError, match="no startup probe"):
        probes([document])
