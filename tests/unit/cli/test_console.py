"""Text from outside on a terminal: no character works as a command, as markup, or as a line break."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from gateway.cli import console
from gateway.cli.app import run
from gateway.cli.console import printable, say, say_error, say_result, say_warning
from tests.refusals import error_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("video.mp4", "video.mp4"),
        ("Grüße 映画 😀", "Grüße 映画 😀"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("txt.\u202egpj", r"txt.\u202egpj"),
        (b"caf\xe9\x80\xff".decode("utf-8", "surrogateescape"), r"caf\xe9\x80\xff"),
        ("\ud800", r"\ud800"),
        ("\x9b2J", r"\x9b2J"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    """Characters that a terminal would act on are shown as escapes."""
    assert printable(text) == shown


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/]", "[red", "a[link=http://x]b", ":smile:", r"\[x]", "[/nothing]"])
def test_names_with_markup_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_error(name)
    say_warning(name)
    say_result(name)
    printed = capsys.readouterr()
    assert printed.err == f"error: {name}\nwarning: {name}\n"
    assert printed.out == f"{name}\n"


@pytest.mark.parametrize(
    "name",
    [
        "[bold]x[/].mp4",
        "[/].mp4",
        "a\nb.mp4",
        "a\x1b]0;b\x07.mp4",
        b"\xff\xfe.mp4".decode("utf-8", "surrogateescape"),
        "-",
        "\u202e",
    ],
)
def test_strange_name_answered_in_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name of any characters is answered in one line."""
    assert run(["dub", str(tmp_path / name), "-o", str(tmp_path / "out.mp4")]) == 10
    assert error_line(capsys).rstrip("\n").isprintable()


def test_strange_argument_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument of any characters is a usage error."""
    assert run(["dub", "in.mp4", "\x1b[31m\udcff[/]", "-o", "out.mp4"]) == 2
    printed = capsys.readouterr().err
    assert r"\x1b[31m\xff[/]" in printed
    assert "Usage: " in printed


@pytest.mark.parametrize("options", [["--json"], ["--help", "--json"], ["--quiet", "--json"]])
def test_options_end_with_command(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command's choice of what goes to stdout and stderr does not outlive the command, also when the command fails."""
    run(["inspect", "missing.mp4", *options])
    capsys.readouterr()
    say("message")
    say_result("result")
    assert capsys.readouterr() == ("result\n", "message\n")


def test_narrow_table_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table on a narrow terminal folds what is too long."""
    screen = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=screen, force_terminal=True, width=30, soft_wrap=True))
    table = Table("id", "state", box=None)
    table.add_row("x" * 40, "done")
    console.say_table(table)
    assert screen.getvalue().count("x") == 40
