"""RPCs of the face stage."""

from __future__ import annotations

from typing import Final

from dubstage.client.rpcs.kinds import Stream, Upload
from dubstage.face.v1alpha1 import face_pb2 as pb

_SERVICE: Final = "dubstage.face.v1alpha1.FaceService"

TRACK: Final = Stream(_SERVICE, "Track", pb.TrackRequest, pb.TrackResponse)
FIT_IDENTITY: Final = Upload(_SERVICE, "FitIdentity", pb.FitIdentityRequest, pb.FitIdentityResponse)
