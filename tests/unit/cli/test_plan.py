from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cli.plan import FIGURES, PlannedLoad, needs, read_figures
from services.common.errors import InvalidRequestError
from services.common.methods import METHODS, RENDERERS

NIGHT = PlannedLoad(live_streams=0, video_hours=100.0, night_hours=10.0, fps=25.0, method="dubstage", scale=1)


def test_hundred_hours_a_night() -> None:
    """A hundred hours of video a night are 250 frames a second."""
    figures = read_figures(FIGURES)
    found = {need.stage: need for need in needs(figures, NIGHT, processors=2.0)}
    assert list(found) == ["audio", "face", "motion", "texture", "render", "gateway"]
    face = found["face"]
    assert face.video_processors == pytest.approx(figures.stages.face * 0.25)
    # At most 85 % of two processors are used.
    assert face.replicas * 2.0 * 0.85 >= face.video_processors > (face.replicas - 1) * 2.0 * 0.85
    assert face.live_processors == 0.0


def test_live_streams_leave_more_room_than_videos() -> None:
    live = replace(NIGHT, live_streams=10, video_hours=0.0)
    render, gateway = (needs(read_figures(FIGURES), load, 1.0)[-2] for load in (live, NIGHT))
    # Ten streams and a hundred hours in ten hours are the same number of frames.
    assert render.live_processors == pytest.approx(gateway.video_processors)
    assert render.replicas > gateway.replicas


def test_close_ups_cost_texture_and_gateway() -> None:
    """Close ups cost more in texture stage and gateway alone."""
    figures = read_figures(FIGURES)
    near, far = ({need.stage: need.ms_per_frame for need in needs(figures, replace(NIGHT, scale=s), 2.0)} for s in (4, 1))
    assert {stage for stage in far if near[stage] > far[stage]} == {"texture", "gateway"}


def test_large_frames_cost_the_gateway() -> None:
    """Frames of 3840 x 2160 cost the gateway more than those of 1280 x 720, and the stages as much."""
    figures = read_figures(FIGURES)
    large, usual = needs(figures, replace(NIGHT, megapixels=8.2944), 2.0), needs(figures, NIGHT, 2.0)
    assert large[:-1] == usual[:-1]
    assert large[-1].ms_per_frame == pytest.approx(usual[-1].ms_per_frame + 8 * 0.9216 * figures.gateway.megapixel)
    assert large[-1].replicas > 3 * usual[-1].replicas


def test_methods_have_figures_and_replicas() -> None:
    """Every method has a figure and each stage one replica at least."""
    figures = read_figures(FIGURES)
    assert set(figures.render) == set(RENDERERS)
    for method in METHODS:
        idle = replace(NIGHT, video_hours=0.0, method=method)
        assert [need.replicas for need in needs(figures, idle, 2.0)] == [1] * 6


def test_figures_of_other_machines_are_checked_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(FIGURES.read_text(encoding="utf-8").replace("face = 5.4", "face = -1"), encoding="utf-8")
    with pytest.raises(InvalidRequestError, match=r"mine\.toml: stages\.face"):
        read_figures(file)
    file.write_text("stages = 3\n[", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="no readable TOML"):
        read_figures(file)
    with pytest.raises(InvalidRequestError, match="none"):
        read_figures(tmp_path / "none.toml")


@pytest.mark.parametrize("wrong", ["inf", "nan", "-1", "1e300"])
@pytest.mark.parametrize("figure", ["video = 23.9", "ugc = 6.4", "texture = [0.3", "gateway = [0.2"])
def test_figures_are_numbers_of_a_sensible_size(figure: str, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    changed = figure.rstrip("0123456789.") + wrong
    file.write_text(FIGURES.read_text(encoding="utf-8").replace(figure, changed, 1), encoding="utf-8")
    with pytest.raises(InvalidRequestError, match=r"mine\.toml: (gateway.video|render.ugc|detail)"):
        read_figures(file)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="'magic'"):
        needs(read_figures(FIGURES), replace(NIGHT, method="magic"), 2.0)
