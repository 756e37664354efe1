"""The generated pages of docs/reference are those that the code gives, and the links of all documents resolve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from docs.generate.dub_options import NAMES, NOT_IN_FORM, REASONS, option_rows
from docs.generate.reference import CHECKOUT, pages
from gateway.cli.app import app, register_commands
from gateway.dub.request.spec_text import ROW

FOLDERS = ("docs", "services", "gateway", "charts", "research")
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(path for name in FOLDERS for path in (CHECKOUT / name).rglob("*.md"))])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def written() -> dict[Path, str]:
    return pages()


@pytest.mark.parametrize(
    "name", ["settings.md", "command-line.md", "chart-values.md", "contracts.md", "client.md", "dub-options.md"]
)
def test_page_matches_code(name: str, written: dict[Path, str]) -> None:
    """A page of the reference is what the code gives."""
    (path,) = (path for path in written if path.name == name)
    assert path.read_text(encoding="utf-8") == written[path], "run: python -m docs.generate.reference"


def test_gaps_of_options_are_explained() -> None:
    """Every option of `dubstage dub` has a row, every name that is missing in a row has a remark, and no remark is left over."""
    register_commands()
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    names = [str(parameter.name) for parameter in command.commands["dub"].params]
    rows = list(option_rows([(name, name, "") for name in names]))
    assert {f"`{name}`" for name in names} <= {row[0] for row in rows}
    assert [row for row in rows if "-" in row[NAMES] and not row[-1]] == []
    assert {row[NAMES][0] for row in rows if row[-1] == NOT_IN_FORM} == {"-"}
    assert REASONS.keys() <= {*names, *ROW}


def test_page_independent_of_terminal(written: dict[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line does not depend on the terminal."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    monkeypatch.setenv("HOME", "/elsewhere")
    assert pages() == written


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_relative_link_resolves(page: Path) -> None:
    missing = []
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = page.parent / place if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_module_that_is_run_exists(page: Path) -> None:
    named = set(
        re.findall(
            r"-m ((?:services|gateway|research|bench|scripts|tests|charts)[a-z_.]*)(?![A-Za-z_.])", page.read_text(encoding="utf-8")
        )
    )
    places = {name: CHECKOUT / name.replace(".", "/") for name in named}
    missing = [
        name for name, place in places.items() if not (place.with_suffix(".py").exists() or (place / "__main__.py").exists())
    ]
    assert missing == []
