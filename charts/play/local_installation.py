"""The same films without any server, with the settings that the containers have."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from charts.play.log import Log
from charts.play.shots import MANIFEST
from gateway.provenance.binding import media_sha256
from gateway.provenance.credential import KEY_FILE

CHECKOUT: Final = Path(__file__).parents[2]


class LocalInstallation:
    """An installation in a folder, whose commands compute by themselves.

    Args:
        folder: gets the data folder and the films.
        key: content of the file of the gateways' key. Films carry a watermark of the key that they are signed with, so two
            installations with keys of their own make different films.
        settings: further settings, by the names of their variables.
        log: gets the times and digests.
    """

    def __init__(self, folder: Path, key: str, settings: Mapping[str, str], log: Log) -> None:
        self.media = folder / "media"
        self._log = log
        data = folder / "data"
        for path in (folder, self.media, data):
            path.mkdir(mode=0o700, exist_ok=True)
        (data / KEY_FILE).write_text(key, encoding="ascii")
        (data / KEY_FILE).chmod(0o600)
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("DUBSTAGE_")}
        self._environment |= {"DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts"), **settings}

    def dub(self, footage: Path, speech: Path, method: str, *, personalize: bool) -> str:
        """Make the film, and return its digest.

        Raises:
            subprocess.CalledProcessError: the command failed; its message is in `stderr`.
        """
        film = self.media / "film.mp4"
        chosen = ["--method", method, *([] if personalize else ["--no-personalize"])]
        seconds = self._run("dub", str(footage), "--audio", str(speech), "-o", str(film), *chosen)
        digest = media_sha256(film)
        self._log(f"in one process: {seconds:.1f} s, media sha256 {digest}")
        return digest

    def batch(self, films: Sequence[str]) -> dict[str, str]:
        """Dub the shots whose manifest is in the folder `media`, one after the other, and return the digests of their films.

        Raises:
            subprocess.CalledProcessError: a shot failed; the message is in `stderr`.
        """
        seconds = self._run("batch", "submit", str(self.media / MANIFEST), "--workers", "1")
        self._log(f"in one process: the {len(films)} shots in {seconds:.1f} s")
        return {film: media_sha256(self.media / film) for film in films}

    def _run(self, *arguments: str) -> float:
        begun = time.monotonic()
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        subprocess.run(command, check=True, env=self._environment, cwd=CHECKOUT, capture_output=True, text=True)
        return time.monotonic() - begun
