"""Options that several commands have, with one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.methods import FEATURES, METHODS, RENDERERS

LARGEST_SEED: Final = (1 << 31) - 1
"""Seeds are int32 in the API."""

Motion = Annotated[
    str | None,
    typer.Option(metavar="|".join(FEATURES), help="Motion predictor of another method. Default: the method's own."),
]
Renderer = Annotated[
    str | None,
    typer.Option(metavar="|".join(RENDERERS), help="Renderer of another method. Default: the method's own."),
]
METHOD_VALUES: Final = "|".join(METHODS)
Face = Annotated[
    str,
    typer.Option(
        metavar="largest|speaker|ID|X,Y",
        help="Whose mouth: the largest face, the face that speaks, a face by number, or the face at pixel X,Y of the first frame.",
    ),
]
Stages = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="Host of running stages (`dubstage serve`). Default: run the stages in this process."),
]
ConsentFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="JSON file with the person's consent record."),
]
Personalize = Annotated[bool, typer.Option(help="Adapt the networks to the person first.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="NUMBER", help="Random seed for personalisation.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an existing output file even if it is no film that dubstage wrote."),
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Write an HTML report into this folder: a new one, an empty one, or an older report's."),
]
