"""Tables of evaluations: rows, means and worst clips, what is known already, and files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.stages.opening import weights_of
from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.protocol import EvaluationSettings, evaluate_clip
from research.evaluation.results import (
    Configuration,
    KeptResults,
    TableRow,
    ablation_rows,
    check_weights,
    clip_document,
    evaluation_key,
    method_rows,
    reported,
    seconds_rows,
    shared_files,
)
from research.evaluation.table import FilledRow, TableRun, better_of, check_table_path, labels_of, metrics_of
from research.evaluation.types import COSTS, TABLE_VARIANTS, VARIANTS
from services.common.errors import InvalidRequestError
from services.common.methods import DEFAULT_METHOD, METHODS, STILL_METHOD, Finish
from tests.refusals import raised
from tests.unit.research.evaluation.drawn_clip import DrawnClip, read_mouths

A, B = Configuration(method="ugc"), Configuration(method="headpose", weights="other")
SETTINGS = EvaluationSettings(
    variants=("mean_mouth", "full", "full_aligned", "oracle_full"), bootstrap=BootstrapSettings(replicates=2), sample_count=0
)


def document(gain: float, clip: str = "a.mp4") -> dict[str, object]:
    drawn = DrawnClip(gain=gain, num_frames=100, clip=clip, frames_late=1, lag_frames=1)
    return clip_document(evaluate_clip(drawn, read_mouths, settings=SETTINGS))


@pytest.fixture(scope="module")
def near() -> dict[str, object]:
    return document(0.9)


@pytest.fixture(scope="module")
def far() -> dict[str, object]:
    return document(0.5)


def test_every_method_has_a_row_and_reported_figures() -> None:
    assert [row.of.method for row in method_rows()] == list(METHODS)
    assert set(reported()) == {*METHODS} - {DEFAULT_METHOD, STILL_METHOD}


def test_ablation_rows() -> None:
    """An ablation shows variants other networks and fewer frames."""
    rows = ablation_rows("everyone", enrol_frames=40)
    assert {row.of.method for row in rows} == {"everyone"}
    assert rows[0].of == Configuration(method="everyone", enrol_frames=40)
    assert {10, 50, 100} <= {row.of.enrol_frames for row in rows}
    assert {0, 14} <= {row.of.steps for row in rows}
    assert {"no_prior", "channels_4"} <= {row.of.weights for row in rows}
    assert "retrieval" in {row.variant for row in ablation_rows("ugc")}
    assert {row.variant for name in ("ugc", "hetero", "everyone") for row in ablation_rows(name)} <= set(VARIANTS)
    with pytest.raises(InvalidRequestError, match="'nobody'; there are ugc, hetero"):
        ablation_rows("nobody")


def test_weights_that_no_row_has_are_refused(tmp_path: Path) -> None:
    rows = (TableRow("a", A), TableRow("b", B))
    check_weights(rows, {"other": tmp_path})
    with pytest.raises(InvalidRequestError, match="rows have other"):
        check_weights(rows, {"mine": tmp_path})
    with pytest.raises(InvalidRequestError, match="no such folder"):
        check_weights(rows, {"other": tmp_path / "missing"})


def test_row_per_enrolment_length() -> None:
    """Each row is repeated for each length of enrolment."""
    rows = (TableRow("a", A), TableRow("b", B, "oracle_full"))
    assert seconds_rows(rows, ()) == rows
    short, long, *others = seconds_rows(rows, (5.0, 30.0))
    assert [row.label for row in (short, long, *others)] == ["a, 5 s", "a, 30 s", "b, 5 s", "b, 30 s"]
    assert (short.of.method, short.of.enrol_seconds, long.of.enrol_seconds) == (A.method, 5.0, 30.0)
    assert {row.variant for row in others} == {"oracle_full"}


def test_clip_compared_with_mean_mouth(near: dict[str, object]) -> None:
    """Figures of a clip are compared with its mean mouth."""
    full, still = (metrics_of(near, name) for name in ("full", "mean_mouth"))
    assert full["mouth_psnr_minus_m"] == pytest.approx(full["mouth_psnr_db"] - still["mouth_psnr_db"], abs=1e-4)
    assert full["mouth_lmd_over_m"] == pytest.approx(full["mouth_lmd_px"] / still["mouth_lmd_px"], abs=1e-4)
    assert still["mouth_psnr_minus_m"] == 0.0
    assert 0.0 < full["nme"] < still["nme"] < 0.1
    assert "wrong_audio_r" not in full
    # The mouth is a frame late, which the measured lag hides.
    assert full["aligned_r"] > 0.99 > 0.8 > full["mouth_opening_correlation"]
    assert full["aligned_lmd_px"] < full["mouth_lmd_px"]
    assert full["aligned_psnr_db"] > full["mouth_psnr_db"]
    assert full["delay_ms"] == pytest.approx(40.0, abs=2.0)
    assert set(COSTS) <= set(full)
    assert full["ms_per_frame"] > 0.0


def test_row_mean_and_worst(near: dict[str, object], far: dict[str, object], tmp_path: Path) -> None:
    """A row has the mean and the worst clip."""
    run = TableRun("Title", (TableRow("a", A),), TABLE_VARIANTS, tmp_path / "t.md", KeptResults(tmp_path / "t.json"))
    run.add(A, "near.mp4", near)
    run.add(A, "far.mp4", far)
    (row,) = run.filled()
    good, bad = metrics_of(near, "full"), metrics_of(far, "full")
    for name in ("mouth_psnr_db", "mouth_lmd_px", "opening_spread_ratio"):
        assert row.mean(name) == pytest.approx((good[name] + bad[name]) / 2)
        assert row.worst(name) == bad[name]
    assert [better_of(name) for name in ("mouth_psnr_db", "nme", "sharpness_ratio")] == ["higher", "lower", "one"]


def test_row_has_median_delay() -> None:
    """A row shows the median delay, and the clip that is furthest from 0."""
    row = FilledRow(TableRow("a", A), {name: {"delay_ms": each} for name, each in (("x", -60.0), ("y", 4.0), ("z", 8.0))})
    assert (row.mean("delay_ms"), row.worst("delay_ms"), better_of("delay_ms")) == (4.0, -60.0, "zero")


def test_files_name_measured_and_missing(near: dict[str, object], tmp_path: Path) -> None:
    """The files name what was measured refused and lacking."""
    path, results = tmp_path / "t.md", tmp_path / "t.json"
    kept = KeptResults(results)
    run = TableRun("Title", (TableRow("first", A), TableRow("second", B)), TABLE_VARIANTS, path, kept)
    assert run.weights == ("", "other")
    assert run.configurations("") == {A: TABLE_VARIANTS}
    kept.add("key", A, near)
    run.add(A, "near.mp4", near)
    run.refuse(A, "dark.mp4", "no face")
    run.lack("other", "its networks were not given")
    run.write()
    text = path.read_text(encoding="utf-8")
    assert "| first | 1 | " in text
    assert "* first, dark.mp4: no face" in text
    assert "* second: its networks were not given" in text
    assert "`mouth_psnr_db`" in text
    assert "`lpips`" not in text
    assert "On other data" in text
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    assert [row["label"] for row in rows] == ["first", "second"]
    assert rows[0]["mean"]["nme"] == pytest.approx(metrics_of(near, "full")["nme"], abs=1e-5)
    assert rows[1]["mean"] == {}
    check_table_path(path, results)


def test_next_run_knows_the_file(near: dict[str, object], tmp_path: Path) -> None:
    """The next run knows the results in the file."""
    results = tmp_path / "t.json"
    first = KeptResults(results)
    first.add("key", A, near)
    first.write([])
    again = KeptResults(results)
    assert again.get("key") == near
    assert again.get("another") is None


def test_key_depends_on_inputs(tmp_path: Path) -> None:
    """A key depends on clip configuration request and networks."""
    clips = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for number, clip in enumerate(clips):
        clip.write_bytes(bytes([number]))
    asked = {"variants": ["full"], "seed": 0}
    key = evaluation_key(clips[0], A, asked, "n")
    assert evaluation_key(clips[0], A, dict(reversed(asked.items())), "n") == key
    assert evaluation_key(clips[0], replace(A, finish=Finish.RENDERER), asked, "n") == key
    others = {
        evaluation_key(clips[1], A, asked, "n"),
        evaluation_key(clips[0], B, asked, "n"),
        evaluation_key(clips[0], replace(A, finish=Finish.BANK), asked, "n"),
        evaluation_key(clips[0], A, {**asked, "seed": 1}, "n"),
        evaluation_key(clips[0], A, asked, "m"),
    }
    assert len(others | {key}) == 6


def test_metrics_networks_count_as_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lags, and the distances of sync and faces, come from these networks."""
    motion = shutil.copytree(weights_of("motion"), tmp_path / "motion")
    monkeypatch.setenv("DUBSTAGE_MOTION_WEIGHTS", str(motion))
    files = shared_files()
    assert {motion / "lag.safetensors", motion / "sync_audio.onnx", motion / "sync_mouth.onnx"} <= set(files)
    assert {"ppg.onnx", "temporal_warp.onnx", "face_embedding.onnx.gz"} <= {path.name for path in files}
    assert motion / "hetero_generator.onnx" not in files


def test_equal_file_names_by_folder() -> None:
    """Clips of one file name are told apart by their folders."""
    clips = [Path(name) for name in ("s1/bbaf2n.mp4", "s2/bbaf2n.mp4", "s2/lgbf8n.mp4", "old/s2/bbaf2n.mp4", "/a.mp4", "a.mp4")]
    labels = labels_of([*clips, clips[0]])
    here = Path.cwd().name
    assert list(labels) == clips
    assert list(labels.values()) == [
        "s1/bbaf2n.mp4",
        f"{here}/s2/bbaf2n.mp4",
        "lgbf8n.mp4",
        "old/s2/bbaf2n.mp4",
        "/a.mp4",
        f"{here}/a.mp4",
    ]


def test_a_table_and_its_figures_are_two_files(near: dict[str, object], tmp_path: Path) -> None:
    page = tmp_path / "t.md"
    (tmp_path / "link.json").symlink_to(page)
    for results in (page, tmp_path / "link.json", tmp_path / "." / "t.md"):
        with pytest.raises(InvalidRequestError, match="two names"):
            check_table_path(page, results)


def test_foreign_page_replaced_on_request(near: dict[str, object], tmp_path: Path) -> None:
    """A foreign page beside results of a table is replaced on request only."""
    page, results = tmp_path / "notes.md", tmp_path / "t.json"
    kept = KeptResults(results)
    kept.add("key", A, near)
    kept.write([])
    page.write_text("mine")
    with pytest.raises(InvalidRequestError, match="no table wrote it"):
        check_table_path(page, results)
    check_table_path(page, results, overwrite=True)


@pytest.mark.parametrize("where", ["file/t.md", f"new/{'x' * 300}.md", "/proc/new/t.md"])
def test_unwritable_table_refused_before_work(where: str, tmp_path: Path) -> None:
    """A table that cannot be written is refused before the work."""
    (tmp_path / "file").write_text("a file")
    with raised(InvalidRequestError, match="cannot be written", field="table"):
        check_table_path(tmp_path / where, tmp_path / "t.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_table_makes_the_folders_above_it(near: dict[str, object], tmp_path: Path) -> None:
    page = tmp_path / "new" / "t.md"
    check_table_path(page, tmp_path / "t.json")
    TableRun("Title", (TableRow("a", A),), TABLE_VARIANTS, page, KeptResults(tmp_path / "t.json")).write()
    assert page.read_text(encoding="utf-8").startswith("# Title")


def test_files_of_other_content_are_not_replaced(tmp_path: Path) -> None:
    page, results = tmp_path / "notes.md", tmp_path / "notes.json"
    page.write_text("mine")
    with pytest.raises(InvalidRequestError, match="no table wrote it"):
        check_table_path(page, results)
    with pytest.raises(InvalidRequestError, match=r"does not end with \.md"):
        check_table_path(tmp_path / "notes.txt", results)
    results.write_text('{"mine": 1}')
    with pytest.raises(InvalidRequestError, match="holds no results"):
        KeptResults(results)
    assert KeptResults(results, overwrite=True).get("key") is None
