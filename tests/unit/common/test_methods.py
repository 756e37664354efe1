"""The table of methods, and combinations of their parts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from services.common.errors import InvalidRequestError
from services.common.methods import (
    DEFAULT_METHOD,
    LAG_FEATURES,
    METHODS,
    PREDICTORS,
    RENDERERS,
    SHARED_FEATURES,
    STILL_METHOD,
    Finish,
    Method,
    PredictorSpec,
    RendererSpec,
    TextureInput,
    combined,
    method_named,
)
from tests.refusals import raised


def test_a_method_without_changes_is_itself() -> None:
    for name in METHODS:
        assert combined(name) == name


def test_another_motion_predictor_makes_a_combination() -> None:
    name = combined("dubstage", motion="everybody")
    method = method_named(name)
    assert (method.motion.name, method.renderer.name) == ("everybody", "ugc")
    assert combined(name, motion="ugc") == "ugc"


def test_equal_parts_have_one_name() -> None:
    """Combinations of the same parts have the same name, however they are written."""
    assert combined("dubstage+ugc") == combined("dubstage") == "dubstage"
    assert combined("ugc+dubstage") == combined("ugc", renderer="dubstage") == "ugc"
    assert combined("portrait+headpose") == "portrait"
    assert combined("portrait+dubstage") == combined("dubstage", motion="portrait") == "portrait+ugc"
    assert combined("everybody+portrait") == "everybody+headpose"


def test_every_method_has_own_predictor() -> None:
    """The name of a method is the name of its predictor."""
    assert all(method.motion is PREDICTORS[name] for name, method in METHODS.items())


@pytest.mark.parametrize("name", ["", "nobody", "everybody+", "+ugc", "ugc+nobody", "ugc+ugc+ugc"])
def test_unknown_method_lists_methods(name: str) -> None:
    """A method that does not exist is refused, and the error lists the methods that do."""
    with pytest.raises(InvalidRequestError, match="there are: dubstage, everybody, everyone, headpose, hetero, portrait, ugc"):
        method_named(name)


@pytest.mark.parametrize("field", ["motion", "renderer"])
def test_an_unknown_part_is_named(field: str) -> None:
    with raised(InvalidRequestError, match=f"no {field} 'nobody'", field=field):
        combined("ugc", **{field: "nobody"})


def test_head_motion_follows_predictor() -> None:
    """The head moves where the motion predictor says so."""
    assert [name for name in METHODS if METHODS[name].own_timeline] == ["portrait", "headpose"]
    assert method_named("portrait+dubstage").own_timeline
    assert not method_named("dubstage+portrait").own_timeline


def test_methods_that_accept_pictures() -> None:
    """A picture is footage for what moves the head and draws the face."""
    assert all(method_named(name).takes_still for name in ("portrait", "headpose", "portrait+everyone"))
    unable = (
        *("dubstage", "ugc", "everybody", "hetero", "everyone"),
        *("portrait+dubstage", "headpose+hetero", "dubstage+portrait", "hetero+everyone"),
    )
    assert not any(method_named(name).takes_still for name in unable)


def test_every_pair_of_rows_is_a_method() -> None:
    for motion in METHODS:
        for renderer in METHODS:
            method = method_named(combined(motion, renderer=renderer))
            assert (method.motion, method.renderer) == (METHODS[motion].motion, METHODS[renderer].renderer)


def test_papers_show_their_renderer() -> None:
    """Only the methods of papers show what their renderers draw. A combination takes the finish of the bank."""
    papers = {name for name, method in METHODS.items() if method.finish is Finish.RENDERER}
    assert papers == {"ugc", "everybody", "headpose", "hetero", "everyone"}
    for motion in METHODS:
        for renderer in METHODS:
            method = method_named(combined(motion, renderer=renderer))
            assert method.finish is (Finish.RENDERER if method.name in papers else Finish.BANK)


def test_a_combination_is_live_where_both_parts_are() -> None:
    assert [name for name in METHODS if METHODS[name].live] == ["dubstage", "ugc", "everybody"]
    assert method_named("dubstage+everybody").live
    assert not method_named("portrait+dubstage").live
    assert not method_named("dubstage+portrait").live


def test_live_predictor_waits_less() -> None:
    """A live stream has a predictor that waits less than that of files."""
    method = method_named("dubstage")
    assert (method.motion.name, method.streamed.motion.name) == ("dubstage", "dubstage_live")
    assert method.streamed.motion.look_ahead_ms < method.motion.look_ahead_ms
    assert method.streamed.renderer == method.renderer
    assert all(method_named(name).streamed == method_named(name) for name in ("ugc", "everybody", "hetero"))


def test_live_predictors_offer_look_aheads() -> None:
    """A predictor with a choice of look-ahead is live, and its own look-ahead is one of the choices."""
    choosing = {name: row for name, row in PREDICTORS.items() if row.look_ahead_choices}
    assert list(choosing) == ["dubstage_live"]
    assert all(row.live and row.frames_ahead in row.look_ahead_choices for row in choosing.values())


@pytest.mark.parametrize(
    ("name", "frames", "says"),
    [
        ("dubstage_live", 4, "can use 0, 1, 2, 3 frames ahead, not 4; give one of these numbers, or remove look_ahead"),
        ("dubstage_live", -1, "not -1"),
        ("everybody", 1, "the predictor everybody always needs 4 frames ahead and has no choice, but 1 was given"),
        ("dubstage", 3, "has no choice"),
    ],
)
def test_wrong_look_ahead_refused(name: str, frames: int, says: str) -> None:
    """A look-ahead that the predictor does not have is refused with the field, the value and the remedy."""
    with raised(InvalidRequestError, match=re.escape(says), field="look_ahead"):
        PREDICTORS[name].check_look_ahead(frames, "look_ahead")


@pytest.mark.parametrize("name", PREDICTORS)
def test_declared_look_aheads_are_allowed(name: str) -> None:
    for frames in (None, *PREDICTORS[name].look_ahead_choices):
        PREDICTORS[name].check_look_ahead(frames, "look_ahead")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dubstage+everybody", ""),
        ("hetero+dubstage", "the predictor hetero needs 200 ms of speech after a frame"),
        ("dubstage+hetero", "the renderer hetero needs 2 frames after a frame"),
        (
            "everyone",
            "the predictor everyone needs 400 ms of speech after a frame, and the renderer everyone needs 1 frames after a frame",
        ),
        ("portrait+dubstage", "the predictor portrait moves the head, so its videos have a timeline of their own"),
        ("dubstage+portrait", "the renderer headpose is for files only"),
    ],
)
def test_non_live_method_names_part(name: str, reason: str) -> None:
    """A method that cannot be live says which part needs what."""
    assert method_named(name).why_not_live == reason
    assert method_named(name).live is (reason == "")


def test_every_method_says_why_it_is_not_live() -> None:
    methods = [method_named(combined(motion, renderer=renderer)) for motion in METHODS for renderer in METHODS]
    assert all(method.live is (method.why_not_live == "") for method in methods)
    streamed = [method.streamed.motion for method in methods]
    assert all(row.live or row.name in method.why_not_live for row, method in zip(streamed, methods, strict=True))
    assert all(method.renderer.live or method.renderer.name in method.why_not_live for method in methods)


def test_a_renderer_is_sent_what_it_declares() -> None:
    sent = {name: row.inputs for name, row in RENDERERS.items()}
    assert sent == {
        "ugc": ("texture",),
        "everybody": (),
        "headpose": ("texture",),
        "hetero": ("reference",),
        "everyone": ("neural_features", "speech_features"),
    }
    assert METHODS["everyone"].renderer.picture is TextureInput.NONE


def test_every_method_extracts_what_predictor_and_lag_need() -> None:
    for method in METHODS.values():
        assert set(method.features) == {*SHARED_FEATURES, *method.motion.features}
        assert set(method.footage_features) == {*method.features, *LAG_FEATURES}
        for kinds in (method.features, method.footage_features):
            assert len(set(kinds)) == len(kinds)


def test_defaults_take_their_footage() -> None:
    """The default methods of videos and of stills are rows, and the latter takes a single picture."""
    assert DEFAULT_METHOD in METHODS
    assert METHODS[STILL_METHOD].takes_still


def test_a_new_row_combines_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    motion = PredictorSpec(name="toy", package="toy", features=(), frames_ahead=0)
    monkeypatch.setitem(PREDICTORS, "toy", motion)
    toy = Method(name="toy", motion=motion, renderer=RendererSpec(name="toy", frames_after=2))
    monkeypatch.setitem(METHODS, "toy", toy)
    assert method_named("toy") is toy
    assert (toy.features, toy.footage_features) == (SHARED_FEATURES, LAG_FEATURES)
    assert combined("dubstage", renderer="toy") == "dubstage+toy"
    assert method_named("toy+ugc").motion is motion
    with pytest.raises(InvalidRequestError, match="toy"):
        method_named("nobody")


def test_combined_row_found_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with parts of other rows is found by its parts."""
    mixed = Method(name="mixed", motion=METHODS["ugc"].motion, renderer=METHODS["everybody"].renderer)
    monkeypatch.setitem(METHODS, "mixed", mixed)
    assert combined("ugc", renderer="everybody") == "mixed"
    assert combined("mixed", renderer="ugc") == "ugc"


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"texture": TextureInput.DRAWN}, "needs the person's identity"),
        ({"texture": TextureInput.NEURAL, "needs_actor": True}, "identity and an actor"),
        ({"texture": TextureInput.NEURAL, "needs_identity": True}, "identity and an actor"),
        ({"texture": TextureInput.WARPED, "colours_from_bank": True}, "starts from the bank's pictures"),
        ({"inside_from_bank": True}, "needs the colours of the bank"),
        ({"frames_after": 1, "live": True}, "sees frames after a frame"),
        ({"speech": True, "live": True}, "a live stream does not make"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(fields: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValueError, match=f"'toy'.*{missing}"):
        RendererSpec(name="toy", **fields)
