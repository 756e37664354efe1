"""Tests of how `charts/play` changes the chart's output; the run itself needs podman and the images (docs/images.md)."""

import shutil
from pathlib import Path

import av
import pytest
import yaml

from charts.play.__main__ import KEY, SECRET, TRITON_VALUES, VALUES, _beside_python
from charts.play.__main__ import main as play_main
from charts.play.pods import PLAYED, PORTS, STEP, Document, Podman, playable, probes, render_chart, servers
from charts.play.videos import CHECKOUT, MANIFEST, write_shots
from gateway.batch.manifest import lines_at, shots_by_line
from gateway.cli.demo import SPEECH
from services.common.methods import DEFAULT_METHOD
from tests.charts.images.dockerfile import SERVICE, SERVICES, read
from tests.integration.videos import write_short_clip

SECOND = "play-dubstage-gateway-2"
SETTINGS = ["global.artefacts.volume.hostPath=/a", "gateway.data.hostPath=/d", "gateway.media.hostPath=/m"]


@pytest.fixture(scope="module", params=["cpu", "triton"])
def rendered(request: pytest.FixtureRequest) -> list[Document]:
    values = [VALUES, *([TRITON_VALUES] if request.param == "triton" else [])]
    return render_chart(_beside_python("helm"), CHECKOUT / "charts" / "dubstage", values, SETTINGS, "play")


def pods(documents: list[Document]) -> dict[str, Document]:
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment"}


def variables(pod: Document) -> dict[str, str]:
    """Return the environment of the first container; a variable that stands twice has its last value."""
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


def test_every_service_played_from_image(rendered: list[Document], tmp_path: Path) -> None:
    result = playable(rendered, tmp_path)
    assert {f"play-dubstage-{service}" for service in SERVICES} | {SECOND} == pods(result.documents).keys()
    for name, pod in pods(result.documents).items():
        service = name.removeprefix("play-dubstage-").removesuffix("-2")
        assert pod["containers"][0]["image"].startswith(f"dubstage/{service}:")
    replicas = sum(one["spec"]["replicas"] - 1 for one in rendered if one["kind"] == "Deployment")
    assert len(result.documents) + sum(map(len, result.skipped.values())) == len(rendered) + replicas
    assert not set(result.skipped) & set(PLAYED)
    assert {"Service", "ServiceAccount"} <= set(result.skipped)


def test_pods_of_a_play(rendered: list[Document], tmp_path: Path) -> None:
    """No empty volume is left, each has a folder and each mount a volume, and memory has no limit only on request."""
    result = playable(rendered, tmp_path)
    assert "emptyDir" not in yaml.safe_dump_all(result.documents)
    paths = {volume["hostPath"]["path"] for pod in pods(result.documents).values() for volume in pod["volumes"]}
    assert {str(folder) for folder in result.folders} == paths - {"/a", "/d", "/m"}
    assert all(tmp_path in folder.parents for folder in result.folders)
    for pod in pods(playable(rendered, tmp_path).documents).values():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "/dev/shm" not in {mount["mountPath"] for mount in container["volumeMounts"]}
    limited = [one["resources"] for pod in pods(playable(rendered, tmp_path).documents).values() for one in pod["containers"]]
    assert all({"cpu", "memory"} == one["limits"].keys() == one["requests"].keys() for one in limited)
    free = playable(rendered, tmp_path, limit_memory=False)
    assert all(one["resources"]["limits"].keys() == {"cpu"} for pod in pods(free.documents).values() for one in pod["containers"])
    assert any("memory" in change for change in free.changes)


def test_play_changes_only_local_values(rendered: list[Document], tmp_path: Path) -> None:
    """Only volumes, ports, replicas and the namespace are changed."""

    def without_those(documents: list[Document]) -> list[Document]:
        kept = yaml.safe_load(yaml.safe_dump([one for one in documents if one["kind"] in PLAYED]))
        for one in kept:
            one["metadata"].pop("namespace", None)
            if one["kind"] == "Deployment":
                del one["spec"]["replicas"]
                pod = one["spec"]["template"]["spec"]
                del pod["volumes"]
                for container in pod["containers"]:
                    container.pop("ports", None)
                    mounts = container["volumeMounts"]
                    container["volumeMounts"] = [mount for mount in mounts if mount["mountPath"] != "/dev/shm"]
        return list(kept)

    played = without_those(playable(rendered, tmp_path).documents)
    (second,) = (one for one in played if one["metadata"]["name"] == SECOND)
    played.remove(second)
    assert played == without_those(rendered)
    second["metadata"]["name"] = SECOND.removesuffix("-2")
    for variable in second["spec"]["template"]["spec"]["containers"][0]["env"]:
        if variable["name"] in PORTS:
            variable["value"] = str(int(variable["value"]) - STEP)
    assert second in played


def test_second_gateway_has_own_ports(rendered: list[Document], tmp_path: Path) -> None:
    """The second gateway has ports and a temporary folder of its own."""
    result = playable(rendered, tmp_path)
    (first, second) = servers(result.documents, "gateway")
    assert (first.address, second.address) == ("127.0.0.1:50050", "127.0.0.1:50150")
    found = {name: variables(pod) for name, pod in pods(result.documents).items()}
    ports = [environment[name] for environment in found.values() for name in PORTS if name in environment]
    assert len(ports) == 2 * len(found) == len(set(ports))
    assert found[second.deployment]["DUBSTAGE_METRICS_PORT"] == "9190"
    folders = {
        name: {volume["name"]: volume["hostPath"]["path"] for volume in pods(result.documents)[name]["volumes"]}
        for name in (first.deployment, second.deployment)
    }
    assert {name for name, path in folders[first.deployment].items() if folders[second.deployment][name] != path} == {"tmp"}
    (said,) = (change for change in result.changes if "replica" in change)
    assert SECOND in said
    assert "DUBSTAGE_PORT=50150, DUBSTAGE_METRICS_PORT=9190" in said


def test_gateways_share_what_a_take_over_needs(rendered: list[Document], tmp_path: Path) -> None:
    gateways = [pod for name, pod in pods(playable(rendered, tmp_path).documents).items() if "gateway" in name]
    for pod in gateways:
        (database,) = (one for one in pod["containers"][0]["env"] if one["name"] == "DUBSTAGE_DATABASE_URL")
        assert database["valueFrom"]["secretKeyRef"] == {"name": SECRET, "key": "url"}
        environment, mounts = variables(pod), [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
        for place in ("DUBSTAGE_DATA_DIR", "DUBSTAGE_MEDIA_DIR"):
            assert any(environment[place].startswith(mount) for mount in mounts)
        assert f"{environment['DUBSTAGE_DATA_DIR']}/provenance.pem" == KEY
    assert len(gateways) == 2


def test_playable_values(rendered: list[Document]) -> None:
    """No two servers share a port, and a watermark that names the backend is left out where backends are compared."""
    (pod,) = (pod for name, pod in pods(rendered).items() if "gateway" in name)
    triton = any(one["name"] == "triton" for spec in pods(rendered).values() for one in spec["containers"])
    assert variables(pod).get("DUBSTAGE_WATERMARK", "true") == ("false" if triton else "true")
    ports = [port["containerPort"] for pod in pods(rendered).values() for one in pod["containers"] for port in one["ports"]]
    assert len(ports) == len(set(ports))


def test_replicas_whose_ports_cannot_be_moved_are_refused(rendered: list[Document], tmp_path: Path) -> None:
    (deployment,) = (one for one in rendered if one["kind"] == "Deployment" and one["spec"]["replicas"] > 1)
    document = yaml.safe_load(yaml.safe_dump(deployment))
    sidecar = {"name": "proxy", "image": "proxy", "ports": [{"containerPort": 8080}], "resources": {}, "volumeMounts": []}
    document["spec"]["template"]["spec"]["containers"].append(sidecar)
    with pytest.raises(ValueError, match=r"play-dubstage-gateway-2/proxy: the replicas would share a port"):
        playable([document], tmp_path)
    document["spec"]["replicas"] = 1
    assert len(playable([document], tmp_path).documents) == 1


def test_shots_and_manifest_of_footage(carphone: Path, tmp_path: Path) -> None:
    """Shots are parts of the footage and their manifest serves gateways and the command."""
    shutil.copyfile(SPEECH, tmp_path / "speech.wav")
    videos = write_shots(carphone, tmp_path / "speech.wav", 3, DEFAULT_METHOD, tmp_path)
    shots, mistakes = shots_by_line((tmp_path / MANIFEST).read_bytes(), shown_name=MANIFEST, read=lines_at)
    assert mistakes == []
    assert [shot.output for shot in shots.values()] == videos
    assert {(shot.dub.speech_uri, shot.dub.method, shot.dub.skip_personalization) for shot in shots.values()} == {
        ("speech.wav", DEFAULT_METHOD, True)
    }
    pictures = []
    for shot in shots.values():
        with av.open(str(tmp_path / shot.dub.footage_uri)) as video:
            frames = [frame.to_ndarray(format="gray").astype(float) for frame in video.decode(video=0)]
            assert len(frames) in (89, 90)
            pictures.append(frames[0])
    with av.open(str(carphone)) as video:
        whole = [frame.to_ndarray(format="gray").astype(float) for frame in video.decode(video=0)]
    nearest = [min(range(len(whole)), key=lambda number: abs(whole[number] - picture).mean()) for picture in pictures]
    assert nearest == [0, 16, 31]


def test_too_short_footage_refused(carphone: Path, tmp_path: Path) -> None:
    write_short_clip(carphone, tmp_path / "short.mp4", 25)
    with pytest.raises(ValueError, match=r"short\.mp4 is 1\.0 s long, and a shot has 3 s: give longer footage"):
        write_shots(tmp_path / "short.mp4", SPEECH, 3, DEFAULT_METHOD, tmp_path)


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


@pytest.fixture
def pods_of_podman(tmp_path: Path) -> Path:
    """A folder with a file for each pod, beside a program `podman` that lists and removes them and then complains of a cgroup."""
    folder = tmp_path / "pods"
    folder.mkdir()
    for pod in ("play-audio-pod-0", "play-gateway-pod", "play-audio2-pod-0", "another"):
        (folder / pod).touch()
    program = tmp_path / "podman"
    program.write_text(
        f"""#!/bin/sh
cd {folder}
case "$1 $2" in
    "pod ps") ls ;;
    "pod rm") shift 3; rm "$@"; echo "conmon cgroup: directory not empty" >&2; exit 1 ;;
esac
""",
        encoding="utf-8",
    )
    program.chmod(0o755)
    return folder


def test_leftover_pods_are_removed(pods_of_podman: Path) -> None:
    """Pods of a play that gave up half way are removed and no others."""
    Podman(str(pods_of_podman.with_name("podman"))).down(["play-audio", "play-gateway", "play-motion"])
    assert sorted(pod.name for pod in pods_of_podman.iterdir()) == ["another", "play-audio2-pod-0"]


def test_stubborn_pod_shows_podman_error(pods_of_podman: Path) -> None:
    """A pod that stays is reported in the words of Podman."""
    program = pods_of_podman.with_name("podman")
    program.write_text(program.read_text(encoding="utf-8").replace('rm "$@";', ""), encoding="utf-8")
    with pytest.raises(RuntimeError, match="directory not empty"):
        Podman(str(program)).down(["play-audio"])


def test_missing_podman_empties_nothing(tmp_path, monkeypatch, capsys) -> None:
    """A Podman that is not installed is named and no folder is emptied."""
    kept = tmp_path / "log.txt"
    kept.write_text("an earlier run")
    monkeypatch.setattr("sys.argv", ["play", "--podman", "no-such-podman", "--output", str(tmp_path), "--footage", __file__])
    assert play_main() == 10
    assert "'no-such-podman' is not installed" in capsys.readouterr().err
    assert kept.read_text() == "an earlier run"
