"""The motion predictors by name. A new method adds its PREDICTOR here."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from services.common.errors import InvalidRequest
from services.motion.models import MotionModels
from services.motion.predictor import Predictor, Shape
from services.motion.predictors.everybody.predictor import PREDICTOR as EVERYBODY
from services.motion.predictors.everybody.predictor import PREDICTOR_LIVE as EVERYBODY_LIVE
from services.motion.predictors.everyone.predictor import PREDICTOR as EVERYONE
from services.motion.predictors.headpose.predictor import PREDICTOR as HEADPOSE
from services.motion.predictors.hetero.predictor import PREDICTOR as HETERO
from services.motion.predictors.speech_map.predictor import PREDICTOR as SPEECH_MAP
from services.motion.predictors.speech_map.predictor import PREDICTOR_LIVE as SPEECH_MAP_LIVE
from services.motion.predictors.ugc.predictor import PREDICTOR as UGC
from services.motion.style import FASTEST_STEP, WIDEST_OPENING

PREDICTORS: Final[dict[str, Predictor]] = {
    predictor.name: predictor
    for predictor in (SPEECH_MAP, SPEECH_MAP_LIVE, UGC, EVERYBODY, EVERYBODY_LIVE, HEADPOSE, HETERO, EVERYONE)
}


def predictor_named(name: str, field: str) -> Predictor:
    """Return the predictor of a method.

    Args:
        name: the method's name.
        field: field of the request that holds the name.

    Raises:
        InvalidRequest: the stage has no predictor of this name. The message lists the names that the stage has.
    """
    found = PREDICTORS.get(name)
    if found is None:
        known = ", ".join(PREDICTORS)
        raise InvalidRequest(f"{field}: this stage has no predictor {name[:80]!r}; the stage has: {known}", field=field)
    return found


def added_style_shapes(present: Container[str], models: MotionModels) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that was added to a style: by a predictor, or WIDEST_OPENING and FASTEST_STEP.

    Args:
        present: names of the arrays that the style artefact holds. Shapes of other arrays are not asked for, so that no network is
            loaded in vain.
    """
    declared: dict[str, Shape] = {WIDEST_OPENING: lambda _: (1,), FASTEST_STEP: lambda _: (1,)}
    for predictor in PREDICTORS.values():
        declared.update(predictor.style_arrays)
    return {name: shape(models) for name, shape in declared.items() if name in present}
