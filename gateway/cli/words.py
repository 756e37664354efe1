"""The words of the command line: options and commands as a user types them."""

from __future__ import annotations

from typing import Final

from gateway.dub.request.spec_text import RowWords, word_of
from services.common.texts import Command, Option

_OPTIONS: Final = {"speech_uri": "audio", "batch_id": "name"}
"""Fields -> options that say the same under a name of their own."""


class CommandLineWords(RowWords):
    """Options such as `--audio FILE`, and commands between backticks."""

    def option(self, option: Option) -> str:
        """Return an option as a user types it."""
        name = _OPTIONS.get(option.name) or word_of(option.name)
        return f"--{name.replace('_', '-')} {option.placeholder}".rstrip()

    def command(self, command: Command) -> str:
        """Return a command as a user types it."""
        return command.line


COMMAND_LINE: Final = CommandLineWords()
