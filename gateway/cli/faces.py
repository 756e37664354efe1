"""`dubstage faces`: the faces of a video with their numbers, so that a dub can name one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.table import Table

from gateway.actors.installation import open_installation
from gateway.api.progress import FACE_STEPS
from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import check_new_file, say, say_json, say_table, say_warning, wants_json, write_new_file
from gateway.cli.progress import StepProgress
from gateway.dub.learn.face_list import FaceList
from gateway.dub.state.scratch import ScratchFolders
from gateway.engine import Engine, remove_old_jobs
from gateway.media.inspection import inspect_in_child
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError


@app.command("faces")
def faces(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video or picture.")],
    result: Annotated[Path | None, typer.Option(metavar="FILE", help="New file for the JSON document that --json prints.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write a picture of each face to: face_0.png, face_1.png, ..."),
    ] = None,
    stages: options.Stages = None,
    _: options.AsJson = False,
) -> None:
    """List the faces of VIDEO: when each is seen, in how many frames it can be dubbed, and when it speaks.

    `dubstage dub --face ID` takes the number of a face.
    """
    if result is not None:
        check_new_file(result)
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise InvalidRequestError(f"--pictures {pictures} is a file: give a folder", field="pictures")
    settings = options.gateway_settings(stages)
    run_async(_run(settings, video, result, pictures))


async def _run(settings: GatewaySettings, video: Path, result: Path | None, pictures: Path | None) -> None:
    info = await inspect_in_child(video)
    scratch = ScratchFolders(settings.data_dir)
    try:
        with open_installation(settings) as installation, StepProgress(FACE_STEPS) as progress, scratch.folder() as folder:
            progress.footage(*info.video.size)
            progress.begin("start")
            async with installation.stages() as opened:
                engine = Engine.of(installation)
                face_list = await engine.faces(info, opened, folder / "faces", progress)
            await remove_old_jobs(installation, engine)
    finally:
        scratch.close()
    if pictures is not None:
        _write_pictures(face_list, pictures)
    if result is not None or wants_json():
        from gateway.cli.documents import faces_document

        document = faces_document(face_list)
        if result is not None:
            write_new_file(result, f"{json.dumps(document, indent=2)}\n".encode())
        if wants_json():
            say_json(document)
    say_table(_table(face_list))
    for line in lines_about_choice(face_list):
        say(line)
    if face_list.omitted:
        say_warning(f"{face_list.omitted} further faces are left out, the smallest ones")


def _write_pictures(face_list: FaceList, folder: Path) -> None:
    """Write the picture of each face to a folder.

    Raises:
        InvalidRequestError: a file exists, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InvalidRequestError(f"--pictures {folder}: {problem.strerror or problem}", field="pictures") from problem
    for face in face_list.faces:
        _, png = cv2.imencode(".png", face.picture[..., ::-1])
        write_new_file(folder / f"face_{face.face_id}.png", png.tobytes())


def _table(face_list: FaceList) -> Table:
    table = Table("face", "first s", "last s", "frames", "usable", "width x height", "at", "speaks, s")
    for face in face_list.faces:
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


def lines_about_choice(face_list: FaceList) -> list[str]:
    """Return sentences that say which face a dub takes, one per line."""
    if not face_list.faces:
        return ["the video shows no face"]
    if face_list.default is None:
        return ["a dub of a picture with several faces needs --face NUMBER"]
    if len(face_list.faces) == 1:
        return [f"a dub takes face {face_list.default}, the only one"]
    return [f"a dub without --face takes face {face_list.default}: {face_list.why}"]
