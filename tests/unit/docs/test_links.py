"""Links between the documents."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|^    .*?$", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Return the committed documents."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    return [CHECKOUT / name for name in listed.split("\0") if name and (CHECKOUT / name).is_file()]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub names them."""
    headings = HEADING.findall(CODE.sub("", document.read_text(encoding="utf-8")))
    texts = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


def broken(document: Path) -> Iterator[str]:
    """Yield the links of a document whose file or heading is missing."""
    for link in LINK.findall(CODE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield f"{document.name}: {link}"


def test_every_link_leads_somewhere() -> None:
    """A link names a file that exists and, behind #, a heading of the file."""
    assert [link for document in documents() for link in broken(document)] == []


def test_broken_links_are_named(tmp_path: Path) -> None:
    """A missing file, a missing heading and a heading in a block of code are broken links; web addresses are not looked at."""
    (tmp_path / "b.md").write_text("# A title, here\n\n    # no heading\n")
    document = tmp_path / "a.md"
    document.write_text("[1](b.md#a-title-here) [2](b.md#no-heading) [3](c.md) [4](#none) [5](https://a.example)\n")
    assert list(broken(document)) == ["a.md: b.md#no-heading", "a.md: c.md", "a.md: #none"]
