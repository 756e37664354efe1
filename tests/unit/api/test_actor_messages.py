"""CreateActor's messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.api.actor_messages import enrol_request_from
from gateway.api.local_media import LocalMedia
from gateway.api.media_folder import MediaFolder
from gateway.api.media_places import MediaPlaces
from gateway.media.takes import MAX_TAKES
from services.common.errors import InvalidRequest


def test_too_many_files_of_footage_are_refused_before_any_is_looked_at(tmp_path: Path) -> None:
    media = LocalMedia(MediaPlaces(MediaFolder(tmp_path), ""), lambda: tmp_path)
    message = pb.CreateActorRequest(actor_id="ann", footage_uri="none.mp4", more_footage_uris=["none.mp4"] * MAX_TAKES)
    with pytest.raises(InvalidRequest, match=f"{MAX_TAKES + 1} files of footage were given; at most {MAX_TAKES}") as caught:
        enrol_request_from(message, media, threads=1)
    assert caught.value.field == "footage"
