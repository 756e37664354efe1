"""`dubstage faces`: the faces of a video with their numbers, so that a dub can name one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer
from rich.table import Table

from gateway.api.progress import FACE_STEPS
from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import check_new_file, say, say_table, say_warning, write_new_file
from gateway.cli.progress import StepProgress
from gateway.dub.learn.face_list import FaceList, ListedFace, list_faces
from gateway.dub.state.workspace import ScratchFolders, Workspace
from gateway.media.inspection import inspect_in_child
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stages
from services.common.errors import InvalidRequestError


@app.command("faces")
def faces(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video or picture.")],
    to_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="New JSON file to write the list to.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write a picture of each face to: face_0.png, face_1.png, ..."),
    ] = None,
    stages: options.Stages = None,
) -> None:
    """List the faces of VIDEO: when each is seen, in how many frames it can be dubbed, and when it speaks.

    `dubstage dub --face ID` takes the number of a face.
    """
    if to_json is not None:
        check_new_file(to_json)
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise InvalidRequestError(f"--pictures {pictures} is a file: give a folder", field="pictures")
    settings = options.gateway_settings(stages)
    run_async(_run(settings, video, to_json, pictures))


async def _run(settings: GatewaySettings, video: Path, to_json: Path | None, pictures: Path | None) -> None:
    info = await inspect_in_child(video)
    scratch = ScratchFolders(settings.data_dir)
    try:
        with StepProgress(FACE_STEPS) as progress, scratch.folder() as folder:
            progress.footage(*info.video.size)
            progress.begin("starting the stages")
            async with open_stages(settings) as opened:
                with Workspace(folder / "faces", max_bytes=settings.max_job_bytes) as workspace:
                    found = await list_faces(opened, info, workspace, threads=settings.compute_threads, on_progress=progress)
    finally:
        scratch.close()
    files = _write_pictures(found, pictures) if pictures is not None else {}
    if to_json is not None:
        write_new_file(to_json, f"{json.dumps(facts_of(found, video, files), indent=2)}\n".encode())
    say_table(_table(found))
    for line in lines_about_choice(found):
        say(line)
    if found.omitted:
        say_warning(f"{found.omitted} further faces are left out, the smallest ones")


def _write_pictures(found: FaceList, folder: Path) -> dict[int, Path]:
    """Write the picture of each face to a folder, and return the files.

    Raises:
        InvalidRequestError: a file exists, or the folder cannot be written.
    """
    files = {face.face_id: folder / f"face_{face.face_id}.png" for face in found.faces}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InvalidRequestError(f"--pictures {folder}: {problem.strerror or problem}", field="pictures") from problem
    for face in found.faces:
        _, png = cv2.imencode(".png", face.picture[..., ::-1])
        write_new_file(files[face.face_id], png.tobytes())
    return files


def facts_of(found: FaceList, video: Path, files: dict[int, Path]) -> dict[str, Any]:
    """Return a list of faces as JSON values.

    Args:
        found: the faces.
        video: the video, as the user named it.
        files: files of the pictures by face.
    """
    return {
        "video": str(video),
        "frames": found.num_frames,
        "duration_s": round(found.duration_s, 3),
        "default_face": found.default,
        "speaker": found.speaker,
        "faces": [_face_facts(face, files.get(face.face_id)) for face in found.faces],
    }


def _face_facts(face: ListedFace, picture: Path | None) -> dict[str, Any]:
    left, top, width, height = (round(side, 1) for side in face.box)
    return {
        "id": face.face_id,
        "first_s": round(face.first_s, 3),
        "last_s": round(face.last_s, 3),
        "frames": face.num_frames,
        "usable_share": round(face.usable_share, 4),
        "box": {"frame": face.frame, "left": left, "top": top, "width": width, "height": height},
        "picture": str(picture) if picture is not None else None,
        "speaks": [
            {"begin_s": round(span.begin_s, 2), "end_s": round(span.end_s, 2), "confidence": round(span.confidence, 3)}
            for span in face.speaks
        ],
    }


def _table(found: FaceList) -> Table:
    table = Table("face", "first s", "last s", "frames", "usable", "width x height", "at", "speaks, s")
    for face in found.faces:
        left, top, width, height = face.box
        table.add_row(
            str(face.face_id),
            f"{face.first_s:.2f}",
            f"{face.last_s:.2f}",
            str(face.num_frames),
            f"{100 * face.usable_share:.0f} %",
            f"{width:.0f} x {height:.0f}",
            f"{left + width / 2:.0f},{top + height / 2:.0f} in frame {face.frame}",
            ", ".join(f"{span.begin_s:.1f}-{span.end_s:.1f}" for span in face.speaks) or "-",
        )
    return table


def lines_about_choice(found: FaceList) -> list[str]:
    """Return sentences that say which face a dub takes, one per line."""
    if not found.faces:
        return ["the video shows no face"]
    if found.default is None:
        return ["a dub of a picture with several faces needs --face NUMBER"]
    if len(found.faces) == 1:
        return [f"a dub takes face {found.default}, the only one"]
    return [f"a dub without --face takes face {found.default}: {found.why}"]
