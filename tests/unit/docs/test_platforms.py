"""The check of wheels for other platforms, with a stand-in for uv, which needs the network, that says what uv says."""

from pathlib import Path

import pytest

from docs.generate.platforms import OUTPUT, PLATFORMS, VERSIONS, AnswerError, needed, page, without_wheel

UV = """#!/bin/sh
while read -r line || [ -n "$line" ]; do
    case $line in
        broken==*) echo "error: Request failed after 3 retries" >&2; exit 2 ;;
        av==* | mediapipe==*)
            echo "error: No solution found when resolving dependencies" >&2
            echo "  cause: Because $line has no wheels with a matching platform tag (e.g., \\`x\\`) and you require $line," >&2
            exit 1 ;;
        c2pa-python==*)
            echo "  cause: Because $line has no usable wheels and you require $line, we can conclude" >&2
            exit 1 ;;
    esac
done
"""
LINUX = "x86_64-manylinux_2_28"


@pytest.fixture
def uv(tmp_path: Path) -> str:
    program = tmp_path / "uv"
    program.write_text(UV)
    program.chmod(0o755)
    return str(program)


def names(distribution: str, platform: str, version: str) -> set[str]:
    return {package.partition("==")[0] for package in needed(distribution, version, PLATFORMS[platform][1])}


def test_needed_packages_are_pinned() -> None:
    """The packages are pinned, those of optional parts are left out, and markers are those of the platform."""
    suite = needed("dubstage-suite", "3.11", PLATFORMS[LINUX][1])
    assert {"mediapipe==0.10.21", "torch==2.13.0"} <= set(suite)
    assert [package for package in suite if "==" not in package] in ([], ["setuptools"])
    found = names("dubstage-suite", LINUX, "3.11")
    assert {"grpcio", "pocketsphinx", "onnxruntime", "scikit-image"} <= found
    assert not {"pytest", "boto3", "opentimelineio"} & found
    assert "pocketsphinx" not in names("dubstage-suite", LINUX, "3.12")
    assert "colorama" in names("dubstage-suite", "x86_64-pc-windows-msvc", "3.12") - found
    assert {"grpcio", "numpy", "protobuf"} <= names("dubstage", LINUX, "3.13") <= found


def test_every_missing_wheel_is_named(uv: str) -> None:
    packages = ["av==18.1.0", "numpy==2.4.0", "c2pa-python==0.38.1", "mediapipe==0.10.21"]
    assert without_wheel(uv, LINUX, "3.12", packages) == ["av==18.1.0", "c2pa-python==0.38.1", "mediapipe==0.10.21"]


def test_another_failure_is_no_answer(uv: str) -> None:
    with pytest.raises(AnswerError, match=r"Python 3\.12: error: Request failed"):
        without_wheel(uv, LINUX, "3.12", ["broken==1"])


def test_page_has_each_platform(uv: str) -> None:
    """The committed page has the rows and columns of the code. What stands in the cells, only the package index knows."""
    shape = [line.count("|") for line in page(uv).splitlines()]
    committed = OUTPUT.read_text(encoding="utf-8")
    assert [line.count("|") for line in committed.splitlines()] == shape
    for name, _ in PLATFORMS.values():
        assert committed.count(f"| {name} |") == 2
    assert committed.count(f"| {' | '.join(f'Python {version}' for version in VERSIONS)} |") == 2
