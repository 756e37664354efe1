"""Texts for people that name fields, options and commands, in the words of the reader.

A caller of RPCs knows fields and RPCs, a user of the command line knows options and commands. A Text has its facts by name:

    Text("videos of method {method} are as long as the speech: leave {fit} out", method=name, fit=Option("fit"))

and each door writes the text with its own Words. As a plain string, a Text has the words of the contracts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

RPCS: Final[Mapping[str, str]] = {
    "actor create": "CreateActor",
    "actor list": "ListActors",
    "actor erase": "EraseActor",
    "consent revoke": "RevokeConsent",
    "faces": "DetectFaces",
    "batch submit": "SubmitBatch",
    "batch status": "ListShots",
    "batch watch": "WatchBatch",
    "batch retry": "RetryBatch",
    "batch remove": "DeleteBatch",
}
"""Commands -> RPCs that do the same."""
_FACE: Final = "face_id, point or face_rule"
"""Fields that name a face."""


class Words:
    """The words of the contracts: names of fields and of RPCs. A command that no RPC replaces stays as it is, between backticks."""

    def field(self, path: str) -> str:
        """Return what a text calls a field of the request that the text is about, such as `lines[2].speech_uri`."""
        return path

    def option(self, option: Option) -> str:
        """Return how the reader gives an option."""
        return _FACE if option.name == "face" else option.name

    def command(self, command: Command) -> str:
        """Return how the reader asks for what a command does."""
        return RPCS.get(command.name) or command.line


CONTRACTS: Final = Words()


@runtime_checkable
class Fact(Protocol):
    """Part of a text that differs from reader to reader: an Option, a Command, a Field, a Text, or an error."""

    def in_words(self, words: Words) -> str:
        """Return the text of this fact."""


@dataclass(frozen=True, slots=True)
class Option:
    """Option of a command, and field of requests that says the same.

    Attributes:
        name: field of the contract, such as `speech_uri`, or option of commands alone, such as `overwrite`.
        placeholder: stands for the value on the command line, such as FILE.
    """

    name: str
    placeholder: str = ""

    def in_words(self, words: Words) -> str:
        """Return how a reader gives the option."""
        return words.option(self)

    def __str__(self) -> str:
        return self.in_words(CONTRACTS)


@dataclass(frozen=True, slots=True)
class Command:
    """Command of the command line, such as `actor erase`, and the RPC that does the same, if there is one."""

    name: str
    arguments: str = ""

    @property
    def line(self) -> str:
        """The command as a user types it, between backticks."""
        return f"`dubstage {self.name} {self.arguments}".rstrip() + "`"

    def in_words(self, words: Words) -> str:
        """Return how a reader asks for what the command does."""
        return words.command(self)

    def __str__(self) -> str:
        return self.in_words(CONTRACTS)


@dataclass(frozen=True, slots=True)
class Field:
    """Field of a request, or a line of a scene, that a text is about, such as `lines[2]`."""

    path: str

    def in_words(self, words: Words) -> str:
        """Return what a reader calls the field."""
        return words.field(self.path)

    def __str__(self) -> str:
        return self.path


class Text(str):
    """Text with facts by name. The string itself has the words of the contracts.

    Args:
        template: the text, a literal, with `{name}` where a fact stands. Formats such as `{seconds:g}` are those of `str.format`.
        facts: values by name. Those that are a Fact are written in the words of the reader.
    """

    _template: str
    _facts: Mapping[str, object]

    def __new__(cls, template: str, **facts: object) -> Text:  # noqa: D102 - the class says what the arguments are
        self = super().__new__(cls, _written(template, facts, CONTRACTS))
        self._template, self._facts = template, facts
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # another process gets the words of the contracts

    def in_words(self, words: Words) -> str:
        """Return the text for a reader."""
        return _written(self._template, self._facts, words)


def in_words(text: str | Fact, words: Words) -> str:
    """Return a text for a reader. A plain string is the same for all readers."""
    return text.in_words(words) if isinstance(text, Fact) else text


def _written(template: str, facts: Mapping[str, object], words: Words) -> str:
    return template.format(**{name: fact.in_words(words) if isinstance(fact, Fact) else fact for name, fact in facts.items()})
