"""The node for ComfyUI, with stand-ins for ComfyUI's modules and a real gateway."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import pytest
import torch

import dubstage
from tests.integration.servers import StartGateway
from tests.integration.videos import NUM_FRAMES, OTHER, Media

PLUGIN = Path(__file__).resolve().parents[2] / "gateway" / "plugins" / "dubstage_comfyui.py"
RATE_HZ = 44_100


class Interrupted(Exception):
    """What ComfyUI raises after its button *Interrupt*."""


class Video:
    """A video of ComfyUI that copies its file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def save_to(self, path: str) -> None:
        shutil.copy(self.path, path)


class Comfy:
    """The parts of ComfyUI that the node calls."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "temporary"
        self.steps: list[tuple[int, int]] = []
        self.interrupts = False

    def modules(self) -> dict[str, ModuleType]:
        found = {name: ModuleType(name) for name in ("comfy", "comfy_api", "folder_paths")}
        parts: dict[str, dict[str, Any]] = {
            "comfy.model_management": {"throw_exception_if_processing_interrupted": self.check},
            "comfy.utils": {"ProgressBar": lambda total: self},
            "comfy_api.input_impl": {"VideoFromFile": Video},
        }
        vars(found["folder_paths"])["get_temp_directory"] = lambda: str(self.temporary)
        for name, values in parts.items():
            found[name] = ModuleType(name)
            vars(found[name]).update(values)
            above, _, below = name.partition(".")
            vars(found[above])[below] = found[name]
        return found

    def check(self) -> None:
        if self.interrupts:
            raise Interrupted

    def update_absolute(self, done: int, total: int) -> None:
        self.steps.append((done, total))


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comfy:
    found = Comfy(tmp_path)
    for name, module in found.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.fixture
def node(comfy: Comfy) -> Any:
    return runpy.run_path(str(PLUGIN))["NODE_CLASS_MAPPINGS"]["DubstageDub"]()


def sound() -> dict[str, Any]:
    """Stereo, one second, half of which is louder than ComfyUI allows."""
    return {"waveform": torch.linspace(-2, 2, RATE_HZ).expand(1, 2, -1), "sample_rate": RATE_HZ}


def test_node_dubs_at_gateway(start_gateway: StartGateway, media: Media, comfy: Comfy, node: Any) -> None:
    """Every input of the node is an argument of its function, and the dub has the frames of the video."""
    running = start_gateway()
    given = {name: rest[1]["default"] for name, rest in node.INPUT_TYPES()["optional"].items()}
    given |= {"personalize": False, "gateway": running.server.address}
    (made,) = getattr(node, node.FUNCTION)(video=Video(media.root / OTHER), audio=sound(), **given)
    assert comfy.temporary in made.path.parents
    with av.open(str(made.path)) as video:
        assert video.streams.video[0].frames == NUM_FRAMES - 8
        assert video.streams.audio[0].channels == 2
    assert comfy.steps[-1][0] == comfy.steps[-1][1] > 1


def test_token_goes_to_one_gateway(start_gateway: StartGateway, media: Media, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of the environment goes to the gateway of the environment, and to no gateway that a workflow names."""
    running = start_gateway(tokens=("emma-token",))
    monkeypatch.setenv("DUBSTAGE_TOKEN", "emma-token")
    with pytest.raises(dubstage.Error) as caught:
        node.dub(Video(media.root / OTHER), sound(), personalize=False, gateway=running.server.address)
    assert caught.value.code == "UNAUTHENTICATED"
    monkeypatch.setenv("DUBSTAGE_GATEWAY", running.server.address)
    with pytest.raises(dubstage.Error) as caught:
        node.dub(Video(media.root / OTHER), sound(), actor="nobody")
    assert caught.value.code == "NOT_FOUND"


def test_interrupt_cancels_dub(start_gateway: StartGateway, media: Media, comfy: Comfy, node: Any) -> None:
    running = start_gateway()
    comfy.interrupts = True
    with pytest.raises(Interrupted):
        node.dub(Video(media.root / OTHER), sound(), gateway=running.server.address)
    assert not list(comfy.temporary.rglob("dub.mp4"))


def test_refused_dub_names_reason(start_gateway: StartGateway, media: Media, node: Any) -> None:
    running = start_gateway()
    with pytest.raises(dubstage.Error, match="nobody") as caught:
        node.dub(Video(media.root / OTHER), sound(), actor="nobody", gateway=running.server.address)
    assert caught.value.code == "NOT_FOUND"
