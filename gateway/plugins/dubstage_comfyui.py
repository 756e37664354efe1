"""ComfyUI: a node that gives a video new speech, at a gateway or in ComfyUI's own process.

Copy this file to `custom_nodes`, and install `dubstage` for ComfyUI's Python: the client for a gateway, the suite to dub in the
process. Variables: DUBSTAGE_GATEWAY (HOST:PORT, if the node names none) and DUBSTAGE_TOKEN, which goes to that gateway alone: a
workflow of somebody else cannot send the token elsewhere. ComfyUI itself never ran this file: tests run it with stand-ins for
ComfyUI's modules, and a real gateway.
"""

from __future__ import annotations

import os
import tempfile
import wave
from pathlib import Path
from typing import Any, Final

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.input_impl import VideoFromFile

import dubstage

_INPUTS: Final[dict[str, dict[str, Any]]] = {
    "required": {
        "video": ("VIDEO", {"tooltip": "Video of the person."}),
        "audio": ("AUDIO", {"tooltip": "The new speech."}),
    },
    "optional": {
        "actor": ("STRING", {"default": "", "tooltip": "Id of an enrolled person. Empty: learn the person from the video."}),
        "consent": ("STRING", {"default": "", "tooltip": "JSON file with the consent record of the person."}),
        "personalize": ("BOOLEAN", {"default": True, "tooltip": "Adapt the networks to the person, if no actor is given."}),
        "expressiveness": (
            "FLOAT",
            {"default": 1.0, "min": 0.5, "max": 1.5, "step": 0.05, "tooltip": "How far the mouth moves."},
        ),
        "gateway": ("STRING", {"default": "", "tooltip": "HOST:PORT of a gateway. Empty: DUBSTAGE_GATEWAY, or this process."}),
    },
}


class DubstageDub:
    """Node: the same video, frame for frame, in which the mouth speaks the sound."""

    CATEGORY = "video/dubstage"
    DESCRIPTION = "Gives a video new speech. Ask the person whom you dub first."
    FUNCTION = "dub"
    RETURN_TYPES = ("VIDEO",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI calls this name
        """Return the inputs of the node."""
        return _INPUTS

    def dub(
        self,
        video: Any,
        audio: dict[str, Any],
        *,
        actor: str = "",
        consent: str = "",
        personalize: bool = True,
        expressiveness: float = 1.0,
        gateway: str = "",
    ) -> tuple[Any]:
        """Return the video with the new speech. ComfyUI's button *Interrupt* cancels the dub.

        Args:
            video: a `VideoInput` of ComfyUI. Packets of a file are copied, not encoded again.
            audio: waveform (1, channels, samples) float32 of -1 to 1, and sample_rate, Hz.
            actor: id of an enrolled person; empty: the person of the video.
            consent: path of a consent record; empty: none, or the actor's.
            personalize: whether networks are adapted to the person, if no actor is given.
            expressiveness: factor of the mouth's movement, 0.5 to 1.5.
            gateway: HOST:PORT; empty: the variable DUBSTAGE_GATEWAY, otherwise this process.

        Raises:
            dubstage.Error: the dub was refused, or failed.
        """
        # ComfyUI empties this folder when it starts. A video object reads its file when another node asks for frames.
        temporary = Path(folder_paths.get_temp_directory())
        temporary.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="dubstage-", dir=temporary))
        video.save_to(str(folder / "footage.mp4"))
        _write_sound(audio, folder / "speech.wav")
        bar = comfy.utils.ProgressBar(1)

        def on_progress(step: str, done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, max(total, 1))

        done = dubstage.dub(
            folder / "footage.mp4",
            folder / "speech.wav",
            folder / "dub.mp4",
            address=gateway or None,
            token=os.environ.get("DUBSTAGE_TOKEN") if gateway in ("", os.environ.get("DUBSTAGE_GATEWAY")) else None,
            transfer=True,
            progress=on_progress,
            actor_id=actor,
            consent=consent or None,
            personalize=personalize,
            expressiveness=expressiveness,
        )
        for warning in (*done.warnings, done.undubbed):
            if warning:
                print(f"dubstage: {warning}")
        return (VideoFromFile(done.output),)


def _write_sound(audio: dict[str, Any], path: Path) -> None:
    samples = (audio["waveform"][0].clamp(-1, 1) * 32767).round().to(torch.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(int(audio["sample_rate"]))
        file.writeframes(samples.T.contiguous().numpy().tobytes())


NODE_CLASS_MAPPINGS = {"DubstageDub": DubstageDub}
NODE_DISPLAY_NAME_MAPPINGS = {"DubstageDub": "Dub with new speech (dubstage)"}
