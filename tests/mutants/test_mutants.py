"""The mutants themselves: the changes, the tests that run against them, and the sample."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.mutants.__main__ import sample
from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.mutations import KINDS, mutants
from tests.mutants.nearest import MOST_FILES, nearest_tests
from tests.unit.architecture.module_graph import ROOT

SOURCE = '''"""Adds 1 and 2."""
from typing import TYPE_CHECKING, Literal
if TYPE_CHECKING: x = 1
def f(a: Literal[3], *, b: bool = True) -> Literal[4]:
    if not a in b or -a <= 0.5: return f"{a + 5}" + "6"
    return (a -
            300), "ä", 0
'''


def test_one_part_changes_at_a_time() -> None:
    """Comparisons, signs, constants and booleans change; types, texts and docstrings do not."""
    found = [(one.line, one.kind, one.before, one.after) for one in mutants("f.py", SOURCE)]
    assert sorted(found) == [
        (4, "boolean", "True", "False"),
        (5, "boolean", "not a in b", "a in b"),
        (5, "boolean", "not a in b or -a <= 0.5", "not a in b and -a <= 0.5"),
        (5, "comparison", "-a <= 0.5", "-a < 0.5"),
        (5, "comparison", "a in b", "a not in b"),
        (5, "constant", "0.5", "1.0"),
        (5, "sign", "-a", "a"),
        (6, "sign", "a - 300", "a + 300"),
        (7, "constant", "0", "1"),
        (7, "constant", "300", "600"),
    ]


def test_rest_of_file_stays() -> None:
    (sign,) = (one for one in mutants("f.py", SOURCE) if one.before == "a - 300")
    assert sign.text(SOURCE) == SOURCE.replace("(a -\n            300)", "((a + 300))")
    (zero,) = (one for one in mutants("f.py", SOURCE) if one.before == "0")
    assert zero.text(SOURCE) == SOURCE.replace('"ä", 0', '"ä", (1)')


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("services/render/backends/base.py", "tests/unit/render/backends/test_base.py"),
        ("services/common/store/artefacts.py", "tests/unit/common/store/test_artefacts.py"),
        ("gateway/cli/consent.py", "tests/unit/cli/test_consent.py"),
        ("gateway/async_utilities.py", "tests/unit/gateway/test_async_utilities.py"),
        ("gateway/api/uploads.py", "tests/integration/test_uploads.py"),
        ("gateway/cli/batch_timeline.py", "tests/unit/cli/batch/test_batch_timeline.py"),
        ("gateway/media/heif.py", "tests/unit/media/test_stills.py"),
        ("gateway/database/migrations/versions/0001_tables.py", "tests/contract/stores/test_upgrades.py"),
        ("gateway/studio/reading_child.py", "tests/unit/studio/test_reading_process.py"),
    ],
)
def test_test_of_the_module_comes_first(path: str, first: str) -> None:
    found = nearest_tests(path)
    assert found[0] == first
    assert len(found) == len(set(found)) <= MOST_FILES
    assert ("tests/unit/docs/test_reference.py" in found) == path.startswith("gateway/cli")
    assert not [test for test in found if not (ROOT / test).is_file() or test.startswith("tests/system")]


@pytest.mark.long
def test_kinds_take_turns() -> None:
    """A sample is the same for a seed, and has as many changes of each kind."""
    one, again, other = (list(islice(sample(seed, ("gateway/reports",)), 40)) for seed in (1, 1, 2))
    assert one == again != other
    assert [mutant.kind for mutant in one] == list(KINDS) * 10
    assert len(set(one)) == 40
    (line,) = {(mutant.path, mutant.line) for mutant in sample(1, (f"{one[0].path}:{one[0].line}",))}
    assert line == (one[0].path, one[0].line)


def test_equivalent_mutants_exist() -> None:
    """Each equivalent mutant names a change of the present source, with a reason."""
    for equivalent in EQUIVALENT:
        found = mutants(equivalent.path, (ROOT / equivalent.path).read_text(encoding="utf-8"))
        assert any(equivalent.names(mutant) for mutant in found), equivalent
        assert equivalent.reason


@pytest.mark.long
def test_equivalent_mutants_are_not_sampled() -> None:
    for equivalent in EQUIVALENT:
        assert not any(equivalent.names(mutant) for mutant in sample(1, (equivalent.path,)))


@pytest.mark.long
def test_mutant_is_killed(tmp_path: Path) -> None:
    """A change that a near test notices is killed, and the working tree stays as it is."""
    path = "gateway/safe_paths.py"
    before = (ROOT / path).read_bytes()
    command = [sys.executable, "-m", "tests.mutants", "--count", "1", "--only", path, "--workers", "1", "--output", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    assert "1 of 1 killed (1.00)" in ended.stdout
    assert (ROOT / path).read_bytes() == before
    assert f"Killed\n\n{path}:" in (tmp_path / "report.txt").read_text(encoding="utf-8")
