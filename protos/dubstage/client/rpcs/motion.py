"""RPCs of the motion stage."""

from __future__ import annotations

from typing import Final

from dubstage.client.rpcs.kinds import Download, Stream, Unary
from dubstage.motion.v1alpha1 import motion_pb2 as pb

_SERVICE: Final = "dubstage.motion.v1alpha1.MotionService"

PREDICT_MOTION: Final = Stream(_SERVICE, "PredictMotion", pb.PredictMotionRequest, pb.PredictMotionResponse)
ENCODE_STYLE: Final = Unary(_SERVICE, "EncodeStyle", pb.EncodeStyleRequest, pb.EncodeStyleResponse)
ESTIMATE_LAG: Final = Unary(_SERVICE, "EstimateLag", pb.EstimateLagRequest, pb.EstimateLagResponse)
PERSONALIZE: Final = Download(_SERVICE, "Personalize", pb.PersonalizeRequest, pb.PersonalizeResponse)
LIST_MODELS: Final = Unary(_SERVICE, "ListModels", pb.ListModelsRequest, pb.ListModelsResponse)
