"""RPCs of the audio stage."""

from __future__ import annotations

from typing import Final

from dubstage.audio.v1alpha1 import audio_pb2 as pb
from dubstage.client.rpcs.kinds import Stream

_SERVICE: Final = "dubstage.audio.v1alpha1.AudioService"

EXTRACT_FEATURES: Final = Stream(_SERVICE, "ExtractFeatures", pb.ExtractFeaturesRequest, pb.ExtractFeaturesResponse)
