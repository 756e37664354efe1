"""The commands of docs/batch.md for farm managers, run as they stand there: an index goes in, an exit code comes out.

`openjd run` and OpenCue's client are the real ones. Small programs of this test take the places of Cuebot and of the others.
They do what the manuals say: they start the command once for each index, with the index where the farm manager puts it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import av
import pytest

from gateway.batch.types import ShotRecord
from tests.batches import open_store
from tests.contract.cuebot import running_cuebot
from tests.system.dubbing import ROOT, cut, sha256, write_wav
from tests.system.test_speech_lengths import demo_speech

DOCS = ROOT / "docs" / "batch.md"

_TOLD = """
import json, os, subprocess
def run(index, command, **more):
    code = subprocess.run(command, env={**os.environ, **more}).returncode
    with open(os.environ["FARM_LOG"], "a") as log:
        log.write(json.dumps([index, code]) + "\\n")
def numbers(text):
    first, last = text.partition("%")[0].split("-")
    return range(int(first), int(last) + 1)
"""
_SBATCH = """
import argparse, farm
options = argparse.ArgumentParser()
for name in ("--array", "--wrap", "--cpus-per-task", "--mem"):
    options.add_argument(name, required=True)
options.add_argument("--requeue", action="store_true")
given = options.parse_args()
for index in farm.numbers(given.array):  # sbatch makes a script of --wrap
    farm.run(index, ["sh", "-c", given.wrap], SLURM_ARRAY_TASK_ID=str(index))
"""
_DEADLINE = """
import argparse, shlex, farm
options = argparse.ArgumentParser()
options.add_argument("-SubmitCommandLineJob", action="store_true", required=True)
for name in ("-name", "-frames", "-executable", "-arguments"):
    options.add_argument(name, required=True)
options.add_argument("-chunksize", choices=["1"], required=True)
options.add_argument("-prop", action="append")
given = options.parse_args()
for index in farm.numbers(given.frames):
    farm.run(index, [given.executable, *shlex.split(given.arguments.replace("<STARTFRAME>", str(index)))])
"""
_RAY = """
import farm
class _Task:
    def __init__(self, function):
        self.function = function
    def remote(self, index):
        code = self.function(index)
        with open(farm.os.environ["FARM_LOG"], "a") as log:
            log.write(farm.json.dumps([index, code]) + "\\n")
        return code
def remote(*, num_cpus, max_retries, retry_exceptions):
    return _Task
def get(codes):
    return codes
"""
MODULES = {"farm.py": _TOLD, "ray.py": _RAY}
"""Python modules of farm managers, and `farm`, which the stand-ins share."""


def documented(farm: str) -> str:
    """The code block of docs/batch.md that belongs to a farm manager."""
    (block,) = re.findall(rf"^```(?:bash|python) {farm}\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


@dataclass(frozen=True)
class Farm:
    """A folder with a manifest of two shots, one good and one bad, and the programs in the places of the farm managers."""

    folder: Path

    @property
    def video(self) -> Path:
        return self.folder / "good.mkv"

    @property
    def log(self) -> Path:
        """Index and exit code of each run, which the stand-ins write."""
        return self.folder / "farm.log"

    def program(self, name: str, *command: object, modules: bool = False) -> Path:
        """Write a program of the path that replaces itself by a command."""
        paths = [ROOT, ROOT / "protos" / "gen", ROOT / "protos"] + [self.folder / "modules"] * modules
        path = self.folder / "bin" / name
        words = " ".join(f"'{word}'" for word in command)
        path.write_text(f"#!/bin/sh\nPYTHONPATH='{':'.join(map(str, paths))}' exec {words} \"$@\"\n")
        path.chmod(0o755)
        return path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "DUBSTAGE_DATA_DIR": str(self.folder / "data"),
            "FARM_LOG": str(self.log),
        }

    def run(self, farm: str, shell: Callable[[str], list[str]]) -> tuple[subprocess.CompletedProcess[str], list[list[int]]]:
        """Run the documented block of a farm manager for the two shots, and return the run, and exit codes by index."""
        block = documented(farm)
        for documented_text, here in (
            ("/srv/night.jsonl", str(self.folder / "night.jsonl")),
            ("/usr/local/bin/dubstage", str(self.folder / "bin" / "dubstage")),
            ("0-99", "0-1"),
            ("range(100)", "range(2)"),
        ):
            block = block.replace(documented_text, here)
        self.log.unlink(missing_ok=True)
        done = self.call(*shell(block))
        assert self.log.exists(), done.stderr
        return done, [json.loads(line) for line in self.log.read_text().splitlines()]

    def run_layer(self, job: ElementTree.Element) -> str:
        """Run the frames of a job of OpenCue: Cuebot replaces the token in the command, which a shell runs."""
        (layer,) = job.iter("layer")
        first, last = (layer.findtext("range") or "").split("-")
        with self.log.open("a") as log:
            for index in range(int(first), int(last) + 1):
                command = (layer.findtext("cmd") or "").replace("#IFRAME#", str(index))
                done = subprocess.run(["sh", "-c", command], env=self.environment, timeout=600, check=False)
                log.write(f"{json.dumps([index, done.returncode])}\n")
        return "myshow-dubs-root_night"

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=600, env=self.environment, check=False)

    def records(self) -> list[ShotRecord]:
        return open_store(self.folder / "data").records("night")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, carphone: Path) -> Farm:
    folder = tmp_path_factory.mktemp("farm")
    cut(carphone, folder / "good_footage.mkv", 0.0, 1.05)
    write_wav(folder / "speech.wav", demo_speech(16000, 1.0), 16000)
    (folder / "bad_footage.mkv").write_text("this is no video")
    rows = [{"defaults": {"speech": "speech.wav", "personalize": False}}] + [
        {"id": name, "footage": f"{name}_footage.mkv", "output": f"{name}.mkv"} for name in ("good", "bad")
    ]
    (folder / "night.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    farm = Farm(folder)
    (folder / "bin").mkdir()
    for name, text in MODULES.items():
        (folder / "modules" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "modules" / name).write_text(text)
    farm.program("dubstage", sys.executable, "-m", "gateway.cli")
    farm.program("farm-python", sys.executable, modules=True)
    farm.program("sbatch", sys.executable, "-c", _SBATCH, modules=True)
    farm.program("deadlinecommand", sys.executable, "-c", _DEADLINE, modules=True)
    return farm


def in_bash(block: str) -> list[str]:
    return ["bash", "-c", block]


def in_python(block: str) -> list[str]:
    return ["farm-python", "-c", block]


@pytest.mark.long
def test_open_job_description(farm: Farm) -> None:
    """`openjd run` dubs every row of a batch, and ends with an error if a row fails."""
    rows = [json.loads(line) for line in (farm.folder / "night.jsonl").read_text().splitlines()]
    twice = [rows[0], rows[1], {**rows[1], "id": "other", "output": "other.mkv"}]
    (farm.folder / "two.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in twice))
    farm.program("openjd", sys.executable, "-m", "openjd")
    block = documented("openjd").replace("/srv/night.jsonl", "two.jsonl").replace("/srv/bundle", "bundle")
    done = farm.call("bash", "-e", "-c", f"cd {farm.folder}\n{block}")
    assert done.returncode == 0, done.stdout + done.stderr
    records = open_store(farm.folder / "data").records("two")
    assert [(record.id, record.state, record.attempts) for record in records] == [("good", "done", 1), ("other", "done", 1)]
    assert sha256(farm.folder / "good.mkv") == records[0].output_sha256

    failed = farm.call("bash", "-e", "-c", f"cd {farm.folder}\n{block.replace('two.jsonl', 'night.jsonl')}")
    assert failed.returncode != 0
    assert "bad_footage.mkv" in failed.stdout
    (farm.folder / "good.mkv").unlink()


@pytest.mark.long
def test_farm_managers_get_exit_codes(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each documented farm manager gets the exit code of each index and each shot is done once."""
    done, codes = farm.run("slurm", in_bash)
    assert codes == [[0, 0], [1, 10]], done.stderr
    assert str(farm.video) in done.stdout
    assert "bad_footage.mkv" in done.stderr
    first, video = farm.records(), sha256(farm.video)
    assert [(record.state, record.attempts, record.exit_code) for record in first] == [("done", 1, 0), ("failed", 1, 10)]
    assert first[0].output_sha256 == video

    for name, shell in (("opencue", in_bash), ("deadline", in_bash), ("ray", in_python)):
        with running_cuebot(farm.run_layer) as address:
            monkeypatch.setenv("CUEBOT_HOSTS", address)
            done, codes = farm.run(name, shell)
        assert codes == [[0, 0], [1, 10]], (name, done.stderr)
        assert done.returncode == (10 if name == "ray" else 0), (name, done.stderr)
        assert farm.records() == first, f"{name}: nothing was done again"
    assert sha256(farm.video) == video

    report = farm.call("dubstage", "batch", "report", "night", str(farm.folder / "report"))
    assert report.returncode == 0, report.stderr
    good, bad = json.loads((farm.folder / "report" / "shots.json").read_text())["shots"]
    assert (good["state"], good["frames"], bad["state"], bad["exit_code"]) == ("done", 32, "failed", 10)
    with av.open(str(farm.folder / "report" / good["thumbnail"])) as picture:
        (frame,) = picture.decode(video=0)
    assert (frame.width, frame.height) == (176, 144)
