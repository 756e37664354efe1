"""The command line in the installation of the README: packages that only other extras have are not there."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services.common.errors import InvalidRequestError

ROOT = Path(__file__).parents[3]
EXTRAS = ("audio", "face", "motion", "texture", "render", "gateway")
"""Extras of `make setup` (Makefile, RUNTIME)."""
SEPARATE = ("dubstage", "dubstage-suite", "mediapipe", "scikit-video")
"""Distributions that `make setup` installs by name."""

RUN = """
import importlib.metadata, json, re, sys, typer

absent, modules, command_lines = json.loads(sys.stdin.read())
found = importlib.metadata.Distribution.from_name.__func__

@classmethod
def from_name(cls, name):
    if re.sub(r"[-_.]+", "-", name).lower() in absent:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(cls, name)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

importlib.metadata.Distribution.from_name = from_name
sys.meta_path.insert(0, Absent())

from gateway.cli import app

def helps(command, words):
    yield [*words, "--help"]
    for name, each in getattr(command, "commands", {}).items():
        yield from helps(each, [*words, name])

if not command_lines:
    app.register_commands()
    command_lines = list(helps(typer.main.get_command(app.app), []))
for arguments in command_lines:
    print(json.dumps(arguments), "ends with", app.run(arguments), file=sys.stderr, flush=True)
"""


def installed(extras: Sequence[str]) -> set[str]:
    """Return the distributions that an installation with extras has, with all dependencies."""
    wanted = [("dubstage-suite", extras), *((name, ()) for name in SEPARATE if name != "mediapipe")]
    seen: set[tuple[str, str]] = set()
    while wanted:
        name, names = wanted.pop()
        new = [extra for extra in ("", *names) if (name, extra) not in seen]
        seen |= {(name, extra) for extra in new}
        try:
            requirements = metadata.requires(name) or () if new else ()
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in new):
                wanted.append((canonicalize_name(requirement.name), tuple(requirement.extras)))
    return {name for name, _ in seen} | set(SEPARATE)


def run_all(tmp_path: Path, *command_lines: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Run command lines in one process without the packages of other extras; return exit code and stderr of each."""
    there = installed(EXTRAS)
    owners = {name: {canonicalize_name(each) for each in each_of} for name, each_of in metadata.packages_distributions().items()}
    absent = {canonicalize_name(each.name) for each in metadata.distributions()} - there
    modules = [name for name, each_of in owners.items() if each_of <= absent]
    assert {"onnx", "onnxscript", "gazu", "psycopg", "kubernetes", "opentimelineio"} <= set(modules)
    assert not {"torch", "numpy", "cv2", "mediapipe", "typer", "dubstage"} & set(modules)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([sorted(absent), modules, command_lines]),
        env={**os.environ, "DUBSTAGE_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results, said = {}, ""
    for line in done.stderr.splitlines(keepends=True):
        arguments, ends, code = line.partition(" ends with ")
        if ends and arguments.startswith("["):
            results[" ".join(json.loads(arguments))] = (int(code), said)
            said = ""
        else:
            said += line
    return results


def test_every_help_without_other_extras(tmp_path: Path) -> None:
    """Every command and every command of a group prints its help."""
    results = run_all(tmp_path)
    assert len(results) > 60
    assert {"train --help", "batch kitsu --help", "trainset --help", "--help"} <= set(results)
    assert {arguments: said for arguments, (code, said) in results.items() if code} == {}


def test_commands_without_other_extras(tmp_path: Path) -> None:
    """A command that needs a package of another extra says so in one sentence, which names the extra and how to install it."""
    (tmp_path / "cut.otio").write_text("{}")
    (tmp_path / "frame.0001.exr").write_bytes(b"")
    wanted = {
        "train temporal_warp --data set --output out": "train",
        "train all --data set --output out": "train",
        "export temporal_warp --run run --output out": "train",
        "export all --run run --output out": "train",
        "batch from-timeline cut.otio --output rows --language de --speech {id}.wav": "timelines",
        "dub frame.%04d.exr --audio speech.wav -o out.%04d.exr --rate 25": "sequences",
        "frames to-video frame.%04d.exr -o out.mov --rate 25": "sequences",
    }
    results = run_all(tmp_path, *[line.split() for line in wanted], ["train", "list"])
    for line, extra in wanted.items():
        code, said = results[line]
        assert code == InvalidRequestError.exit_code, f"{line}: {said}"
        assert said.startswith("error: "), line
        assert len(said.splitlines()) == 1, said
        assert f"pip install 'dubstage-suite[{extra}]'" in said, said
    assert results["train list"] == (0, "")
    assert not (tmp_path / "out").exists()


def test_extras_of_the_installation() -> None:
    """`make setup` installs the extras of these tests, and the table of packages has those that the messages name."""
    assert f"RUNTIME := {','.join(EXTRAS)}\n" in (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"train", "timelines", "sequences"} <= set(extras)
