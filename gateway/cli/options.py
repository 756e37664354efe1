"""Options of several commands: each has one help text, and means the same in every command.

Modules that read what an option names are imported in functions: the help of a command needs none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.cli.console import keep_stdout_for_json
from gateway.dub.choices import EnrolOptions
from gateway.media.choices import LABEL_POSITIONS, MOST_CHARACTERS
from services.common.errors import InvalidRequestError
from services.common.methods import LEAST_EXPRESSIVENESS, METHODS, MOST_EXPRESSIVENESS, Finish

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.consent.record import Consent, ConsentUse
    from gateway.settings import GatewaySettings

LARGEST_SEED: Final = (1 << 31) - 1
"""Seeds are int32 in the API."""

Motion = Annotated[
    str | None,
    typer.Option(metavar="|".join(METHODS), help="Motion predictor of another method. Default: the method's own."),
]
Renderer = Annotated[
    str | None,
    typer.Option(metavar="|".join(METHODS), help="Renderer of another method. Default: the method's own."),
]
BatchName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the batch (`dubstage batch list`).")]
METHOD_VALUES: Final = "|".join(METHODS)
STILL_METHODS: Final = ", ".join(name for name, method in METHODS.items() if method.takes_still)
"""Methods that take a single picture as footage, for help texts."""
REFERENCE_RENDERERS: Final = ", ".join(name for name, method in METHODS.items() if method.renderer.reference) or "none"
"""Renderers that take a reference picture, for help texts."""
TIMELINE_METHODS: Final = ", ".join(name for name, method in METHODS.items() if method.own_timeline)
"""Methods whose videos are always as long as the speech, for help texts."""
Face = Annotated[
    str,
    typer.Option(
        metavar="auto|largest|speaker|ID|X,Y",
        help="Face to take. auto: the face that speaks where the sound tells for certain, otherwise the largest face. speaker: the "
        "face whose mouth fits the sound best. ID: a number that `dubstage faces` prints. X,Y: the face at this pixel of the first "
        "frame.",
    ),
]
Stages = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="Host of running stages (`dubstage serve`). Default: run the stages in this process."),
]
ConsentFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="JSON file with the consent record of the person."),
]
Project = Annotated[
    str,
    typer.Option(metavar="NAME", help="Project of the work. A consent record that names projects must name this one."),
]
Language = Annotated[
    str,
    typer.Option(
        metavar="TAG",
        help="Language of the new speech, such as de or pt-BR. A consent record that names languages must cover this one.",
    ),
]
Expressiveness = Annotated[
    float,
    typer.Option(
        min=LEAST_EXPRESSIVENESS,
        max=MOST_EXPRESSIVENESS,
        metavar="NUMBER",
        help="Factor of the mouth's movement. 1: as the person speaks. Lips still close on p, b, m and in silence.",
    ),
]
FinishChoice = Annotated[
    Finish | None,
    typer.Option(
        metavar="|".join(Finish),
        help="Whose pixels the mouth shows: `bank` gives it the colours, the inside of the mouth and the finest detail of the "
        "person's own frames, `renderer` shows what the network drew. Default: `bank`, and `renderer` for the papers' methods.",
    ),
]
Label = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Text that every frame of the video shows, such as 'AI dubbed', in Latin, Greek or Cyrillic letters: at "
        f"most {MOST_CHARACTERS} characters. Default: no label. A video without a dubbed mouth gets none.",
    ),
]
LabelPosition = Annotated[str, typer.Option(metavar="|".join(LABEL_POSITIONS), help="Corner of the label. Default: bottom-right.")]
Personalize = Annotated[bool, typer.Option(help="Adapt the networks to the person before dubbing.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="NUMBER", help="Random seed for personalisation.")]
DEVICES: Final = ("auto", "cpu", "cuda")
"""Values of --device."""
_DEVICE_VARIABLES: Final = ("DUBSTAGE_DEVICE", "DUBSTAGE_PERSONALIZE_DEVICE")
"""Settings that --device stands for."""


def _choose_device(device: str | None) -> str | None:
    """Set the settings that --device stands for, in the environment: also workers and servers of the command read them.

    Raises:
        InvalidRequestError: there is no such device.
    """
    if device is not None and device not in DEVICES:
        raise InvalidRequestError(f"--device {device[:40]!r} is unknown; there are: {', '.join(DEVICES)}", field="device")
    for variable in _DEVICE_VARIABLES if device is not None else ():
        os.environ[variable] = str(device)
    return device


Device = Annotated[
    str | None,
    typer.Option(
        # Commands name the parameter `_`, of which typer would make the option `---`.
        "--device",
        metavar="|".join(DEVICES),
        callback=_choose_device,
        help="Device of renderers and personalisations in stages of this command: DUBSTAGE_DEVICE and DUBSTAGE_PERSONALIZE_DEVICE. "
        "auto: a GPU if there is one and the installed packages compute there. `dubstage -v` says which device renderers took. "
        "Default: the settings, otherwise auto.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=keep_stdout_for_json,
        help="Print one JSON document to stdout, with the HTTP API's names where the API has the same thing, and all sentences to "
        "stderr.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an existing output file even if dubstage did not write the file."),
]
Rate = Annotated[
    str,
    typer.Option(
        metavar="FPS",
        help="Frames per second of an image sequence, such as 24 or 24000/1001. Default: the rate that the headers state.",
    ),
]
FootageSound = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Sound file of an image sequence. Default: the sequence has no sound.")
]
Ocio = Annotated[
    str,
    typer.Option(
        metavar="CONFIG",
        help="OpenColorIO configuration for an image sequence: a file, or a built-in one such as ocio://studio-config-latest. "
        "Default: none. Integers are then shown as they are, and floating point values as linear light of Rec. 709.",
    ),
]
InputColourspace = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Colour space of an image sequence in the configuration. Default: scene_linear. Files with integers need a name.",
    ),
]
Display = Annotated[
    str, typer.Option(metavar="NAME", help="Display that the networks see an image sequence on. Default: the configuration's own.")
]
View = Annotated[str, typer.Option(metavar="NAME", help="View of the display. Default: the configuration's own.")]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Folder to write an HTML report to: a new folder, an empty folder, or the folder of an older report."
    ),
]


def gateway_settings(stages: Stages = None, device: Device = None) -> GatewaySettings:
    """Return the settings of the environment, with the locations of the tenant that DUBSTAGE_TENANT names.

    The option --stages wins over DUBSTAGE_STAGES_HOST.

    Raises:
        InvalidRequestError: a value is wrong; the message names the variable. Or a device is given, and the render stage is a
            server.
    """
    from gateway.settings import GatewaySettings
    from gateway.tenants.paths import settings_of
    from services.common.server.settings import load_settings

    settings = load_settings(GatewaySettings, stages_host=stages)
    if device is not None and (server := settings.endpoint("render")):
        raise InvalidRequestError(
            f"--device is for stages of this command, and the render stage runs at {server}: set DUBSTAGE_DEVICE there, or leave "
            "--device out",
            field="device",
        )
    return settings_of(settings, settings.tenant)


def enrol_options(*, personalize: bool, seed: int) -> EnrolOptions:
    """Return the parts of an enrolment that --personalize and --seed choose."""
    return EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize, seed=seed)


def consent_record(file: ConsentFile) -> Consent | None:
    """Return the record of the option --consent; None: the option is not given.

    Raises:
        InvalidRequestError: the file holds no consent record.
    """
    from gateway.consent.files import read_consent

    return read_consent(file) if file is not None else None


def consent_use(project: str, language: str | None) -> ConsentUse:
    """Return the use that --project and --language name.

    Raises:
        InvalidRequestError: a name is not allowed.
    """
    from gateway.consent.record import use_of

    return use_of(project, language)


def trusted_key(file: Path | None) -> Callable[[str], Ed25519PublicKey]:
    """Return what finds the trusted public key for the id of a key. Among several keys, the one of that id is taken.

    Args:
        file: PEM file, or folder of PEM files, with public keys; None: the key of this installation.

    Raises:
        InvalidRequestError: the file holds no key, or no file is given and this installation has not signed anything yet.
    """
    from gateway.consent.keys import read_keys
    from gateway.signatures import KEY_FILE, signing_key

    if file is not None:
        keys = dict(read_keys(file, field="--key"))
        first = next(iter(keys.values()))
        return lambda asked: keys.get(asked, first)
    settings = gateway_settings()
    folder = settings.data_dir
    if settings.signing_key_file is None and not os.path.lexists(folder / KEY_FILE):
        raise InvalidRequestError(
            f"this installation has no key: {folder / KEY_FILE} is missing. Give the public key of the installation that "
            "signed, with --key PUBLIC.pem",
            field="key",
        )
    own = signing_key(folder, settings.signing_key_file).public
    return lambda _: own
