"""RPCs of the render stage."""

from __future__ import annotations

from typing import Final

from dubstage.client.rpcs.kinds import Download, Stream, Unary
from dubstage.render.v1alpha1 import render_pb2 as pb

_SERVICE: Final = "dubstage.render.v1alpha1.RenderService"

RENDER: Final = Stream(_SERVICE, "Render", pb.RenderRequest, pb.RenderResponse)
PERSONALIZE: Final = Download(_SERVICE, "Personalize", pb.PersonalizeRequest, pb.PersonalizeResponse)
LIST_MODELS: Final = Unary(_SERVICE, "ListModels", pb.ListModelsRequest, pb.ListModelsResponse)
