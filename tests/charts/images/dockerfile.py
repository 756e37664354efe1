"""Reads Dockerfiles, as far as the tests need it."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
STAGES = ("audio", "face", "motion", "texture", "render")
SERVICES = (*STAGES, "gateway")
TABLE = (*SERVICES, "suite")
"""Images of charts/images/services.txt; `suite` holds all services."""
SERVICE = ROOT / "charts/images/Dockerfile"
TRITON = ROOT / "services/render/triton/Dockerfile"
TRITON_CUDA = TRITON.with_name("Dockerfile.cuda")
ALL = [SERVICE, TRITON, TRITON_CUDA]


@dataclass(frozen=True)
class BuildStage:
    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for kind, arguments in self.instructions if kind == instruction]

    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for arguments in self.all("ENV") for word in shlex.split(arguments))

    def labels(self) -> dict[str, str]:
        return dict(word.split("=", 1) for arguments in self.all("LABEL") for word in shlex.split(arguments))

    def copied(self) -> list[str]:
        """Copies from the repository."""
        copies = [shlex.split(arguments) for arguments in self.all("COPY") if "--from" not in arguments]
        return [source for words in copies for source in words[:-1]]


@dataclass(frozen=True)
class Dockerfile:
    path: Path
    defaults: dict[str, str]
    stages: list[BuildStage]

    @property
    def final(self) -> BuildStage:
        """Stages of the last image: the last build stage, and those that it stands on by name."""
        whole = self.stages[-1]
        while below := next((stage for stage in self.stages if stage.name == whole.base), None):
            whole = BuildStage(below.base, whole.name, [*below.instructions, *whole.instructions])
        return whole

    def copied(self) -> list[str]:
        return [source for stage in self.stages for source in stage.copied()]

    def target(self, name: str) -> BuildStage:
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class Row:
    """One line of charts/images/services.txt."""

    service: str
    code: str
    port: int
    imported: list[str]
    extras: list[str]
    without: list[str]
    description: str


def read_services() -> dict[str, Row]:
    rows = {}
    for line in (ROOT / "charts/images/services.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            service, code, port, imported, extras, without, description = line.split(maxsplit=6)
            separate = [] if without == "-" else without.split(",")
            rows[service] = Row(service, code, int(port), imported.split(","), extras.split(","), separate, description)
    return rows


def read(path: Path) -> Dockerfile:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    defaults: dict[str, str] = {}
    stages: list[BuildStage] = []
    for line in text.splitlines():
        kind, _, arguments = re.sub(r"\s+", " ", line.strip()).partition(" ")
        if kind == "FROM":
            base, _, name = arguments.partition(" AS ")
            stages.append(BuildStage(base, name))
        elif not stages:
            assert kind == "ARG", f"{path}: {kind} before the first FROM"
            name, _, value = arguments.partition("=")
            defaults[name] = value.strip('"')
        else:
            stages[-1].instructions.append((kind, arguments))
    return Dockerfile(path, defaults, stages)
