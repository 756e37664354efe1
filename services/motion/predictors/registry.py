"""The motion predictors of the table of methods, imported by their paths."""

from __future__ import annotations

from collections.abc import Container
from importlib import import_module
from typing import Final

from services.common.errors import InvalidRequestError
from services.common.methods import PREDICTORS
from services.motion.models import MotionModels
from services.motion.predictor import Predictor, Shape
from services.motion.style import FASTEST_STEP, RESTING_MOUTH, WIDEST_OPENING
from services.motion.types import NUM_POINTS

_FOLDER: Final = __name__.rpartition(".")[0]


def predictor_named(name: str, field: str = "method") -> Predictor:
    """Return the predictor of a row: the Predictor with this row in the module `predictor` of the row's package.

    Args:
        name: the predictor's name.
        field: field of the request that holds the name.

    Raises:
        InvalidRequestError: the table has no predictor of this name. The message lists the names.
    """
    row = PREDICTORS.get(name)
    if row is None:
        names = ", ".join(PREDICTORS)
        raise InvalidRequestError(f"{field}: this stage has no predictor {name[:80]!r}; the stage has: {names}", field=field)
    module = import_module(f"{_FOLDER}.{row.package}.predictor")
    (predictor,) = [each for each in vars(module).values() if isinstance(each, Predictor) and each.spec == row]
    return predictor


def all_predictors() -> list[Predictor]:
    """Return the predictors of all rows, in the order of the table."""
    return [predictor_named(name) for name in PREDICTORS]


def added_style_shapes(present: Container[str], models: MotionModels) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that was added to a style: by a predictor, or by encode_mouths.

    Args:
        present: names of the arrays that the style artefact holds. Shapes of other arrays are not asked for, so that no network is
            loaded in vain.
    """
    declared: dict[str, Shape] = {
        RESTING_MOUTH: lambda _: (NUM_POINTS, 3),
        WIDEST_OPENING: lambda _: (1,),
        FASTEST_STEP: lambda _: (1,),
    }
    for predictor in all_predictors():
        declared.update(predictor.style_arrays)
    return {name: shape(models) for name, shape in declared.items() if name in present}
