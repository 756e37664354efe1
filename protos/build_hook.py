"""Build hook: generates gen/dubstage/** from dubstage/**/*.proto with the pinned generator. Nothing generated is committed."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: Path) -> None:
    """Write messages, typed stubs and gRPC stubs below root/gen."""
    from google.rpc import status_pb2
    from grpc_tools import protoc

    installed = Path(str(status_pb2.__file__)).parents[2]
    output = root / ".gen.partial"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    sources = sorted(str(path.relative_to(root)) for path in (root / "dubstage").rglob("*.proto"))
    with TemporaryDirectory() as renamed:
        # The package ships operations.proto under another file name than the one its descriptor is registered with.
        operations = Path(renamed) / "google" / "longrunning" / "operations.proto"
        operations.parent.mkdir(parents=True)
        shutil.copy(installed / "google" / "longrunning" / "operations_proto.proto", operations)
        includes = [root, files("grpc_tools") / "_proto", renamed, installed]
        arguments = ["protoc", *(f"-I{path}" for path in includes)]
        arguments += [f"--{kind}_out={output}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        # All files with their comments: for the OpenAPI document, and for `buf lint`, which can't fetch googleapis by itself.
        (output / "dubstage").mkdir()
        arguments += [
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={output / 'dubstage' / 'contracts.binpb'}",
        ]
        if protoc.main([*arguments, *sources]) != 0:
            raise RuntimeError("protoc failed; its messages are above")
    for package in {path.parent for path in output.rglob("*.py")}:
        (package / "py.typed").touch()
    # Two renames, so that what runs from the folder misses it for no longer than that.
    gen, before = root / "gen", root / ".gen.before"
    shutil.rmtree(before, ignore_errors=True)
    if gen.exists():
        gen.rename(before)
    output.rename(gen)
    shutil.rmtree(before, ignore_errors=True)


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `generate` before a wheel or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling."""
        generate(Path(self.root))
